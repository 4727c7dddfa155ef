"""Exact nearest neighbours, and counts of points in balls, by distances in blocks: memory does not grow with n².

    d²(x, y) = ‖x‖² + ‖y‖² - 2 x·y

is a matrix product, fast in float32, but its rounding error is relative to the norms and not to d². That error is
bounded: a sum of D products in any order is off by at most `D u (‖x‖² + ‖y‖²) / 2`, u the unit roundoff, so

    lower(x, y) = (1 - c)(‖x‖² + ‖y‖²) - 2 x·y,   c = u (D + 16)

is never above d² and lower + 2c(‖x‖² + ‖y‖²) never below (16 covers the few other roundings; points are centred, so
that norms are small). What these bounds can't decide is recomputed from the differences in float64, so results are
those of the differences: equal distances compare as equal. The bound is that of full float32 products, torch's
default; it does not hold where `torch.set_float32_matmul_precision` allows less.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1024
SPARE = 3  # candidates beside the k nearest
PAIR_ENTRIES = 2**18


class Counts(NamedTuple):
    """Number of points in each ball, `(balls,)`, and of balls around each point, `(points,)`."""

    of_balls: Tensor
    of_points: Tensor


def radii(x: Tensor, k: int) -> Tensor:
    """Return the squared distance, float64 `(n,)`, of each row `(n, D)` to its k-th nearest other row, n > k."""
    return k_nearest(x, k)[0][:, -1].contiguous()


def k_nearest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the squared distances of each row to its k nearest other rows, ascending, and the indices of these.

    Equal rows are other rows; of equally far ones any may be the last. Each pair of blocks is multiplied once.

    Shapes: `x: (n, D)` with n > k, results `(n, k)` in float64 and int64.
    """
    pairs = _Pairs(x, x)
    found = _Nearest(len(x), k + SPARE, x.device)
    for i in range(0, len(x), BLOCK):
        left = pairs.left[i : i + BLOCK]
        for j in range(i, len(x), BLOCK):
            lower = pairs.lower(left, pairs.right[j : j + BLOCK])
            if i == j:
                lower.fill_diagonal_(torch.inf)
            else:
                found.update(j, lower.T.contiguous(), i)
            found.update(i, lower, j)
    return _settle(pairs, found, k, apart=True)


def nearest(x: Tensor, points: Tensor) -> Tensor:
    """Return the squared distance, float64 `(n,)`, of each row `(n, D)` to the nearest of the points `(m, D)`."""
    pairs = _Pairs(x, points)
    found = _Nearest(len(x), 1 + SPARE, x.device)
    for i in range(0, len(x), BLOCK):
        left = pairs.left[i : i + BLOCK]
        for j in range(0, len(points), BLOCK):
            found.update(i, pairs.lower(left, pairs.right[j : j + BLOCK]), j)
    return _settle(pairs, found, 1, apart=False)[0][:, 0].contiguous()


def count_within(x: Tensor, x_radii: Tensor, y: Tensor, y_radii: Tensor) -> tuple[Counts, Counts]:
    """Count rows of y in closed balls around rows of x, and rows of x in closed balls around rows of y.

    Shapes: `x: (n, D)`, `y: (m, D)`, squared radii `(n,)` and `(m,)`.
    """
    pairs = _Pairs(x, y)
    per_x = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
    per_y = torch.zeros(2, len(y), dtype=torch.int64, device=x.device)
    for i in range(0, len(x), BLOCK):
        left = pairs.left[i : i + BLOCK]
        for j in range(0, len(y), BLOCK):
            right = pairs.right[j : j + BLOCK]
            limits = x_radii[i : i + BLOCK, None], y_radii[None, j : j + BLOCK]
            for which, inside in enumerate(pairs.within(left, right, pairs.lower(left, right), *limits)):
                per_x[which, i : i + BLOCK] += inside.sum(1)
                per_y[which, j : j + BLOCK] += inside.sum(0)
    return Counts(per_x[0], per_y[0]), Counts(per_y[1], per_x[1])


@dataclass(frozen=True)
class _Points:
    """Points in float32, centred, with their squared norms and their indices in the set that they are from."""

    rows: Tensor
    norms: Tensor
    index: Tensor

    @classmethod
    def of(cls, points: Tensor, centre: Tensor) -> _Points:
        rows = torch.empty(points.shape, dtype=torch.float32, device=points.device)
        norms = torch.empty(len(points), dtype=torch.float32, device=points.device)
        for start in range(0, len(points), BLOCK):
            block = slice(start, start + BLOCK)
            rows[block] = points[block].double() - centre
            norms[block] = rows[block].double().square_().sum(1)
        return cls(rows, norms, torch.arange(len(rows), device=rows.device))

    def __getitem__(self, rows: slice | Tensor) -> _Points:
        return _Points(self.rows[rows], self.norms[rows], self.index[rows])


