"""The nearest others of every point, once for all estimators of dimension.

These estimators read ratios of distances, and the copy of a row is at distance 0: they see distinct rows. Where values
lie on a grid (whole numbers, say) many neighbours are equally far, and ratios tell of the grid rather than of the data;
such columns get uniform noise of one step, the dequantisation of densities, which is harmless where the step is small
beside the distance of neighbours.

Of more rows than asked for a random part is taken, and neighbours are sought inside of it: the estimate is then one of
n rows in every respect, and can be held against n rows of a law whose dimension is known. Neighbours among all rows
would show a finer scale, at a cost that grows with all rows; a larger n does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twostep.core.neighbours import k_nearest
from twostep.core.schema import UserError
from twostep.diagnosis.dimension.points import distinct_points, flat_directions, grid_noise, principal_coordinates

K = 100
TREE = 8  # coordinates up to which a tree is faster than all distances
TIED = 0.1  # share of points with two equally far nearest neighbours from which on a grid is looked for
NOISE = 12.0  # gap among stds of principal directions below which these are flat
ROUNDING = 1e-9  # relative difference of equal distances


@dataclass(frozen=True)
class Neighbourhoods:
    """Points and the k nearest others of each.

    Args:
        points: distinct rows, centred and of a size of about 1, `(n, D)` in float64.
        distances: to the k nearest others, positive and ascending, `(n, k)`.
        indices: of these others, `(n, k)`.
        rounding: the std of each column that rounding alone explains, `(D,)`, or one for all.
        duplicates: rows that were left out because they repeat another.
        warnings: what is odd about the data, a sentence each.
        unit: length in the data of a length of 1 in the points.
    """

    points: Tensor
    distances: Tensor
    indices: Tensor
    rounding: Tensor | float = 0.0
    duplicates: int = 0
    warnings: tuple[str, ...] = ()
    unit: float = 1.0

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def k(self) -> int:
        """Number of neighbours that are known."""
        return self.distances.shape[1]

    @property
    def dim(self) -> int:
        """Number of coordinates D."""
        return self.points.shape[1]

    @cached_property
    def principal(self) -> tuple[Tensor, Tensor]:
        """Their principal coordinates `(n, rank)` and the std of each, ascending, `(rank,)`."""
        return principal_coordinates(self.points, self.rounding)

    @property
    def flat(self) -> int:
        """Number of principal directions that spread a twelfth as far as the next one or less: taken for noise."""
        return flat_directions(self.principal[1], NOISE)

    @cached_property
    def steep(self) -> Neighbourhoods:
        """The same points in their principal coordinates that are not flat; themselves where none is."""
        if not self.flat:
            return self
        points = self.principal[0][:, self.flat :]
        distances, indices = nearest_others(points, self.k)
        return replace(self, points=points, distances=distances, indices=indices, rounding=0.0)


def neighbourhoods(x: Tensor, k: int = K, n: int | None = None, seed: int = 0) -> Neighbourhoods:
    """Return the k nearest others of each distinct row, or all others where there are fewer.

    Args:
        x: data `(N, *S)` of any number type.
        k: neighbours, 2 or more.
        n: distinct rows to take at most, drawn at random; None: all.
        seed: of the draw, and of the noise on grids.

    Raises:
        UserError: for fewer than 50 rows, fewer than 3 distinct ones, or values that are not finite.
    """
    found = distinct_points(x, n, seed)
    rows, warnings = found.rows, found.warnings
    if len(rows) < 3:
        told = f"{len(x)} rows of which {len(rows)} are distinct have no dimension"
        raise UserError(f"{told}: give other data, or subtract the mean of each column if only last digits differ")
    k = min(k, len(rows) - 1)
    distances, indices = nearest_others(rows, k)
    tied = float((distances[:, 1] <= (1 + ROUNDING) * distances[:, 0]).double().mean())
    if tied > TIED:
        noise = grid_noise(rows, seed)
        told = f"{tied:.0%} of the points have two nearest neighbours that are equally far"
        if noise is None:
            warnings += (f"{told}: estimates at few neighbours are too high",)
        else:
            rows = rows + noise
            distances, indices = nearest_others(rows, k)
            warnings += (f"{told}, as values lie on a grid: noise of one step was added",)
    return Neighbourhoods(rows, distances, indices, found.rounding, found.duplicates, warnings, found.unit)


def nearest_others(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances, ascending, and indices of the k nearest others of distinct points `(n, D)`: `(n, k)`."""
    if points.shape[1] <= TREE:
        from sklearn.neighbors import KDTree  # here because it takes a second

        found, places = (torch.from_numpy(part) for part in KDTree(points.numpy()).query(points.numpy(), k + 1))
        others = places != torch.arange(len(points))[:, None]
        others[others.all(1), -1] = False  # a point that its own list lacks, among others at distance 0
        distances, indices = found[others].view(-1, k), places[others].view(-1, k)
    else:
        squares, indices = k_nearest(points, k)
        distances = squares.sqrt()
    return distances.clamp(min=torch.finfo(distances.dtype).tiny), indices
