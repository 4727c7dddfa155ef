"""Resident memory of training a VAE on fashion-mnist, above what the imports take, over 20 epochs.

The decoded arrays must be in the cache (any earlier run puts them there); the first decoding takes more.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/memory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lightning_fabric  # noqa: F401  (what a run imports counts as imports)
import torch.utils.tensorboard  # noqa: F401

from twostep.launch import start
from twostep.request import Request

EPOCHS = 20
LIMIT_MB, FLAT = 250, 0.02


def resident_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def main() -> None:
    imports = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": "fashion-mnist", "logdir_root": folder}
        experiment = start(Request({"model": "vae"}, {"run": run}, is_gae=True))
        trainer = experiment.trainers["model"]
        trainer.use(
            experiment.batches(experiment.splits.train, 128),
            experiment.batches(experiment.splits.valid, 128) if experiment.splits.valid is not None else None,
        )
        resident: list[float] = []
        for _ in range(EPOCHS):
            trainer.run_epoch()
            resident.append(resident_mb())
        experiment.run.close()
    drift = (max(resident[1:]) - min(resident[1:])) / resident[1]
    print(f"imports: {imports:.0f} MB; training: {max(resident) - imports:.0f} MB above (limit {LIMIT_MB} MB)")
    low, high = min(resident[1:]), max(resident[1:])
    print(f"after epochs 2 to {EPOCHS}: {low:.0f} to {high:.0f} MB, {drift:.1%} apart (limit {FLAT:.0%})")


if __name__ == "__main__":
    main()
