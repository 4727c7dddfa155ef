"""Estimators: seconds of a fit, growth over many fits, level and power of split and crossed calibration, AUROC.

Run it with the name of one part, or without for all: `python benchmarks/estimators.py calibration`.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from twostep.estimators import DensityModel, IntrinsicDimension, TwoStepDensity, TwoStepOutlierDetector

Array = NDArray[np.float64]

ALPHA = 0.05
SMALL: dict[str, Any] = {
    "gae_config": {"encoder_hidden_dims": (16,), "decoder_hidden_dims": (16,), "max_epochs": 30, "lr": 0.02},
    "de_config": {"num_layers": 2, "hidden_units": 16, "max_epochs": 6, "lr": 0.01},
    "device": "cpu",
}


def curved(n: int, seed: int, shift: float = 0.0) -> Array:
    """Return rows `(n, 10)` near a curved manifold of 3 dimensions, moved off it by `shift` noise stds."""
    weights = np.random.default_rng(0).normal(size=(3, 10))
    random = np.random.default_rng((1, seed))
    points = np.tanh(random.normal(size=(n, 3)) @ weights)
    noise = random.normal(size=points.shape)
    return points + 0.05 * (noise + shift * np.sign(noise))


def seconds() -> None:
    x = curved(1000, 0)
    estimators: list[Any] = [TwoStepDensity(), DensityModel(), TwoStepOutlierDetector(), IntrinsicDimension()]
    for estimator in estimators:
        estimator.set_params(random_state=0)
        start, cpu = time.perf_counter(), time.process_time()
        estimator.fit(x)
        spent = time.perf_counter() - start, time.process_time() - cpu
        print(f"{type(estimator).__name__}: {spent[0]:.1f} s ({spent[1]:.1f} s of CPU) for 1,000 x 10", flush=True)


def resident() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(fits: int = 200, every: int = 40) -> float:
    """Fit 1,000 x 10 again and again; return the growth in MB from a fifth of the fits on."""
    x = curved(1000, 0)
    keys = {part: {**SMALL[part], "max_epochs": 1} for part in ("gae_config", "de_config")}
    found: list[float] = []
    for number in range(1, fits + 1):
        TwoStepDensity(**keys, latent_dim=3, device="cpu", random_state=number).fit(x).score_samples(x[:10])
        if number % every == 0:
            found.append(resident())
            print(f"{number} fits: {found[-1]:.1f} MB", flush=True)
    return found[-1] - found[0]


def rates(calibration: str, n: int, repetitions: int, alpha: float = ALPHA) -> tuple[Array, Array]:
    """Return the share of usual rows, and of rows off the manifold, with p-values up to alpha, by repetition."""
    usual, unusual = curved(500, 10_000), curved(500, 10_001, shift=10.0)
    shares: list[tuple[float, float]] = []
    for seed in range(repetitions):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # too few rows for the level: the point of the comparison
            detector = TwoStepOutlierDetector(**SMALL, latent_dim=3, alpha=alpha, calibration=calibration)
            detector.set_params(random_state=seed).fit(curved(n, seed))
        shares.append(tuple(float((detector.p_values(rows) <= alpha + 1e-9).mean()) for rows in (usual, unusual)))
    level, power = np.array(shares).T
    return level, power


def calibration(repetitions: int = 8) -> None:
    for n in (60, 120, 300):
        for kind in ("split", "cross"):
            level, power = rates(kind, n, repetitions)
            error = level.std(ddof=1) / np.sqrt(repetitions)
            print(f"{n} rows, {kind}: level {level.mean():.3f} ± {error:.3f}, power {power.mean():.3f}", flush=True)


def tables() -> None:
    cancer, wine, digits = load_breast_cancer(), load_wine(), load_digits()
    sets = {
        "breast cancer, benign": (cancer.data[cancer.target == 1], cancer.data[cancer.target == 0]),
        "wine, class 1": (wine.data[wine.target == 1], wine.data[wine.target != 1]),
        "digits, 0 to 4": (digits.data[digits.target < 5], digits.data[digits.target >= 5]),
    }
    for name, (usual, unusual) in sets.items():
        usual = usual[np.random.default_rng(0).permutation(len(usual))]
        train, rows = usual[: len(usual) // 2], np.concatenate([usual[len(usual) // 2 :], unusual])
        labels = np.arange(len(rows)) >= len(rows) - len(unusual)
        scale = StandardScaler().fit(train)
        near = NearestNeighbors(n_neighbors=5).fit(scale.transform(train)).kneighbors(scale.transform(rows))[0][:, -1]
        forest = -IsolationForest(random_state=0).fit(train).score_samples(rows)
        detector = TwoStepOutlierDetector(random_state=0).fit(train)
        scores = {"5 neighbours": near, "isolation forest": forest, "two-step": -detector.decision_function(rows)}
        figures = ", ".join(f"{kind} {roc_auc_score(labels, values):.3f}" for kind, values in scores.items())
        alarms = (detector.predict(rows[~labels]) == -1).mean()
        print(f"{name} ({len(train)} rows): AUROC {figures}; false alarms at {ALPHA}: {alarms:.3f}", flush=True)


def main() -> None:
    parts = {"seconds": seconds, "growth": growth, "calibration": calibration, "tables": tables}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