class _Pairs:
    """Two sets of points, and bounds of the distances between them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        centre = torch.stack([block.double().sum(0) for block in x.split(BLOCK)]).sum(0) / len(x)
        self.x, self.y = x, y
        self.left = _Points.of(x, centre)
        self.right = self.left if y is x else _Points.of(y, centre)
        self.slack = torch.finfo(torch.float32).eps / 2 * (x.shape[1] + 16)

    def lower(self, left: _Points, right: _Points) -> Tensor:
        shrunk = right.norms * (1 - self.slack)
        products = torch.addmm(shrunk[None], left.rows, right.rows.T, alpha=-2)
        return products.add_(left.norms[:, None] * (1 - self.slack))

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the squared distances of rows `(p,)` to the columns given for each, `(p, c)` in float64."""
        step = max(1, PAIR_ENTRIES // (columns.shape[1] * self.x.shape[1]))
        pairs = zip(rows.split(step), columns.split(step), strict=True)
        return torch.cat([self.y[to].double().sub_(self.x[of, None]).square_().sum(2) for of, to in pairs])

    def within(self, left: _Points, right: _Points, lower: Tensor, *limits: Tensor) -> list[Tensor]:
        """Return for each limit where in the block the squared distance is at most that."""
        upper = lower + 2 * self.slack * (left.norms[:, None] + right.norms)
        inside = [upper <= limit for limit in limits]
        unsure = [(lower <= limit) & ~sure for limit, sure in zip(limits, inside, strict=True)]
        rows, columns = functools.reduce(torch.logical_or, unsure).nonzero(as_tuple=True)
        exact = self.exact(left.index[rows], right.index[columns, None])[:, 0]
        for limit, sure in zip(limits, inside, strict=True):
            sure[rows, columns] = exact <= limit.expand_as(lower)[rows, columns]
        return inside


class _Nearest:
    """For each row the columns of the least lower bounds seen so far, in ascending order; `(n, size)`."""

    def __init__(self, n: int, size: int, device: torch.device) -> None:
        self.bounds = torch.full((n, size), torch.inf, device=device)
        self.columns = torch.zeros(n, size, dtype=torch.int64, device=device)

    def update(self, row: int, lower: Tensor, column: int) -> None:
        """Add a block whose first entry lies at (row, column)."""
        size, rows = self.bounds.shape[1], slice(row, row + len(lower))
        bounds, columns = lower.topk(min(size, lower.shape[1]), largest=False)
        bounds = torch.cat([self.bounds[rows], bounds], 1)
        columns = torch.cat([self.columns[rows], columns + column], 1)
        self.bounds[rows], kept = bounds.topk(size, largest=False)
        self.columns[rows] = columns.gather(1, kept)


def _settle(pairs: _Pairs, nearest: _Nearest, k: int, apart: bool) -> tuple[Tensor, Tensor]:
    """Return the k least squared distances and their columns, `(n, k)`; `apart` excludes a row's pair with itself."""
    rows = torch.arange(len(nearest.bounds), device=nearest.bounds.device)
    exact = pairs.exact(rows, nearest.columns)
    ordered = torch.where(nearest.bounds.isinf(), torch.inf, exact).sort(1)
    found, columns = ordered.values[:, :k], nearest.columns.gather(1, ordered.indices[:, :k])
    reach = found[:, -1]
    doubtful = (nearest.bounds[:, -1] < reach) & (reach > 0)  # a column that is not among the candidates may be nearer
    for block in doubtful.nonzero()[:, 0].split(BLOCK):
        found[block], columns[block] = _search(pairs, block, reach[block], k, apart)
    return found, columns


def _search(pairs: _Pairs, block: Tensor, reach: Tensor, k: int, apart: bool) -> tuple[Tensor, Tensor]:
    """Return the k least of all distances within reach, of which each given row has k or more, and their columns."""
    left = pairs.left[block]
    hits: list[tuple[Tensor, Tensor, Tensor]] = []
    for j in range(0, len(pairs.y), BLOCK):
        right = pairs.right[j : j + BLOCK]
        lower = pairs.lower(left, right)
        if apart:
            lower.masked_fill_(left.index[:, None] == right.index, torch.inf)
        (inside,) = pairs.within(left, right, lower, reach[:, None])
        row, column = inside.nonzero(as_tuple=True)
        column = right.index[column]
        hits.append((row, column, pairs.exact(block[row], column[:, None])[:, 0]))
    row, column, distance = (torch.cat(tensors) for tensors in zip(*hits, strict=True))
    order = distance.argsort()
    order = order[row[order].argsort(stable=True)]
    first = torch.searchsorted(row[order], torch.arange(len(block), device=row.device))
    chosen = order[first[:, None] + torch.arange(k, device=row.device)]
    return distance[chosen], column[chosen]
