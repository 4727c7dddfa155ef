"""Intrinsic dimension where the truth is known: d = 1 to 20, up to 100 coordinates, 1,000 points.

For each dataset: the uncorrected estimates (maximum likelihood with 20 neighbours, TwoNN, local principal components),
the first two corrected for the number of points, the ratio to a full-dimensional distribution, and the recommended
dimension.

    python benchmarks/dimension.py [--n 1000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.consensus import Dimension, dimension_of

DIMENSIONS = range(1, 21)
FLAT = (1, 2, 5, 10, 15, 20)
UNEVEN = (5, 10, 20)
WIDE = 100
NAMED = {
    "torus": {},
    "klein": {},
    "swiss_roll": {},
    "s_curve": {},
    "repeated": {},
    "von-mises-circle": {"noise": 1e-3},
}
NETWORKS = ((2, 10), (5, 20), (10, 50), (20, 100))


def sets(n: int) -> Iterator[tuple[str, int, Tensor]]:
    """Yield datasets: a name, the true dimension, and points `(n, D)`."""

    def drawn(name: str, **keys: object) -> tuple[str, int, Tensor]:
        known = distribution(name, keys)
        return name, known.intrinsic_dim, known.sample(n, torch.Generator().manual_seed(0))

    for name, keys in NAMED.items():
        yield drawn(name, **keys)
    for d, dim in NETWORKS:
        yield drawn("network_manifold", manifold_dim=d, ambient_dim=dim)
    for d in FLAT:
        yield drawn("affine", manifold_dim=d, ambient_dim=WIDE)
    for d in UNEVEN:
        for thinnest in (-1, -2):
            x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
            yield f"Gaussian, stds 1 to {10.0**thinnest:g}", d, x * torch.logspace(0, thinnest, d)
    for d in DIMENSIONS:
        yield drawn("uniform_sphere", manifold_dim=d, ambient_dim=WIDE)
        yield "cube", d, torch.rand(n, d, generator=torch.Generator().manual_seed(0))


def row(name: str, d: int, dim: int, found: Dimension) -> str:
    raw = "".join(f"{vote.estimate.value:7.2f}" for vote in found.votes)
    corrected = "".join(f"{vote.value:7.2f}" for vote in found.votes[:2])
    chosen = f"{found.recommended} ({found.low}-{found.high})"
    return f"{name:17}{d:4}{dim:5}{raw} |{corrected} |{found.reference.ratio:6.2f}{found.reference.rank:5} | {chosen}"


def summary(truths: list[int], results: list[Dimension], low: int, high: int) -> str:
    """Return the mean error in per cent of d, uncorrected and corrected, and how often the truth is found."""
    chosen = [(d, found) for d, found in zip(truths, results, strict=True) if low <= d <= high]
    raw = [statistics.mean(100 * (found.votes[i].estimate.value / d - 1) for d, found in chosen) for i in range(3)]
    corrected = [statistics.mean(100 * (found.votes[i].value / d - 1) for d, found in chosen) for i in range(2)]
    right = statistics.mean(found.recommended == d for d, found in chosen)
    near = statistics.mean(abs(found.recommended - d) <= 1 for d, found in chosen)
    inside = statistics.mean(found.low <= d <= found.high for d, found in chosen)
    figures = "".join(f"{error:+7.1f}" for error in raw) + " |" + "".join(f"{error:+7.1f}" for error in corrected)
    return f"d {low:2}-{high:2}, {len(chosen):2} sets {figures} | {right:7.0%}{near:12.0%}{inside:10.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    n, began = parser.parse_args().n, time.perf_counter()
    print(f"{'set':17}{'d':>4}{'D':>5}{'ML':>7}{'TwoNN':>7}{'PCA':>7} |{'ML c.':>7}{'TwoNNc':>7} | ratio rank | chosen")
    truths: list[int] = []
    results: list[Dimension] = []
    for name, d, x in sets(n):
        truths.append(d)
        results.append(dimension_of(x))
        print(row(name, d, x.shape[1], results[-1]), flush=True)
    print("\nmean error, % of d     ML  TwoNN    PCA |  ML c. TwoNNc |   right  within 1  in range")
    for low, high in ((1, 5), (6, 10), (11, 15), (16, 20)):
        print(summary(truths, results, low, high))
    print(
        "\nKnown bias: maximum likelihood and TwoNN are right within a few per cent up to d = 5 and too low above,"
        "\nbecause few points lie far apart in many dimensions and the density is not constant between them: of 20"
        "\ndimensions about 14 and 16. Correction by distributions of known dimension and as many points restores it"
        "\nwhere all directions have equal stds, and half of it where they are uneven (network_manifold)."
        f"\n{time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
