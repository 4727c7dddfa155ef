"""Is the default length enough? Each model at its default, and at four times that length, on small and large data.

Autoencoders by the reconstruction error of test rows, densities by their log-likelihood on embeddings of an `ae` at its
default, of tables on the rows themselves. A length is enough where four times of it gain at most 5 % of an error, or
0.05 nats a coordinate.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/lengths.py [--models ae flow] [--data digits few]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons

from twostep.data.load import load_data
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import start
from twostep.models import MODELS
from twostep.runs.overrides import Request

TIMES = 4
FITTED = ("external", "gmm", "kde")  # which no steps train


def images(rows: int) -> dict[str, np.ndarray]:
    data = load_data("fashion-mnist", make_valid=False)
    return {"train": data.train[:rows, 0].numpy(), "test": data.test[:, 0].numpy()}


def table(rows: int) -> dict[str, np.ndarray]:
    """Return rows near a surface of four dimensions in ten: two moons, bent and turned, with noise."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray:
        z = np.concatenate([make_moons(n, noise=0.1, random_state=int(rng.integers(1000)))[0] for _ in range(2)], 1)
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
        bent = np.concatenate([z, np.sin(2 * z), z[:, :2] * z[:, 2:]], 1)
        return ((bent + 0.05 * rng.normal(size=(n, 10))) @ turn).astype(np.float32)

    return {"train": draw(rows), "test": draw(5000)}


DATA: dict[str, Callable[[], dict[str, np.ndarray]] | None] = {
    "digits": None,
    "few": lambda: images(500),
    "table-1000": lambda: table(1000),
    "table-50000": lambda: table(50_000),
    "fashion-mnist": lambda: images(10_000),
}


def trained(name: str, role: str, dataset: str, root: Path, times: int) -> tuple[Experiment, float]:
    """Train a model at its default length or so many times of it; return also the CPU seconds."""
    overrides: dict[str, dict[str, Any]] = {"run": {"dataset": dataset, "logdir_root": root, "device": "cpu"}}
    request = Request({"model": name}, {**overrides, "model": {}}, is_gae=role == "gae")
    experiment = start(request)
    if times > 1:
        epochs = times * experiment.trainers[0].max_epochs
        experiment.run.close()
        patience = {"max_bad_valid_epochs": epochs}  # the best weights count
        experiment = start(
            Request({"model": name}, {**overrides, "model": {"max_epochs": epochs, **patience}}, role == "gae")
        )
    began = time.process_time()
    experiment.fit()
    return experiment, time.process_time() - began


def figure(experiment: Experiment, role: str) -> float:
    metric = "l2_reconstruction_error" if role == "gae" else "log_likelihood"
    return experiment.evaluator.measure(experiment.evaluator.whole, (metric,))[metric].value


def compare(name: str, role: str, label: str, dataset: str, root: Path) -> Experiment:
    found, seconds, epochs = [], [], []
    first = None
    for times in (1, TIMES):
        experiment, took = trained(name, role, dataset, root, times)
        experiment.run.close()
        first = first or experiment
        found.append(figure(experiment, role))
        seconds.append(took)
        epochs.append((experiment.trainers[0].epochs_done, experiment.trainers[0].max_epochs))
    gain = 100 * (1 - found[1] / found[0]) if role == "gae" else found[1] - found[0]
    unit = "%" if role == "gae" else "nats"
    print(
        f"{label}: {name} ({role}) {found[0]:.5g} in {seconds[0]:.0f} s, epochs {epochs[0]}; {TIMES} times as long "
        f"{found[1]:.5g} in {seconds[1]:.0f} s, epochs {epochs[1]}: gains {gain:.2f} {unit}",
        flush=True,
    )
    assert first is not None
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[name for name in MODELS if name not in FITTED])
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for label in asked.data:
            root, make = Path(folder) / label, DATA[label]
            root.mkdir()
            dataset = label if make is None else str(root / "rows.npz")
            if make is not None:
                np.savez(dataset, **make())
            for name in (name for name in asked.models if "gae" in MODELS[name].roles):
                compare(name, "gae", label, dataset, root / name)
            rows = dataset if label.startswith("table") else embeddings(label, dataset, root)
            for name in (name for name in asked.models if "de" in MODELS[name].roles):
                compare(name, "de", label, rows, root / f"{name}-de")


def embeddings(label: str, dataset: str, root: Path) -> str:
    """Return the file of the embeddings of the rows of a dataset by an autoencoder at its default."""
    experiment, _ = trained("ae", "gae", dataset, root / "first", 1)
    experiment.run.close()
    encoder: Any = experiment.module
    path, parts = root / "embeddings.npz", experiment.splits
    with torch.no_grad():
        np.savez(
            path, **{split: encoder.encode(getattr(parts, split)[:].float()).numpy() for split in ("train", "test")}
        )
    return str(path)


if __name__ == "__main__":
    main()
