"""Adaptive quadrature of densities on R^d in few dimensions.

    ∫ f ≈ Σ_cells |cell| Σ_q w_q f(x_q),   error of a cell: twice the difference to the sum over its 2^d halves

with Gauss-Legendre nodes x_q and weights w_q in every direction; cells with large errors are halved. The first cells
contain equal numbers of given points where f is large, so that narrow peaks are found. Shells around their box, each of
which doubles its sides, are added until one contributes almost nothing; the contribution of the last counts as error.
For discontinuous densities the error can be underestimated: it reaches half a per cent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

ORDER = 4  # nodes in each direction
LEAF = 16  # maximal number of points in a first cell
SAFETY = 2  # at a discontinuity, a difference can be small by chance
MARGIN = 0.1  # of the first box on both sides, as a share of the range of the points
SHELLS = 40
CHUNK = 2**16

Integrand = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Integral:
    """An integral with a bound on the error, or the standard error and effective size of importance sampling."""

    value: float
    error: float
    evaluations: int
    effective: float = math.inf


def integrate(f: Integrand, points: Tensor, tolerance: float, evaluations: int) -> Integral:
    """Return the integral over R^d of a non-negative function of points `(n, d)` in float64, with values `(n,)`.

    It should be large at `points`, `(N, d)`. Cells are halved until the sum of their errors is below the tolerance, or
    about so many evaluations are used.
    """
    points = points.double()
    low, high = points.amin(0), points.amax(0)
    margin = MARGIN * (high - low) + (high == low)
    low, high = low - margin, high + margin
    value, error, used = _cells(f, *_leaves(points, low, high), tolerance, evaluations)
    for _ in range(SHELLS):
        pad = (high - low) / 2
        shell, its_error, its_use = _cells(f, *_around(low, high, pad), tolerance / 4, evaluations - used)
        low, high = low - pad, high + pad
        value, error, used = value + shell, error + its_error, used + its_use
        if shell <= tolerance / 4 or used >= evaluations:
            return Integral(value, error + shell, used)
    return Integral(value, math.inf, used)


def _cells(f: Integrand, low: Tensor, high: Tensor, tolerance: float, evaluations: int) -> tuple[float, float, int]:
    """Return value, error and number of evaluations of the integral over cells `(m, d)`."""
    each, halves = ORDER ** low.shape[1], 2 ** low.shape[1]
    corner = torch.tensor(list(product((0.0, 0.5), repeat=low.shape[1])), dtype=low.dtype)
    values, total, error, used = _sums(f, low, high), 0.0, 0.0, len(low) * each
    while len(low):
        sides = (high - low)[:, None]
        inner_low = low[:, None] + sides * corner  # of the halves, (m, 2^d, d)
        inner_high = inner_low + sides / 2
        inner = _sums(f, inner_low.flatten(0, 1), inner_high.flatten(0, 1)).view(inner_low.shape[:2])
        used += inner.numel() * each
        errors, order = (SAFETY * (inner.sum(1) - values).abs()).sort()
        small = int((errors.cumsum(0) <= (tolerance - error) / 2).sum())
        too_many = len(low) - max(0, evaluations - used) // (halves**2 * each)
        final, rest = order.tensor_split([max(small, too_many)])  # the others are halved
        total += float(inner[final].sum())
        error += float(errors[: len(final)].sum())
        low, high, values = inner_low[rest].flatten(0, 1), inner_high[rest].flatten(0, 1), inner[rest].flatten()
    return total, error, used


def _sums(f: Integrand, low: Tensor, high: Tensor) -> Tensor:
    """Return the integral over each cell by the Gauss-Legendre rule, `(m,)`."""
    dim = low.shape[1]
    nodes, weights = (torch.from_numpy(array) / 2 for array in np.polynomial.legendre.leggauss(ORDER))
    grid = torch.cartesian_prod(*[nodes + 0.5] * dim).view(-1, dim)
    weight = torch.cartesian_prod(*[weights] * dim).view(-1, dim).prod(1)
    sides = high - low
    cells = max(1, CHUNK // len(grid))
    values = [
        f((start[:, None] + side[:, None] * grid).flatten(0, 1)).view(len(start), -1)
        for start, side in zip(low.split(cells), sides.split(cells), strict=True)
    ]
    return torch.cat(values) @ weight * sides.prod(1)


def _leaves(points: Tensor, low: Tensor, high: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """Split a box at medians of its points, axis by axis, until no cell contains more than `LEAF` of them."""
    if len(points) <= LEAF:
        return low[None], high[None]
    points = points[points[:, axis].argsort()]
    half = len(points) // 2
    upper, lower = high.clone(), low.clone()
    upper[axis] = lower[axis] = points[half - 1 : half + 1, axis].mean()
    following = (axis + 1) % len(low)
    cells = _leaves(points[:half], low, upper, following), _leaves(points[half:], lower, high, following)
    return torch.cat([cell[0] for cell in cells]), torch.cat([cell[1] for cell in cells])


def _around(low: Tensor, high: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 3^d - 1 boxes of the shell of thickness `pad` around a box."""
    edges = torch.stack([low - pad, low, high, high + pad])
    start = torch.tensor([place for place in product((0, 1, 2), repeat=len(low)) if set(place) != {1}])
    return edges.gather(0, start), edges.gather(0, start + 1)
