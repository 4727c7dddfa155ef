"""Every autoencoder with every density, and every density alone, on 10,000 training images of the real sets.

Each cell is a run with the defaults, but for what `SLOW` says; an autoencoder is trained once, then frozen under each
density. Finished cells are skipped and broken ones resumed, so that a table may take several sittings:

    TWOSTEP_DATA=<folder of data sets> python benchmarks/results.py fashion-mnist [--only vae-flow alone-arm]
    python benchmarks/results.py        # train nothing: write docs/results.md from what is finished

Seconds are CPU time, so that other processes on the machine count for little.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tables
from tables import FOLDER, stored
from twostep.core.figures import SMALLEST_TILE, grid, save_png
from twostep.data.load import load_data
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import resume, start
from twostep.models import MODELS
from twostep.models.base import evaluating
from twostep.runs.overrides import Request

ROWS = 10_000
GAES = [name for name in MODELS if "gae" in MODELS[name].roles and name != "external"]  # which has no defaults
DES = [name for name in MODELS if "de" in MODELS[name].roles]
# A cell is `vae-gae`, an autoencoder; `vae-flow`, a density on its embeddings; or `alone-flow`, one on the images.
ALL = [*(f"{gae}-gae" for gae in GAES), *(f"{gae}-{de}" for de in DES for gae in GAES), *(f"alone-{de}" for de in DES)]
CELLS = {"fashion-mnist": ALL, "mnist": ALL, "cifar10": ["ae-gae", "vae-gae", "ae-flow", "vae-flow", "vae-vae"]}
# What would take many hours with the defaults: fewer epochs or a smaller network.
SLOW: dict[str, dict[str, Any]] = {
    "alone-arm": {"hidden_size": 128, "num_layers": 1, "max_epochs": 6},
    "alone-flow": {"max_epochs": 12},
    "wae-gae": {"max_epochs": 60},
}


def fill(name: str, work: Path, only: list[str]) -> None:
    """Train, test and draw every cell of a data set that is not finished."""
    rows = first_rows(name, work)
    for cell in CELLS[name]:
        if cell not in stored(name) and (not only or cell in only):
            folder = work / name / cell
            folder.mkdir(parents=True, exist_ok=True)
            runs = sorted(path for path in folder.iterdir() if path.is_dir())
            experiment = resume(runs[-1], writing=True) if runs else start(request(name, cell, rows, folder))
            seconds = trained(experiment, folder / "seconds")
            results = experiment.test()
            experiment.draw()
            experiment.run.close()
            draw(name, cell, experiment)
            keep(name, cell, experiment, results, seconds)


def first_rows(name: str, work: Path) -> Path:
    path = work / f"{name}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        splits = load_data(name, make_valid=False)
        parts = {"train": splits.train[:ROWS], "test": splits.test}
        np.savez(path, **{split: data.movedim(1, -1).squeeze(-1).numpy() for split, data in parts.items()})
    return path


def request(name: str, cell: str, rows: Path, folder: Path) -> Request:
    run: dict[str, Any] = {"dataset": str(rows), "logdir_root": folder, "device": "cpu"}
    first, _, second = cell.partition("-")
    keys = SLOW.get(cell, {})
    if second == "gae":
        return Request({"model": first}, {"run": run, "model": keys}, is_gae=True)
    if first == "alone":
        return Request({"model": second}, {"run": run, "model": keys})
    run |= {"pretrained_gae": autoencoder(name, first, rows, folder.parent), "freeze_pretrained_gae": True}
    return Request({"de": second}, {"run": run, "de": keys})


def autoencoder(name: str, gae: str, rows: Path, work: Path) -> Path:
    """Return the run of an autoencoder; where the runs of another sitting are gone, it is trained again."""
    folder = work / f"{gae}-gae"
    folder.mkdir(exist_ok=True)
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    experiment = resume(runs[-1]) if runs else start(request(name, f"{gae}-gae", rows, folder))
    experiment.fit()
    experiment.run.close()
    return experiment.run.path


def trained(experiment: Experiment, clock: Path) -> float:
    """Train to the end, and return the seconds of this sitting and of those before it that were not killed."""
    before = float(clock.read_text()) if clock.exists() else 0.0
    began = time.process_time()
    try:
        experiment.fit()
    finally:
        seconds = before + time.process_time() - began
        clock.write_text(str(seconds))
    return seconds


def draw(name: str, cell: str, experiment: Experiment) -> None:
    """Write 64 samples, or 32 images above their reconstructions for an autoencoder."""
    module: Any = experiment.module
    with evaluating(module):
        if cell.endswith("-gae"):
            rows = experiment.splits.test[:32].float().split(8)
            shown = torch.cat([part for row in rows for part in (row, module.decode(module.encode(row)))])
        else:
            shown = module.sample(64, torch.Generator().manual_seed(0))
    path = FOLDER / name / f"{cell}.png"
    save_png(grid(shown, experiment.splits.spec, 8), path, SMALLEST_TILE)


def keep(name: str, cell: str, experiment: Experiment, results: dict[str, Any], seconds: float) -> None:
    (trainer,) = experiment.trainers
    facts = stored(name)
    facts[cell] = {
        "epochs": trainer.epochs_done,
        "seconds": round(seconds, 1),
        "results": {part: {key: asdict(result) for key, result in of.items()} for part, of in results.items()},
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def value(result: dict[str, Any], digits: int = 2) -> str:
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:,.{digits}f}"
    return f"{result['value']:,.{digits}f}{error}"


def entry(name: str, cell: str, facts: dict[str, Any]) -> str:
    """Return a cell of a table: its figure, a link to its images, and what it cost."""
    if cell not in facts:
        return "not yet"
    found = facts[cell]
    if cell.endswith("-gae"):
        figure = value(found["results"]["model"]["l2_reconstruction_error"], 0)
    else:
        (part,) = found["results"].keys() & {"de", "model"}
        figure = value(found["results"][part]["log_likelihood"])
    less = ", ".join(f"{key}={setting}" for key, setting in SLOW.get(cell, {}).items())
    cost = f"{found['epochs']} epochs, {found['seconds']:,.0f} s" + (f", {less}" if less else "")
    return f"[{figure}](results/{name}/{cell}.png) <br> {cost}"


def table(name: str) -> list[str]:
    facts = stored(name)
    densities = [de for de in DES if any(cell.endswith(f"-{de}") for cell in CELLS[name])]
    kinds = [f"`{de}`" for de in densities]
    lines = [f"## {name}", "", f"| | reconstruction error | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for gae in (*GAES, "alone"):
        cells = [f"{gae}-{part}" for part in ("gae", *densities)]
        if any(cell in CELLS[name] for cell in cells):
            shown = [entry(name, cell, facts) if cell in CELLS[name] else "" for cell in cells]
            lines.append(f"| {'alone' if gae == 'alone' else f'`{gae}`'} | {' | '.join(shown)} |")
    return [*lines, ""]


def page() -> str:
    head = (FOLDER / "head.md").read_text().rstrip().splitlines()
    cells = [line for name in CELLS if stored(name) for line in table(name)]
    seen, quality, ood, claim, latent_dim = (
        (FOLDER / f"{part}.md").read_text().rstrip().splitlines()
        for part in ("seen", "quality", "ood", "claim", "latent_dim")
    )
    measured = [line for name in CELLS for line in tables.samples(name)]
    parts = [head, cells, seen, ["", *quality, *measured]]
    parts += [["", *claim, "", *tables.claim()]]
    parts += [["", *ood, "", *tables.detection(), "", *tables.detection_by_threshold()]]
    parts += [["", *latent_dim, "", *tables.latent_dim()]]
    return "\n".join([*(line for part in parts for line in (*part, "")), *commands(), ""])


def commands() -> list[str]:
    """Return what the last run of the exhaustive tests said of itself."""
    path = FOLDER / "exhaustive.txt"
    if not path.exists():
        return []
    about = "`make exhaustive` trains every pair in every order, and every density on every pretrained autoencoder, by"
    rest = "whole commands on small images; reloads each with a raised limit, and samples. Its last run ended with"
    return ["## Commands", "", about, rest, "", f"    {path.read_text().strip()}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"data sets: {', '.join(CELLS)}; none: write the page")
    parser.add_argument("--only", nargs="*", default=[], help="cells to fill; none: all")
    parser.add_argument("--work", type=Path, default=Path("runs/results"), help="folder of the runs")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(CELLS):
        parser.error(f"no such data set here: {', '.join(unknown)}")
    for name in options.sets:
        fill(name, options.work.absolute(), options.only)
    (FOLDER.parent / "results.md").write_text(page())


if __name__ == "__main__":
    main()
