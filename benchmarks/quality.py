"""Measures of the samples of every run of `results.py`, and of how well some of them separate the partner set.

10,000 samples against the run's training images, beside them the held-out images in the samples' place. Features
are those of a classifier of the set's own labels (trained on 20,000 of its training images) and of
EfficientNet-Lite0. Finished cells are skipped.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/quality.py fashion-mnist [--only vae-flow ...] [--work FOLDER]

Figures go to docs/results/<set>-quality.json; `python benchmarks/results.py` makes the page of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from results import CELLS, FOLDER
from twostep.core.keys import MetricKeys
from twostep.data.load import load_data
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import resume
from twostep.experiment.resolve import load_other
from twostep.metrics import Result, evaluate
from twostep.metrics.features.base import Extractor
from twostep.metrics.features.classifier import classifier, train_classifier
from twostep.metrics.features.efficientnet import efficientnet_lite0
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.runs.config import RunConfig

LABELLED = 20_000
METRICS = {"classifier": ("fd", "kid", "precision_recall_density_coverage"), "efficientnet-lite0": ("fd",)}
OOD = ("ae-flow", "vae-flow", "wae-flow", "alone-flow")


def own_classifier(name: str, work: Path) -> Extractor:
    """Return the features of a classifier of a set's labels, which is trained once."""
    path = work / f"{name}-classifier.safetensors"
    if not path.exists():
        train = load_data(name, make_valid=False)
        assert train.train_labels is not None
        save_file(train_classifier(train.train[:LABELLED], train.train_labels[:LABELLED], 0, 255), path)
    return classifier(load_file(path))


def quality(experiment: Experiment, features: dict[str, Extractor]) -> dict[str, dict[str, Result]]:
    """Return the measures of a run's samples by features, those that are given, and name."""
    return {kind: compared(experiment, extractor, METRICS[kind]) for kind, extractor in features.items()}


def compared(experiment: Experiment, extractor: Extractor, names: tuple[str, ...], seed: int = 0) -> dict[str, Result]:
    """Compare samples of a run with its training rows, and held-out rows in their place."""
    evaluator = experiment.evaluator
    model: Any = experiment.module
    held_out = evaluator.seen(evaluator.whole, experiment.splits.test)
    training = evaluator.batches(experiment.splits.train, held_out.batch_size)
    sets = FeatureSets(
        model, lambda: training, held_out, MetricKeys(), lambda _: extractor, same, seed, with_reference=True
    )
    return evaluate(names, model, held_out, same, seed, sets)


def same(rows: Tensor) -> Tensor:
    return rows


def told_apart(name: str, experiment: Experiment) -> dict[str, Result]:
    """Return how well the scores of a run separate the partner of its dataset."""
    run: RunConfig = experiment.settings.run
    other = OOD_PARTNERS[name]
    others = {other: load_other(other, run, experiment.splits.spec)}
    return {
        name: result
        for name, result in experiment.evaluator.detect(others).results.items()
        if name.endswith(("auroc", "_acc", "_low_dim"))
    }


def short(results: dict[str, Result]) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": result.value, "interval": result.interval, "reference": result.reference}
        for name, result in results.items()
    }


def fill(name: str, work: Path, only: list[str]) -> None:
    path = FOLDER / f"{name}-quality.json"
    features = {"classifier": own_classifier(name, work), "efficientnet-lite0": efficientnet_lite0(0, 255)}
    for cell in (cell for cell in CELLS[name] if not cell.endswith("-gae") and (not only or cell in only)):
        facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        runs = sorted(path for path in (work / name / cell).iterdir() if path.is_dir())
        if cell in facts or not runs:
            continue
        experiment = resume(runs[-1])
        for trainer in experiment.trainers:
            trainer.use_best()
        began = time.process_time()
        found = quality(experiment, features)
        seconds = round(time.process_time() - began, 1)
        facts[cell] = {"seconds": seconds, **{kind: short(results) for kind, results in found.items()}}
        if cell in OOD and name != "cifar10":
            facts[cell]["ood"] = short(told_apart(name, experiment))
        path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        print(name, cell, seconds, {kind: round(of["fd"].value, 2) for kind, of in found.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=list(CELLS))
    parser.add_argument("--only", nargs="*", default=[], help="cells to fill; none: all")
    parser.add_argument("--work", type=Path, default=Path("runs/results"), help="folder of the runs of results.py")
    given = parser.parse_args()
    for name in given.sets:
        fill(name, given.work.absolute(), given.only)


if __name__ == "__main__":
    main()
