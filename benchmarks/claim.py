"""The paper's claim: a density on embeddings gives better samples than the same density on the pixels.

Five families, each as second step on an autoencoder's embeddings and alone, from the same seed, rows and epochs;
samples are compared with the training images in the features of a classifier of the set's labels. Images are made
14 x 14 by means of 2 x 2 pixels for both sides, and `arm` (of 128 units in one layer, and, as in the paper's code,
without context) and `flow` get 12 epochs on both sides, for they take hours alone otherwise. Both sides of a pair share
a seed, so the test is paired: Student's, over the seeds, of the logarithm of the ratio of distances.

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172).

    TWOSTEP_DATA=<folder of data sets> python benchmarks/claim.py [--set mnist] [--seeds 3] [--work FOLDER]

Finished sides are skipped; figures go to docs/results/claim.json, from which `benchmarks/results.py` makes a table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import tables
from quality import LABELLED, METRICS, compared, short
from results import DES, FOLDER, ROWS
from twostep.core.figures import SMALLEST_TILE, grid, save_png
from twostep.data.load import load_data
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import resume, start
from twostep.metrics.features.base import Extractor
from twostep.metrics.features.classifier import classifier, train_classifier
from twostep.models.base import evaluating
from twostep.runs.overrides import Request

SMALLER = {
    "arm": {"max_epochs": 12, "hidden_size": 128, "num_layers": 1, "context": 0},
    "flow": {"max_epochs": 12},
}
KEPT = FOLDER / "claim.json"


def smaller(rows: Tensor) -> Tensor:
    """Halve the sides of images `(n, 1, H, W)` by means, rounded to integers."""
    return avg_pool2d(rows.float(), 2).round().to(torch.uint8)


def prepared(name: str, work: Path) -> tuple[Path, Extractor]:
    """Return the file of small images, and the features."""
    data = load_data(name, make_valid=False)
    train, test = smaller(data.train[:]), smaller(data.test[:])
    path = work / f"{name}-14.npz"
    work.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        np.savez(path, train=train[:ROWS].squeeze(1).numpy(), test=test.squeeze(1).numpy())
    assert data.train_labels is not None
    return path, classifier(train_classifier(train[:LABELLED], data.train_labels[:LABELLED], 0, 255))


def finished(folder: Path, request: Request) -> Experiment:
    """Train a run to its end, or go on with the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    experiment = resume(runs[-1], writing=True) if runs else start(request)
    experiment.fit()
    experiment.run.close()
    return experiment


def side(kind: str, family: str, seed: int, rows: Path, work: Path) -> Experiment:
    """Return a trained density: `alone` on the images, or `two_step` on an autoencoder of the same seed."""
    folder = work / f"{kind}-{family}-{seed}"
    run: dict[str, Any] = {"dataset": str(rows), "logdir_root": folder, "device": "cpu", "seed": seed}
    keys = SMALLER.get(family, {})
    if kind == "alone":
        return finished(folder, Request({"model": family}, {"run": run, "model": keys}))
    home = work / f"ae-{seed}"
    gae = finished(home, Request({"model": "ae"}, {"run": run | {"logdir_root": home}, "model": {}}, is_gae=True))
    run |= {"pretrained_gae": gae.run.path, "freeze_pretrained_gae": True}
    return finished(folder, Request({"de": family}, {"run": run, "de": keys}))


def draw(experiment: Experiment, path: Path) -> None:
    model: Any = experiment.module
    with evaluating(model):
        shown = model.sample(64, torch.Generator().manual_seed(0))
    save_png(grid(shown, experiment.splits.spec, 8), path, SMALLEST_TILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/claim"), help="folder of the runs")
    given = parser.parse_args()
    work = given.work.absolute() / given.set
    rows, features = prepared(given.set, work)
    facts: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for seed in range(given.seeds):
        for family in DES:
            for kind in ("two_step", "alone"):
                key = f"{kind}-{family}-{seed}"
                if key in facts:
                    continue
                began = time.process_time()
                experiment = side(kind, family, seed, rows, work)
                seconds = round(time.process_time() - began, 1)
                found = short(compared(experiment, features, METRICS["classifier"], seed))
                if seed == 0:
                    draw(experiment, FOLDER / "claim" / f"{kind}-{family}.png")
                facts[key] = {"seconds": seconds, **found}
                KEPT.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
                print(key, seconds, {name: round(result["value"], 2) for name, result in found.items()}, flush=True)
    print("\n".join(tables.claim()))


if __name__ == "__main__":
    main()
