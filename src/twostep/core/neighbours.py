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

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**22  # entries of a block of distances
ROWS = 1024
SPARE = 3  # candidates beside the k nearest
PAIR_ENTRIES = 2**18


class Counts(NamedTuple):
    """Number of points in each ball, `(balls,)`, and of balls around each point, `(points,)`."""

    of_balls: Tensor
    of_points: Tensor


def radii(x: Tensor, k: int) -> Tensor:
    """Return the squared distance, float64 `(n,)`, of each row `(n, D)` to its k-th nearest other row, n > k."""
    return k_nearest(x, k)[0][:, -1].contiguous()


def k_nearest(x: Tensor, k: int, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the squared distances of each row to its k nearest points, ascending, and the indices of these.

    Without `points`, to the k nearest other rows: equal rows are other rows. Of equally far ones any may be the last.

    Shapes: `x: (n, D)` with n > k, or `points: (m, D)` with m >= k; results `(n, k)` in float64 and int64.
    """
    return _nearest(x, x if points is None else points, k)


def nearest(x: Tensor, points: Tensor) -> Tensor:
    """Return the squared distance, float64 `(n,)`, of each row `(n, D)` to the nearest of the points `(m, D)`."""
    return _nearest(x, points, 1)[0][:, 0].contiguous()


def count_within(x: Tensor, x_radii: Tensor, y: Tensor, y_radii: Tensor) -> tuple[Counts, Counts]:
    """Count rows of y in closed balls around rows of x, and rows of x in closed balls around rows of y.

    Shapes: `x: (n, D)`, `y: (m, D)`, squared radii `(n,)` and `(m,)`.
    """
    pairs = _Pairs(x, y)
    per_x = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
    per_y = torch.zeros(2, len(y), dtype=torch.int64, device=x.device)
    for rows in pairs.blocks():
        lower, error = pairs.bounds(rows)
        for which, limits in enumerate((x_radii[rows, None], y_radii[None])):
            inside = lower + error <= limits
            row, column = ((lower <= limits) & ~inside).nonzero(as_tuple=True)
            inside[row, column] = pairs.exact(rows[row], column[:, None])[:, 0] <= limits.expand_as(lower)[row, column]
            per_x[which, rows] = inside.sum(1)
            per_y[which] += inside.sum(0)
    return Counts(per_x[0], per_y[0]), Counts(per_y[1], per_x[1])


def _nearest(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k least squared distances of each row of x and their rows of y; if y is x, of other rows."""
    pairs = _Pairs(x, y)
    found: list[tuple[Tensor, Tensor]] = []
    for rows in pairs.blocks():
        lower = pairs.bounds(rows)[0]
        if y is x:
            lower.scatter_(1, rows[:, None], torch.inf)
        least, columns, doubtful = _least(pairs, rows, lower, k, k + SPARE)
        if bool(doubtful.any()):
            enough = int((lower[doubtful] <= least[doubtful, -1:]).sum(1).max())
            least[doubtful], columns[doubtful], _ = _least(pairs, rows[doubtful], lower[doubtful], k, enough)
        found.append((least, columns))
    return torch.cat([least for least, _ in found]), torch.cat([columns for _, columns in found])


def _least(pairs: _Pairs, rows: Tensor, lower: Tensor, k: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k least squared distances to columns of the least bounds, these, and where others may be nearer."""
    bounds, columns = lower.topk(min(size, lower.shape[1]), largest=False)
    least, order = torch.where(bounds.isinf(), torch.inf, pairs.exact(rows, columns)).sort(1)
    reach = least[:, k - 1]
    return least[:, :k], columns.gather(1, order[:, :k]), (bounds[:, -1] < reach) & (reach > 0)


class _Pairs:
    """Two sets of points, and the squared distances between them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        centre = x.mean(0, dtype=torch.double)
        self.points = x, y
        self.rows = [torch.cat([(block.double() - centre).float() for block in z.split(ROWS)]) for z in (x, y)]
        self.norms = [torch.cat([block.double().square().sum(1).float() for block in z.split(ROWS)]) for z in self.rows]
        self.slack = torch.finfo(torch.float32).eps / 2 * (x.shape[1] + 16)

    def blocks(self) -> tuple[Tensor, ...]:
        """Return the numbers of the rows of x, as many at a time as make a block of distances."""
        x, y = self.points
        return torch.arange(len(x), device=x.device).split(max(1, BLOCK // len(y)))

    def bounds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower bounds of rows `(p,)` to all columns, and what makes them upper bounds, both `(p, m)`."""
        norms = self.norms[0][rows, None] + self.norms[1]
        products = self.rows[0][rows] @ self.rows[1].T
        return (norms * (1 - self.slack)).sub_(products, alpha=2), norms.mul_(2 * self.slack)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the squared distances of rows `(p,)` to the columns given for each, `(p, c)` in float64."""
        x, y = self.points
        step = max(1, PAIR_ENTRIES // (columns.shape[1] * x.shape[1]))
        pairs = zip(rows.split(step), columns.split(step), strict=True)
        return torch.cat([y[to].double().sub_(x[of, None]).square_().sum(2) for of, to in pairs])
