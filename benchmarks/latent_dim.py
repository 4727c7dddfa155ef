"""What `latent_dim=auto` chooses for fashion-mnist, and how samples of `ae` with `flow` are at that size and at others.

10,000 training images, as in `results.py`; the defaults of `ae` and `flow`; three seeds, of which the first estimates
the dimension. 10,000 samples are compared with the training images in features of a classifier of the set's labels,
as in `quality.py`. Finished runs are skipped and broken ones resumed:

    TWOSTEP_DATA=<folder of data sets> python benchmarks/latent_dim.py [--work FOLDER]

Figures go to docs/results/latent_dim.json; the table of what is finished is printed. Seconds are CPU time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tables
from quality import own_classifier, quality, short
from results import FOLDER, first_rows, trained
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import resume, start
from twostep.metrics.features.base import Extractor
from twostep.runs.overrides import Request

NAME = "fashion-mnist"
SIZES = (5, 10, 20, 40)
SEEDS = (0, 1, 2)
FIGURES = FOLDER / "latent_dim.json"


def stored() -> dict[str, Any]:
    return json.loads(FIGURES.read_text()) if FIGURES.exists() else {"runs": {}}


def cells() -> Iterator[tuple[int | str, int]]:
    """Yield sizes and seeds of what is to be trained: first the run that chooses a size."""
    yield "auto", SEEDS[0]
    chosen = stored()["chosen"]["latent_dim"]
    for seed in SEEDS:
        for size in sorted({*SIZES, chosen}):
            if (size, seed) != (chosen, SEEDS[0]):
                yield size, seed


def request(size: int | str, seed: int, rows: Path, folder: Path) -> Request:
    run = {"dataset": str(rows), "logdir_root": folder, "device": "cpu", "seed": seed}
    return Request({"gae": "ae", "de": "flow"}, {"run": run, "gae": {"latent_dim": size}})


def fill(work: Path) -> None:
    """Train and measure whatever is not finished."""
    rows, features = first_rows(NAME, work), {"classifier": own_classifier(NAME, work)}
    for size, seed in cells():
        cell = f"{size}-{seed}"
        if cell in stored()["runs"]:
            continue
        folder = work / "latent_dim" / cell
        folder.mkdir(parents=True, exist_ok=True)
        runs = sorted(path for path in folder.iterdir() if path.is_dir())
        experiment = resume(runs[-1], writing=True) if runs else start(request(size, seed, rows, folder))
        seconds = trained(experiment, folder / "seconds")
        keep(cell, seed, measured(experiment, features), seconds, experiment)
        experiment.run.close()


def measured(experiment: Experiment, features: dict[str, Extractor]) -> dict[str, Any]:
    results = experiment.test()
    error = results["gae"]["l2_reconstruction_error"].value
    return {"reconstruction_error": error, **short(quality(experiment, features)["classifier"])}


def keep(cell: str, seed: int, results: dict[str, Any], seconds: float, experiment: Experiment) -> None:
    facts = stored()
    size = experiment.settings.models["gae"].model_dump()["latent_dim"]
    epochs = {trainer.name: trainer.epochs_done for trainer in experiment.trainers}
    facts["runs"][cell] = {"size": size, "seed": seed, "epochs": epochs, "seconds": round(seconds, 1), **results}
    reasons = experiment.run.path / "dimension.json"
    if reasons.exists():
        facts["chosen"] = json.loads(reasons.read_text())
    FIGURES.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    print(cell, f"fd {results['fd']['value']:.2f}", f"{seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/results"), help="folder of rows, classifier and runs")
    fill(parser.parse_args().work.absolute())
    print("\n".join(tables.latent_dim()))


if __name__ == "__main__":
    main()
