"""Verdicts of `twostep diagnose` on misleading datasets: graphs that lack one or two dimensions, skewed full ones.

A graph is x = (u, f(u)) rotated at random, u of 3 to 14 dimensions and f of one or two: sines, products, |.|, cubes or
a random network. Full-dimensional ones are ball, shell, exponential, log-normal, banana, funnel, independent Student-t,
a copula, Gaussians of unequal shape, and spikes. The table counts verdicts, by the number of coordinates.

    python benchmarks/hard_diagnosis.py [--seed 0] [--sets 60] [--thorough]
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diagnosis import gaussian
from twostep.diagnosis import diagnose

ROWS = (1000, 1500, 2000, 3000)
FEW = 6


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def student(n: int, dim: int, seed: int) -> Tensor:
    return gaussian(n, dim, seed) / (gaussian(n, 5, seed + 1).square().sum(1, keepdim=True) / 5).sqrt()


def clusters(n: int, dim: int, seed: int) -> Tensor:
    kinds = (4 * uniform(n, seed=seed + 1)).long()
    return gaussian(n, dim, seed) + 3 * gaussian(4, dim, seed + 2)[kinds]


BASES: dict[str, Callable[[int, int, int], Tensor]] = {
    "Gaussian": gaussian,
    "cube": lambda n, dim, seed: uniform(n, dim, seed=seed),
    "Student-t": student,
    "mixture": clusters,
    "Laplace": lambda n, dim, seed: gaussian(n, dim, seed) * (-2 * uniform(n, dim, seed=seed + 1).log()).sqrt(),
}
FORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sines": lambda h, seed: h.sin(),
    "products": lambda h, seed: h * h.roll(1, 1),
    "|.|": lambda h, seed: h.abs(),
    "cubes": lambda h, seed: h**3 / 3,
    "network": lambda h, seed: torch.tanh(h @ gaussian(h.shape[1], 16, seed)) @ gaussian(16, h.shape[1], seed + 1),
}


def graph(choose: random.Random) -> tuple[str, Tensor]:
    d, over, n = choose.randint(3, 14), choose.choice((1, 1, 2)), choose.choice(ROWS)
    base, form, seed = choose.choice(list(BASES)), choose.choice(list(FORMS)), choose.randrange(2**30)
    u = BASES[base](n, d, seed)
    u = (u - u.mean(0)) / u.std(0)
    h = u @ gaussian(d, 4 * over, seed + 10) * choose.choice((0.7, 1.5, 3.0)) / d**0.5
    f = FORMS[form](h, seed + 20).unflatten(1, (over, 4)).sum(2)
    noise = choose.choice((0.0, 1e-3)) * gaussian(n, d + over, seed + 40)
    return f"{form} over a {base}, {d} in R^{d + over}", turned(torch.cat([u, f / f.std(0)], 1), seed + 30) + noise


def turned(x: Tensor, seed: int) -> Tensor:
    return x @ torch.linalg.qr(gaussian(x.shape[1], x.shape[1], seed)).Q


def unequal(n: int, dim: int, seed: int) -> Tensor:
    kinds = (3 * uniform(n, seed=seed + 1)).long()
    shapes = gaussian(3 * dim, dim, seed + 2).view(3, dim, dim) / dim**0.5
    return torch.einsum("nij,nj->ni", shapes[kinds], gaussian(n, dim, seed)) + 2 * gaussian(3, dim, seed + 3)[kinds]


def banana(n: int, dim: int, seed: int) -> Tensor:
    z = gaussian(n, dim, seed)
    return torch.cat([z[:, :1] + z[:, 1:2].square() / 2, z[:, 1:]], 1)


def shell(n: int, dim: int, seed: int, inner: float = 0.5) -> Tensor:
    radii = (inner**dim + (1 - inner**dim) * uniform(n, 1, seed=seed + 1)) ** (1 / dim)
    return normalize(gaussian(n, dim, seed), dim=1) * radii


def funnel(n: int, dim: int, seed: int) -> Tensor:
    z = gaussian(n, dim, seed)
    return torch.cat([z[:, :1], z[:, 1:] * (z[:, :1] / 2).exp()], 1)


def copula(n: int, dim: int, seed: int) -> Tensor:
    z = gaussian(n, dim, seed)
    return torch.special.ndtr(turned(z, seed + 1) + 0.7 * z[:, :1])


def spikes(n: int, dim: int, seed: int) -> Tensor:
    wide = uniform(n, dim, seed=seed + 1) < 0.3
    return gaussian(n, dim, seed) * wide + 0.1 * gaussian(n, dim, seed + 2)


FULL: dict[str, Callable[[int, int, int], Tensor]] = {
    "ball": lambda n, dim, seed: shell(n, dim, seed, 0.0),
    "shell": shell,
    "exponential": lambda n, dim, seed: -uniform(n, dim, seed=seed).log(),
    "log-normal": lambda n, dim, seed: gaussian(n, dim, seed).exp(),
    "banana": banana,
    "funnel": funnel,
    "independent Student-t": lambda n, dim, seed: torch.stack(
        [student(n, 1, seed + 7 * i)[:, 0] for i in range(dim)], 1
    ),
    "copula": copula,
    "unequal Gaussians": unequal,
    "spikes": spikes,
}


def full(choose: random.Random) -> tuple[str, Tensor]:
    dim, n, name, seed = choose.randint(2, 16), choose.choice(ROWS), choose.choice(list(FULL)), choose.randrange(2**30)
    return f"{name} in R^{dim}", turned(FULL[name](n, dim, seed), seed + 50)


def drawn(seed: int, count: int) -> Iterator[tuple[str, str, Tensor]]:
    choose = random.Random(seed)
    for _ in range(count):
        yield "manifold", *graph(choose)
        yield "full", *full(choose)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", type=int, default=60, help="of each kind")
    parser.add_argument("--thorough", action="store_true")
    chosen = parser.parse_args()
    counts: Counter[tuple[str, str, str]] = Counter()
    for truth, name, x in drawn(chosen.seed, chosen.sets):
        found = diagnose(x, thorough=chosen.thorough).overfitting
        counts[truth, "few" if x.shape[1] <= FEW else "many", found.verdict] += 1
        print(f"{truth:9}{name:45}{x.shape[0]:>5} rows  {found.verdict:10}{found.evidence}", flush=True)
    print(f"\n{'':28}{'yes':>10}{'no':>10}{'undecided':>12}")
    for truth in ("manifold", "full"):
        for size, text in (("few", f"D <= {FEW}"), ("many", f"D > {FEW}")):
            row = [counts[truth, size, verdict] for verdict in ("yes", "no", "undecided")]
            print(f"{truth:16}{text:12}{row[0]:>10}{row[1]:>10}{row[2]:>12}")


if __name__ == "__main__":
    main()
