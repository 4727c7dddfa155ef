"""Integrals over R^d of densities in few dimensions, by cells that are halved where the integrand bends.

    ∫ f ≈ Σ_cells |cell| Σ_q w_q f(x_q),   error of a cell: twice the gap to the sum over its 2^d halves

with Gauss's nodes x_q and weights w_q in every direction. The first cells hold equally many of some points that show
where f lies, so that narrow peaks are seen. Around their box shells are added, each as wide as to double its sides,
until one holds next to nothing; what the last one holds counts as error. A jump can hide between nodes: the integral
of a density with jumps is off by up to half a per cent, unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

ORDER = 4  # Gauss's nodes in each direction
LEAF = 16  # points that a first cell holds at most
SAFETY = 2  # a gap is small by chance where nodes straddle a jump
MARGIN = 0.1  # of the points' range, on either side of the first box
SHELLS = 40
CHUNK = 2**16

Integrand = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Integral:
    """An integral, an estimate of its largest error, and how often the integrand was evaluated."""

    value: float
    error: float
    evaluations: int

    def __add__(self, other: Integral) -> Integral:
        return Integral(self.value + other.value, self.error + other.error, self.evaluations + other.evaluations)


def integrate(f: Integrand, points: Tensor, tolerance: float, evaluations: int) -> Integral:
    """Return the integral of a non-negative function over R^d.

    Args:
        f: maps points `(n, d)` in float64 to values `(n,)`.
        points: where f lies, `(N, d)`.
        tolerance: cells are halved until their errors sum up to less than that.
        evaluations: of f, beyond which no cell is halved; the error says what is missing.
    """
    points = points.double()
    low, high = points.amin(0), points.amax(0)
    margin = MARGIN * (high - low) + (high == low)
    low, high = low - margin, high + margin
    found = _cells(f, *_leaves(points, low, high), tolerance, evaluations)
    for _ in range(SHELLS):
        pad = (high - low) / 2
        shell = _cells(f, *_around(low, high, pad), tolerance / 4, evaluations - found.evaluations)
        low, high, found = low - pad, high + pad, found + shell
        if shell.value <= tolerance / 4 or found.evaluations >= evaluations:
            return found + Integral(0, shell.value, 0)
    return found + Integral(0, float("inf"), 0)


def _cells(f: Integrand, low: Tensor, high: Tensor, tolerance: float, evaluations: int) -> Integral:
    """Integrate over cells `(m, d)`; in each round those of the smallest errors are settled, the others halved."""
    each, halves = ORDER ** low.shape[1], 2 ** low.shape[1]
    values, total, error, used = _sums(f, low, high), 0.0, 0.0, len(low) * each
    while len(low):
        inner_low, inner_high = _halves(low, high)
        inner = _sums(f, inner_low.flatten(0, 1), inner_high.flatten(0, 1)).view(inner_low.shape[:2])
        used += inner.numel() * each
        errors, order = (SAFETY * (inner.sum(1) - values).abs()).sort()
        small = int((errors.cumsum(0) <= (tolerance - error) / 2).sum())
        too_many = len(low) - max(0, evaluations - used) // (halves**2 * each)
        settled, rest = order.tensor_split([max(small, too_many)])
        total += float(inner[settled].sum())
        error += float(errors[: len(settled)].sum())
        low, high, values = inner_low[rest].flatten(0, 1), inner_high[rest].flatten(0, 1), inner[rest].flatten()
    return Integral(total, error, used)


def _sums(f: Integrand, low: Tensor, high: Tensor) -> Tensor:
    """Return the integral over each cell by Gauss's rule, `(m,)`."""
    dim = low.shape[1]
    nodes, weights = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(ORDER))
    grid = torch.cartesian_prod(*[nodes + 0.5] * dim).view(-1, dim)
    weight = torch.cartesian_prod(*[weights] * dim).view(-1, dim).prod(1)
    sides = high - low
    cells = max(1, CHUNK // len(grid))
    values = [
        f((start[:, None] + side[:, None] * grid).flatten(0, 1)).view(len(start), -1)
        for start, side in zip(low.split(cells), sides.split(cells), strict=True)
    ]
    return torch.cat(values) @ weight * sides.prod(1)


def _halves(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 2^d parts of each cell `(m, d)`, as lower and upper corners `(m, 2^d, d)`."""
    corner = torch.tensor(list(product((0.0, 0.5), repeat=low.shape[1])), dtype=low.dtype)
    inner = low[:, None] + (high - low)[:, None] * corner
    return inner, inner + (high - low)[:, None] / 2


def _leaves(points: Tensor, low: Tensor, high: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """Cut a box at medians of its points, axis by axis, until no part holds more than `LEAF` of them."""
    if len(points) <= LEAF:
        return low[None], high[None]
    points = points[points[:, axis].argsort()]
    half = len(points) // 2
    upper, lower = high.clone(), low.clone()
    upper[axis] = lower[axis] = points[half - 1 : half + 1, axis].mean()
    following = (axis + 1) % len(low)
    parts = _leaves(points[:half], low, upper, following), _leaves(points[half:], lower, high, following)
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _around(low: Tensor, high: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 3^d - 1 boxes that make up the shell of thickness `pad` around a box."""
    edges = torch.stack([low - pad, low, high, high + pad])
    places = [place for place in product((0, 1, 2), repeat=len(low)) if any(part != 1 for part in place)]
    start = torch.tensor(places)
    return edges.gather(0, start), edges.gather(0, start + 1)
