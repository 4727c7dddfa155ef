"""Resident memory of training: a VAE on fashion-mnist above what the imports take, and every model over 50 epochs.

Every model is trained on 1,280 rows: autoencoders on the bundled digits, densities on 20 coordinates. The arrays of
fashion-mnist must be decoded in the cache already (any earlier run puts them there); that takes more.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/memory.py
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lightning_fabric  # noqa: F401  (what a run imports counts as imports)
import numpy as np
import torch.utils.tensorboard  # noqa: F401

from twostep.experiment.prepare import start
from twostep.models import MODELS
from twostep.runs.overrides import Request

LIMIT_MB, FLAT = 250, 0.02


def resident_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def resident_after_epochs(request: Request, epochs: int) -> list[float]:
    experiment = start(request)
    trainer, valid = experiment.trainer, experiment.splits.valid
    assert valid is not None
    trainer.set_data(
        experiment.evaluator.batches(experiment.splits.train, 128), experiment.evaluator.batches(valid, 128)
    )
    resident: list[float] = []
    for _ in range(epochs):
        trainer.run_epoch()
        resident.append(resident_mb())
    experiment.run.close()
    return resident


def report(name: str, resident: list[float], first: int) -> None:
    """Print by how much the memory grows from the first quarter of the epochs that count to the last."""
    counted = resident[first:]
    quarter = len(counted) // 4
    before, after = statistics.median(counted[:quarter]), statistics.median(counted[-quarter:])
    print(f"{name}: {before:.0f} MB at first, {after:.0f} MB in the end of {len(resident)} epochs,", end=" ")
    print(f"{after / before - 1:+.1%} (limit {FLAT:.0%})", flush=True)


def main() -> None:
    imports = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": "fashion-mnist", "logdir_root": folder}
        resident = resident_after_epochs(Request({"model": "vae"}, {"run": run}, is_gae=True), 20)
        print(f"imports: {imports:.0f} MB; training: {max(resident) - imports:.0f} MB above (limit {LIMIT_MB} MB)")
        report("vae on fashion-mnist", resident, 1)
        rows = Path(folder) / "rows.npy"
        np.save(rows, np.random.default_rng(0).normal(size=(1800, 20)).astype(np.float32))
        for name in sorted(MODELS):
            is_gae = "gae" in MODELS[name].roles
            run = {"dataset": "digits" if is_gae else str(rows), "logdir_root": folder}
            keys = {"max_epochs": 50, "early_stopping_metric": None}
            request = Request({"model": name}, {"run": run, "model": keys}, is_gae)
            # what one model frees is not given back at once, so each has a process of its own
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                report(name, process.submit(resident_after_epochs, request, 50).result(), 5)


if __name__ == "__main__":
    main()
