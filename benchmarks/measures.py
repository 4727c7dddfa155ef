"""Balls of neighbours and Fréchet distance against the plain algorithms, in turn: ratios of time, and memory.

Plain are the full matrices of distances of the package `prdc`, and the Fréchet distance by the square root of a matrix.
Each is timed in a process of its own, so that its peak of memory is its own; data are normal, from two distributions.

    python benchmarks/measures.py                          small
    python benchmarks/measures.py --rows 10000 --dim 2048  as in the goals: balls 7 s and +0.6 GB, distance 2.3 s
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import scipy.linalg
import torch
from sklearn.metrics import pairwise_distances
from torch import Tensor

from twostep.core.moments import Moments
from twostep.metrics.samples.frechet import distance, frechet
from twostep.metrics.samples.prdc import K, prdc

Measure = Callable[[Tensor, Tensor], float]


def plain_prdc(data: Tensor, samples: Tensor) -> float:
    """Coverage, as by-product of all four figures from full matrices."""
    x, y = data.numpy(), samples.numpy()
    x_radii, y_radii = (np.partition(pairwise_distances(z), K, axis=1)[:, K] for z in (x, y))
    distances = pairwise_distances(x, y)
    in_data = distances <= x_radii[:, None]
    in_samples = distances <= y_radii[None]
    in_data.any(0).mean(), in_samples.any(1).mean(), in_data.sum(0).mean() / K
    return float((distances.min(1) <= x_radii).mean())


def our_prdc(data: Tensor, samples: Tensor) -> float:
    return prdc(data, samples).coverage.value


def plain_frechet(data: Tensor, samples: Tensor) -> float:
    (m1, s1), (m2, s2) = (
        (z.mean(0), np.cov(z, rowvar=False)) for z in (data.double().numpy(), samples.double().numpy())
    )
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(np.square(m1 - m2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real)


def our_frechet(data: Tensor, samples: Tensor) -> float:
    return distance(Moments.of(data), Moments.of(samples))


def our_frechet_with_interval(data: Tensor, samples: Tensor) -> float:
    return frechet(data, samples).value


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(measure: Measure, rows: int, dim: int) -> tuple[float, float, float]:
    """Return the value, the seconds and the MB above data and imports."""
    generator = torch.Generator().manual_seed(0)
    data, samples = (torch.randn(rows, dim, generator=generator) * scale for scale in (1.0, 0.9))
    measure(data[:100, :8], samples[:100, :8])
    before, began = peak_mb(), time.perf_counter()
    value = measure(data, samples)
    return value, time.perf_counter() - began, peak_mb() - before


def compare(name: str, plain: Measure, ours: Measure, rows: int, dim: int, rounds: int) -> None:
    found: dict[Measure, list[tuple[float, float, float]]] = {plain: [], ours: []}
    for _ in range(rounds):
        for measure in (plain, ours):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                found[measure].append(process.submit(timed, measure, rows, dim).result())
    (value, plain_s, plain_mb), (our_value, our_s, our_mb) = (
        tuple(statistics.median(column) for column in zip(*found[measure], strict=True)) for measure in (plain, ours)
    )
    assert math.isclose(value, our_value, rel_tol=1e-6), (value, our_value)
    print(
        f"{name}: plain {plain_s:.2f} s, +{plain_mb:.0f} MB; ours {our_s:.2f} s, +{our_mb:.0f} MB; "
        f"{plain_s / our_s:.1f} times as fast",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(f"{asked.rows:,} x {asked.rows:,} x {asked.dim:,}, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, medians of {asked.rounds}", flush=True)
    sizes = (asked.rows, asked.dim, asked.rounds)
    compare("precision, recall, density, coverage, with intervals", plain_prdc, our_prdc, *sizes)
    compare("Fréchet distance", plain_frechet, our_frechet, *sizes)
    compare("Fréchet distance with its interval", plain_frechet, our_frechet_with_interval, *sizes)


if __name__ == "__main__":
    main()
