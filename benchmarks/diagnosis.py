"""Verdicts of `twostep diagnose` where the truth is known: named datasets, then random ones, half of them manifolds.

A dataset that a quick diagnosis leaves undecided is diagnosed thoroughly too. Thresholds were chosen on the named
datasets and on random ones of other seeds than the default one.

    python benchmarks/diagnosis.py [--seed 0] [--sets 100] [--only-random] [--images]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.data.load import training_rows
from twostep.data.synthetic import distribution
from twostep.diagnosis import Diagnosis, diagnose

N = 1500
SPHERES = (2, 3, 4, 5)
FULL = (2, 5, 10, 20)


@dataclass(frozen=True)
class Case:
    """Points `(n, D)` with their true verdict and dimension."""

    name: str
    truth: str
    dimension: int
    x: Tensor


def gaussian(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def full(kind: str, n: int, dim: int, seed: int) -> Case:
    """Return samples of a full-dimensional distribution."""
    x = gaussian(n, dim, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if kind == "mixture":
        count = int(torch.randint(2, 7, (1,), generator=generator))
        x = x + 3 * gaussian(count, dim, seed + 2)[torch.randint(count, (n,), generator=generator)]
    elif kind == "cube":
        x = torch.rand(n, dim, generator=generator, dtype=torch.double)
    elif kind == "Student-t":
        x = x / (gaussian(n, 3, seed + 2).square().sum(1, keepdim=True) / 3).sqrt()
    elif kind == "ill-conditioned":
        x = x * torch.logspace(0, -2, dim, dtype=torch.double)
    if kind != "cube":
        x = x @ torch.linalg.qr(gaussian(dim, dim, seed + 3)).Q
    return Case(f"{kind} in R^{dim}", "no", dim, x)


def manifold(name: str, n: int, seed: int, **keys: object) -> Case:
    """Return samples of a distribution on a manifold."""
    known = distribution(name, {**keys, "seed": seed})
    text = ", ".join(f"{key}={value:.2g}" for key, value in keys.items() if isinstance(value, int | float))
    return Case(f"{name} {text}", "yes", known.intrinsic_dim, known.sample(n, torch.Generator().manual_seed(seed)))


def named() -> Iterator[Case]:
    for name in ("von-mises-circle", "sphere", "torus", "klein", "swiss_roll", "affine", "repeated"):
        yield manifold(name, N, 0)
    for d in SPHERES:
        yield manifold("uniform_sphere", N, 0, manifold_dim=d)
    yield manifold("network_manifold", N, 0, manifold_dim=5, ambient_dim=20)
    for dim in FULL:
        for kind in ("Gaussian", "mixture", "cube", "Student-t", "ill-conditioned"):
            yield full(kind, N, dim, 0)


def thick() -> Iterator[Case]:
    """Yield thick manifolds, which are yes above their thickness and no below."""
    for name, keys in (("von-mises-circle", {}), ("uniform_sphere", {})):
        case = manifold(name, 3000, 0, noise=0.1, **keys)
        yield Case(case.name, "no", case.x.shape[1], case.x)


def drawn(seed: int, count: int) -> Iterator[Case]:
    """Yield random datasets: full-dimensional ones and manifolds alternately."""
    choose = random.Random(seed)
    for index in range(count):
        n, own = choose.choice((1000, 1500, 2000, 3000)), choose.randrange(2**31)
        if index % 2 == 0:
            kind = choose.choice(("Gaussian", "mixture", "cube", "Student-t", "ill-conditioned"))
            yield full(kind, n, choose.randint(2, 20), own)
            continue
        noise = choose.choice((0.0, 1e-4, 1e-3))
        name = choose.choice(
            (
                "von-mises-circle",
                "uniform_sphere",
                "torus",
                "klein",
                "swiss_roll",
                "s_curve",
                "affine",
                "network_manifold",
            )
        )
        d, room = choose.randint(1, 6), choose.choice((1, 2, 5, 15))
        keys: dict[str, object] = {"noise": noise}
        if name == "affine":
            keys |= {"manifold_dim": d, "ambient_dim": d + room}
        elif name == "network_manifold":
            keys |= {"manifold_dim": d, "ambient_dim": max(4, 2 * d + room)}
        elif name == "uniform_sphere":
            d = choose.randint(2, 8)
            keys |= {"manifold_dim": d, "ambient_dim": d + room}
        else:
            keys |= {"ambient_dim": distribution(name, {}).native_dim + room - 1}
        yield manifold(name, n, own, **keys)


def line(case: Case, found: Diagnosis, level: str, seconds: float) -> str:
    low, high = found.interval
    dimension = f"{found.dimension.recommended} ({low:.2f}-{high:.2f})"
    right = "" if found.overfitting.verdict == case.truth else "  <-- " + case.truth
    size = f"{case.x.shape[0]} x {case.x.shape[1]}"
    text = f"{case.name:52}{size:>10} d={case.dimension:<3}{dimension:20}{level:9}{seconds:5.1f} s  "
    return f"{text}{found.overfitting.line()}{right}"


def diagnosed(cases: Iterator[Case]) -> dict[str, Counter[tuple[str, str]]]:
    """Return how often each (truth, verdict) was found, at each level."""
    counts: dict[str, Counter[tuple[str, str]]] = {"quick": Counter(), "thorough": Counter()}
    for case in cases:
        began = time.perf_counter()
        found = diagnose(case.x)
        print(line(case, found, "quick", time.perf_counter() - began), flush=True)
        counts["quick"][case.truth, found.overfitting.verdict] += 1
        if found.overfitting.verdict == "undecided":
            began = time.perf_counter()
            found = diagnose(case.x, thorough=True)
            print(line(case, found, "thorough", time.perf_counter() - began), flush=True)
        counts["thorough"][case.truth, found.overfitting.verdict] += 1
    return counts


def summary(counts: dict[str, Counter[tuple[str, str]]]) -> None:
    for level, found in counts.items():
        undecided = found["yes", "undecided"] + found["no", "undecided"]
        print(
            f"{level:9} of {found.total()} sets: false yes {found['no', 'yes']}, false no {found['yes', 'no']}, "
            f"undecided {undecided}"
        )


def slopes() -> None:
    """Print d(s) - D on the circle at the smallest resolved scale, for five seeds; truth: -1."""
    found = [diagnose(manifold("von-mises-circle", 3000, seed).x, seed=seed).noise_scales for seed in range(5)]
    print("slope on the circle:", ", ".join(f"{curve.resolved[0].value - curve.dim:.3f}" for curve in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--only-random", action="store_true")
    parser.add_argument("--images", action="store_true", help="digits and fashion-mnist too")
    chosen, began = parser.parse_args(), time.perf_counter()
    if not chosen.only_random:
        summary(diagnosed(named()))
        diagnosed(thick())
        slopes()
    if chosen.images:
        diagnosed(Case(name, "yes", 0, training_rows(name, {})) for name in ("digits", "fashion-mnist"))
    summary(diagnosed(drawn(chosen.seed, chosen.sets)))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
