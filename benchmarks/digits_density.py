"""Bits per dimension on the test fifth of the bundled digits: our flow against Gaussian mixtures of scikit-learn.

All densities see dequantised integers (uniform noise on [0, 1) added), so the figures bound the bits of the integers'
probability. Mixtures are fitted to training and validation rows together; ours early-stops on the
validation rows. The first flow is `./single_main.py --dataset digits --model flow` with nothing else; the
second sees vectors.

    python benchmarks/digits_density.py
"""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any

import torch
from sklearn.mixture import GaussianMixture

from twostep.data.load import load_data
from twostep.experiment.prepare import start
from twostep.models.flow import PLAIN
from twostep.runs.overrides import Request


def mixture_bits(components: int, kind: str) -> float:
    splits = load_data("digits", make_valid=False)
    generator = torch.Generator().manual_seed(0)
    train, test = (
        (data.double() + torch.rand(data.shape, dtype=torch.float64, generator=generator)).flatten(1).numpy() / 17
        for data in (splits.train, splits.test)
    )
    mixture = GaussianMixture(components, covariance_type=kind, reg_covar=1e-4, random_state=0).fit(train)
    return (-mixture.score(test) / splits.spec.dim + math.log(17)) / math.log(2)


def main() -> None:
    for components, kind in ((1, "full"), (10, "full"), (50, "diag")):
        print(f"Gaussian mixture, {components} {kind}: {mixture_bits(components, kind):.3f} bits/dim", flush=True)
    for keys in ({}, {**PLAIN, "use_lr_scheduler": False}):
        measure_flow(keys)


def measure_flow(keys: dict[str, Any]) -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": "digits", "logdir_root": folder}
        experiment = start(Request({"model": "flow"}, {"run": run, "model": keys}))
        experiment.fit()
        bits = experiment.test()["model"]["bits_per_dim"]
        experiment.run.close()
    seconds = time.perf_counter() - began
    epochs = experiment.trainer.epochs_done
    print(f"flow, {keys or 'defaults'}: {bits.value:.3f} ± {bits.standard_error:.3f} bits/dim", end=" ")
    print(f"({epochs} epochs, {seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
