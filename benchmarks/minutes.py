"""What a two-step model with default keys reaches in minutes, on 9,000 training images: distances, copies, likelihoods.

Fréchet distances of 10,000 samples to the test images (and to the training images), in 128 features of a classifier of
the set's labels and in those of EfficientNet-Lite0; those of reconstructions of the test images, which no second step
can pass; precision, recall, density and coverage; the share of samples nearer, in pixels, to a training image than to
any of as many test images; the gap of the log-density of embeddings between training and test images.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/minutes.py fashion-mnist mnist [--minutes 3] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from quality import own_classifier
from results import first_rows
from twostep.core.figures import SMALLEST_TILE, grid, save_png
from twostep.core.keys import MetricKeys
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import start
from twostep.metrics import evaluate
from twostep.metrics.features.base import Extractor, pixels
from twostep.metrics.features.efficientnet import efficientnet_lite0
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import evaluating
from twostep.runs.overrides import Request, parse_overrides

PRDC = "precision_recall_density_coverage"
GAP_ROWS = 1000


def trained(name: str, work: Path, seed: int, minutes: float | None, keys: dict[str, dict[str, Any]]) -> Experiment:
    run = {"dataset": str(first_rows(name, work)), "logdir_root": work / "minutes", "seed": seed}
    run |= {} if minutes is None else {"max_minutes": minutes}
    models = {"gae": "ae", "de": "fm"} | {part: keys[part].pop("name") for part in keys if "name" in keys[part]}
    return start(Request(models, {"run": run, **keys}))


def compared(experiment: Experiment, extractor: Extractor, names: tuple[str, ...], against: str) -> dict[str, float]:
    """Compare samples with the training or the test images, in whose place the other ones are held out."""
    evaluator, splits = experiment.evaluator, experiment.splits
    sides = {"train": splits.train, "test": splits.test}
    data, other = (
        evaluator.batches(sides[side], 1000) for side in (against, "test" if against == "train" else "train")
    )
    model: Any = experiment.module
    sets = FeatureSets(
        model, lambda: data, other, MetricKeys(), lambda _: extractor, lambda rows: rows, 0, with_reference=False
    )
    found = evaluate(names, model, other, lambda values: values, 0, sets)
    return {key: round(result.value, 3) for key, result in found.items()}


def gap(experiment: Experiment) -> float:
    """Return by how many nats training embeddings are more likely than test embeddings."""
    model: Any = experiment.module
    with evaluating(model):
        means = [
            float(model.de.log_prob(model.encode(rows[:GAP_ROWS].float())).mean())
            for rows in (experiment.splits.train, experiment.splits.test)
        ]
    return means[0] - means[1]


def measured(experiment: Experiment, features: dict[str, Extractor]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, extractor in features.items():
        found[kind] = {
            "to test": compared(experiment, extractor, ("fd",), "test")["fd"],
            **compared(
                experiment, extractor, ("fd", "fd_reconstruction", *([PRDC] if kind == "classifier" else [])), "train"
            ),
        }
    (share,) = compared(experiment, pixels(0, 255), ("nearer_to_training",), "train").values()
    return {**found, "nearer to training": share, "gap": round(gap(experiment), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--gae-config", nargs="*", default=[])
    parser.add_argument("--de-config", nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("runs/results"))
    asked = parser.parse_args()
    work = asked.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for name in asked.sets:
        features = {"classifier": own_classifier(name, work), "efficientnet-lite0": efficientnet_lite0(0, 255)}
        for seed in asked.seeds:
            keys = {"gae": parse_overrides(asked.gae_config), "de": parse_overrides(asked.de_config)}
            experiment = trained(name, work, seed, asked.minutes, keys)
            began, before = time.monotonic(), time.process_time()
            experiment.fit()
            experiment.run.close()
            seconds = [round(time.monotonic() - began), round(time.process_time() - before)]
            epochs = {trainer.name: trainer.epochs_done for trainer in experiment.trainers}
            facts = {"seed": seed, "seconds, CPU seconds": seconds, "epochs": epochs, **measured(experiment, features)}
            print(name, json.dumps(facts), flush=True)
            with evaluating(experiment.module):
                shown = experiment.module.sample(64, torch.Generator().manual_seed(0))
            save_png(grid(shown, experiment.splits.spec, 8), experiment.run.path / "shown.png", SMALLEST_TILE)


if __name__ == "__main__":
    main()
