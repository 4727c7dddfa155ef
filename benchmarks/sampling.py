"""Seconds to draw 10,000 points of 20 coordinates from each density with its default size, all at once.

What a metric of samples pays first. The limits are 1.5 times what the reference takes on a machine of two cores.

    python benchmarks/sampling.py
"""

from __future__ import annotations

import statistics
import time

import torch

from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, evaluating
from twostep.models.two_step import latent_spec

COUNT, DIM = 10_000, 20
LIMITS = {"flow": 0.30, "ebm": 0.50, "arm": 1.32}


def seconds(name: str, rounds: int = 5) -> float:
    spec = latent_spec(DataSpec(name="data", shape=(784,), size=COUNT, low=0, high=1), DIM)
    model = MODELS[name].for_data(spec, "de").build(spec)
    assert isinstance(model, DensityEstimator)
    model.fit_transform([torch.randn(1000, DIM)])
    taken: list[float] = []
    with evaluating(model):
        for _ in range(rounds + 1):
            began = time.perf_counter()
            model.sample(COUNT)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in sorted(MODELS):
        if "de" in MODELS[name].roles:
            limit = f", limit {LIMITS[name]:.2f} s" if name in LIMITS else ""
            print(f"{name}: {seconds(name):.2f} s{limit}", flush=True)


if __name__ == "__main__":
    main()
