"""Outliers in tables: AE + flow beside neighbours and isolation forests, AUROC on the tables of ADBench.

    python benchmarks/adbench.py FOLDER [--only thyroid ...] [--rows 3000] [--steps 600] [--contaminated]

FOLDER holds the tables of ADBench (Han et al., 2022, arXiv 2206.09426) as .npz files with `X` and `y`, which is 1 for
outliers. Half of the usual rows trains, the other half and all outliers are the test; rows are shuffled by one seed,
and both sets are limited to `--rows` rows, the same for all methods. No label is used for training, for the choice of a
model or of `latent_dim`. All methods see columns standardised by the training rows. A tenth of these validates and
calibrates the two-step model, whose keys are `gae=ae`, `de=flow`, `whitening_transform=True`, `latent_dim=auto`.

    kNN        distance to the 5th nearest training row (scikit-learn's default)
    1-NN       distance to the nearest one
    forest     scikit-learn's isolation forest
    distance, density, nearest, two-part      those of `twostep score`

With `--contaminated` the detectors are fitted to all rows, outliers among them, and judge these rows: ours by
`training_scores_`.

No weight of the two-part score was chosen on these tables: the two distances share the weight that benchmarks/ood.py
gave to the distance.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from twostep.core.seeds import derive
from twostep.estimators import TwoStepOutlierDetector
from twostep.experiment.prepare import start
from twostep.metrics.ood.conformal import ConformalCalibrator
from twostep.metrics.ood.scores import DISTANCE, NEAREST, finite
from twostep.runs.overrides import Request

BATCH = 128
COLUMNS = ("kNN", "1-NN", "forest", "distance", "density", "nearest", "two-part")


def split(path: Path, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows, test rows and which of these are outliers."""
    with np.load(path) as file:
        x, outlier = file["X"].astype(np.float32), file["y"] == 1
    random = np.random.default_rng(0)
    usual = random.permutation(np.flatnonzero(~outlier))
    half = len(usual) // 2
    test = random.permutation(np.concatenate([usual[half:], np.flatnonzero(outlier)]))[:rows]
    return x[usual[:half][:rows]], x[test], outlier[test]


def two_step(train: np.ndarray, test: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Train a two-step model and return the scores of the test rows, by name; higher is more usual."""
    batch = min(BATCH, int(0.9 * len(train)))
    epochs = max(10, round(steps * batch / len(train)))
    keys = {"whitening_transform": True, "scale_data": False, "max_epochs": epochs}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "table.npz"
        np.savez(data, train=train, test=test)
        run = {"dataset": str(data), "logdir_root": Path(folder), "device": "cpu", "train_batch_size": batch}
        asked = {"run": run, "gae": {**keys, "latent_dim": "auto"}, "de": {**keys, "early_stopping_metric": "loss"}}
        experiment = start(Request({"gae": "ae", "de": "flow"}, asked))
        experiment.fit()
        for trainer in experiment.trainers:
            trainer.use_best()
        evaluator = experiment.evaluator
        assert evaluator.splits.valid is not None
        scored = evaluator.score({"valid": evaluator.splits.valid, "test": torch.from_numpy(test)})
        experiment.run.close()
    held_out, found = ({name: splits[which] for name, splits in scored.items()} for which in ("valid", "test"))
    calibrator = ConformalCalibrator(experiment.module, held_out, derive(0, "ood"))
    assert calibrator.two_part is not None
    return {**found, "two_part": calibrator.two_part.score(found)}


def areas(train: np.ndarray, test: np.ndarray, outlier: np.ndarray, steps: int) -> dict[str, float]:
    """Return the AUROC of each method."""
    scaler = StandardScaler().fit(train)
    x, new = scaler.transform(train), scaler.transform(test)
    distances = NearestNeighbors(n_neighbors=5).fit(x).kneighbors(new)[0]
    ours = two_step(train, test, steps)
    usual = {
        "kNN": -distances[:, 4],
        "1-NN": -distances[:, 0],
        "forest": IsolationForest(random_state=0).fit(x).score_samples(new),
        "distance": ours[DISTANCE],
        "density": ours["log_prob"],
        "nearest": ours[NEAREST],
        "two-part": ours["two_part"],
    }
    return {name: float(roc_auc_score(~outlier, finite(scores))) for name, scores in usual.items()}


def contaminated(path: Path, rows: int) -> str:
    """Return the AUROC of detectors on the rows that they were fitted to, as text."""
    with np.load(path) as file:
        kept = np.random.default_rng(0).permutation(len(file["X"]))[:rows]
        x, outlier = StandardScaler().fit_transform(file["X"][kept].astype(np.float32)), file["y"][kept] == 1
    ours = TwoStepOutlierDetector(contamination=min(0.5, outlier.mean()), random_state=0, device="cpu").fit(x)
    scores = {
        "ours": ours.training_scores_,
        "kNN": -NearestNeighbors(n_neighbors=5).fit(x).kneighbors()[0][:, 4],
        "forest": IsolationForest(random_state=0).fit(x).score_samples(x),
    }
    cells = "".join(f"{name:>10} {roc_auc_score(~outlier, one):.3f}" for name, one in scores.items())
    return f"{path.stem:20}{len(x):6}{outlier.mean():8.1%} outliers{cells}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--contaminated", action="store_true")
    given = parser.parse_args()
    logging.getLogger("twostep").setLevel(logging.ERROR)
    chosen = [
        path
        for path in sorted(given.folder.glob("*.npz"))
        if not given.only or any(name in path.stem for name in given.only)
    ]
    if given.contaminated:
        for path in chosen:
            print(contaminated(path, given.rows), flush=True)
        return
    print(f"{'':20}{'train':>6}{'test':>6}{'D':>5}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'CPU s':>7}")
    found: list[dict[str, float]] = []
    for path in chosen:
        train, test, outlier = split(path, given.rows)
        began = time.process_time()
        found.append(areas(train, test, outlier, given.steps))
        cells = "".join(f"{found[-1][name]:10.3f}" for name in COLUMNS)
        about = f"{len(train):6}{len(test):6}{train.shape[1]:5}"
        print(f"{path.stem:20}{about}{cells}{time.process_time() - began:7.0f}", flush=True)
    means = "".join(f"{np.mean([areas[name] for areas in found]):10.4f}" for name in COLUMNS)
    print(f"{f'mean of {len(found)}':37}{means}")


if __name__ == "__main__":
    main()
