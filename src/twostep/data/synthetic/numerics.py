"""Numerical helpers of the synthetic datasets: rejection sampling, Gauss-Legendre quadrature, minimisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 4_000_000  # entries of one block of a distance matrix
GOLDEN = (5**0.5 - 1) / 2


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers on [0, 1), float64."""
    return torch.rand(*shape, generator=generator, dtype=torch.double)


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers, float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.double)


def choice(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `n` uniform integers below `count`."""
    return torch.randint(count, (n,), generator=generator)


def log_normal(y: Tensor, std: float) -> Tensor:
    """Return the log-density of `N(0, std² I)` over the last dimension."""
    return -y.square().sum(-1) / (2 * std**2) - y.shape[-1] * math.log(std * math.sqrt(2 * math.pi))


def rejection(n: int, propose: Callable[[int], Tensor]) -> Tensor:
    """Return `n` accepted rows; `propose(k)` draws k candidates and returns the accepted ones."""
    accepted: list[Tensor] = []
    missing = n
    while missing > 0:
        accepted.append(propose(2 * missing + 16))
        missing -= len(accepted[-1])
    return torch.cat(accepted)[:n]


def gauss_legendre(low: Tensor | float, high: Tensor | float, order: int = 200) -> tuple[Tensor, Tensor]:
    """Return nodes and log-weights `(*, order)` for integrals from `low` to `high`, both `(*,)`."""
    nodes, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(order))
    low, high = (torch.as_tensor(end, dtype=torch.double).unsqueeze(-1) for end in (low, high))
    half = (high - low) / 2
    return (low + high) / 2 + half * nodes, half.log() + weights.log()


def minimise(cost: Callable[[Tensor, slice], Tensor], n: int, low: float, high: float, cells: int) -> Tensor:
    """Return for each of `n` rows the parameter in `[low, high]` of least cost, `(n,)`.

    `cost` maps parameters `(r, k)` and the slice of their r rows to costs `(r, k)`. Grid search, refined by
    golden-section search; there are so many `cells` that the cost has one minimum in two adjacent ones.
    """
    grid = torch.linspace(low, high, cells + 1, dtype=torch.double)
    step = (high - low) / cells
    found: list[Tensor] = []
    for start in range(0, n, rows := max(1, CHUNK // (cells + 1))):
        block = slice(start, min(start + rows, n))
        best = grid[cost(grid.expand(block.stop - start, -1), block).argmin(1)]
        left, right = (best - step).clamp(min=low), (best + step).clamp(max=high)
        for _ in range(45):
            inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
            costs = cost(torch.stack([inner, outer], 1), block)
            smaller = costs[:, 0] < costs[:, 1]
            left, right = torch.where(smaller, left, inner), torch.where(smaller, outer, right)
        found.append((left + right) / 2)
    return torch.cat(found) if found else grid[:0]
