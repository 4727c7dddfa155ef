"""Densities beside each other: held-out log-likelihood in nats, and seconds of training.

    TWOSTEP_DATA=<data sets> python benchmarks/densities.py [--folder FOLDER] [--seconds 60] [--only earth ...]

Each density has its default keys, and no more than `--seconds` for training. Higher is better; within a set, all are in
the same units.

    embeddings   12,000 images of fashion-mnist by a VAE that was trained for `--seconds`
    earth        earthquakes and floods (De Bortoli et al., 2022, arXiv 2202.02763) in a true chart of the sphere,
                 longitude and sine of latitude: nats with respect to area (uniform: -2.531). FOLDER/earth holds the
                 files quakes_all.csv and flood.csv of the repository oxcsml/riemannian-score-sde. Beside them stands a
                 kernel density of von Mises-Fisher distributions on the sphere itself
    pinwheel     1,000 and 50,000 rows in the plane, beside their true density
    table        mammography of ADBench (Han et al., 2022, arXiv 2206.09426), its usual rows, 1,000 of them or all:
                 FOLDER/adbench/23_mammography.npz
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from twostep.data.batches import embed, subsample
from twostep.data.synthetic import distribution
from twostep.experiment.prepare import start
from twostep.models.base import GeneralizedAutoencoder
from twostep.models.flow import FlowConfig
from twostep.runs.overrides import Request

TEST_ROWS = 1000
VARIANTS = [name for name in get_args(FlowConfig.model_fields["transform"].annotation) if name != "multiscale"]
DENSITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gmm": ("gmm", {}),
    "kde": ("kde", {}),
    "kde, raw units": ("kde", {"whitening_transform": False}),
    **{f"flow, {name}": ("flow", {"transform": name}) for name in VARIANTS},
    "flow, constant rate": ("flow", {"lr": 1e-3, "use_lr_scheduler": False, "ema_decay": None}),
    "fm": ("fm", {}),
}


class Rows(NamedTuple):
    """Training and test rows of a set, and the mean log-density of the test rows under what the others aim at."""

    name: str
    train: np.ndarray
    test: np.ndarray
    aim: float | None = None


def shuffled(name: str, x: np.ndarray, rows: int | None = None) -> Rows:
    """Split rows by one seed: a tenth tests, 1,000 rows at most, and `rows` of the others train, or all."""
    x = x[np.random.default_rng(0).permutation(len(x))].astype(np.float32)
    test = min(TEST_ROWS, len(x) // 10)
    return Rows(name, x[test:][:rows], x[:test])


def embeddings(_: Path | None, seconds: float) -> Iterator[Rows]:
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": "fashion-mnist", "logdir_root": folder, "device": "cpu", "max_minutes": seconds / 60}
        experiment = start(Request({"model": "vae"}, {"run": run}, is_gae=True))
        experiment.fit()
        experiment.run.close()
    model, splits = experiment.module.eval(), experiment.splits
    assert isinstance(model, GeneralizedAutoencoder)
    sets = (subsample(splits.train, 12_000), subsample(splits.test, TEST_ROWS))
    yield Rows("embeddings, 12,000", *(embed(model.encode, rows).numpy() for rows in sets))


def earth(folder: Path | None, _: float) -> Iterator[Rows]:
    for name in ("quakes_all", "flood"):
        if folder is None or not (path := folder / "earth" / f"{name}.csv").exists():
            continue
        lines = [line for line in path.read_text().splitlines() if line[:1] in "-0123456789"]
        latitude, longitude = np.deg2rad(np.array([line.split(",")[:2] for line in lines], dtype=float)).T
        rows = shuffled(f"{name}, {len(lines):,}", np.stack([longitude, np.sin(latitude)], 1))
        yield rows._replace(aim=on_sphere(*(directions(part) for part in (rows.train, rows.test))))


def directions(rows: np.ndarray) -> torch.Tensor:
    """Return unit vectors `(n, 3)` of longitudes and sines of latitudes."""
    longitude, sine = torch.from_numpy(rows).double().T
    cosine = (1 - sine.square()).sqrt()
    return torch.stack([cosine * longitude.cos(), cosine * longitude.sin(), sine], 1)


def on_sphere(train: torch.Tensor, test: torch.Tensor) -> float:
    """Return the log-likelihood of test rows under von Mises-Fisher kernels; held-out rows choose their width."""
    held_out = len(train) // 10

    def log_likelihood(kappa: float, known: torch.Tensor, new: torch.Tensor) -> float:
        logs = (kappa * (new @ known.T - 1)).logsumexp(1) - math.log(len(known))
        return float(logs.mean()) + math.log(kappa / (2 * math.pi * (1 - math.exp(-2 * kappa))))

    widths = np.geomspace(10, 1e5, 60).tolist()
    best = max(widths, key=lambda kappa: log_likelihood(kappa, train[held_out:], train[:held_out]))
    return log_likelihood(best, train, test)


def pinwheel(_: Path | None, __: float) -> Iterator[Rows]:
    for n in (1000, 50_000):
        truth = distribution("pinwheel", {"n": n})
        generator = torch.Generator().manual_seed(0)
        train, test = (truth.sample(rows, generator).double() for rows in (n, TEST_ROWS))
        yield Rows(f"pinwheel, {n:,}", train.numpy(), test.numpy(), float(truth.log_prob(test).mean()))


def table(folder: Path | None, _: float) -> Iterator[Rows]:
    if folder is None or not (path := folder / "adbench" / "23_mammography.npz").exists():
        return
    with np.load(path) as file:
        usual = file["X"][file["y"] == 0]
    for rows in (1000, None):
        yield shuffled(f"mammography, {rows or len(usual):,}", usual, rows)


SETS = {"embeddings": embeddings, "earth": earth, "pinwheel": pinwheel, "table": table}


def measure(rows: Rows, model: str, keys: dict[str, Any], seconds: float) -> tuple[float, float, float]:
    """Return the log-likelihood of the test rows, its standard error, and the CPU seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, train=rows.train.astype(np.float32), test=rows.test.astype(np.float32))
        run = {"dataset": str(path), "logdir_root": folder, "device": "cpu", "max_minutes": seconds / 60}
        experiment = start(Request({"model": model}, {"run": run, "model": {"test_metrics": "log_likelihood", **keys}}))
        began = time.process_time()
        experiment.fit()
        spent = time.process_time() - began
        found = experiment.test()["model"]["log_likelihood"]
        experiment.run.close()
    return found.value, found.standard_error or 0.0, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--densities", nargs="*", choices=list(DENSITIES), default=list(DENSITIES))
    given = parser.parse_args()
    print(f"{'set':24}{'density':20}{'nats':>10}{'±':>8}{'aim':>10}{'CPU s':>8}")
    for name in given.only:
        for rows in SETS[name](given.folder, given.seconds):
            for density in given.densities:
                value, error, spent = measure(rows, *DENSITIES[density], given.seconds)
                aim = "" if rows.aim is None else f"{rows.aim:.3f}"
                print(f"{rows.name:24}{density:20}{value:10.3f}{error:8.3f}{aim:>10}{spent:8.0f}", flush=True)


if __name__ == "__main__":
    main()
