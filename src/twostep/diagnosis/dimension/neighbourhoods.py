"""The nearest neighbours of every point, computed once for all estimators of dimension.

Estimators use ratios of distances, so rows are distinct, and columns on a grid (integers, say) are dequantised with
uniform noise of one step. Neighbours are sought within the random subsample, like those of n reference rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twostep.core.neighbours import k_nearest
from twostep.core.schema import UserError
from twostep.diagnosis.dimension.distinct_rows import distinct_rows, flat_directions, grid_noise

K = 100
TREE = 8  # coordinates up to which a k-d tree is faster than all distances
TIED = 0.1  # share of points with two equally far nearest neighbours above which values may lie on a grid
NOISE = 12.0  # gap among stds of principal directions below which directions are flat
ROUNDING = 1e-9  # relative difference of equal distances
LOST = 1e-7  # std of a principal direction that double precision can't resolve


@dataclass(frozen=True)
class Neighbourhoods:
    """Points, distinct rows `(n, D)` in float64, centred and scaled, and the k nearest neighbours of each.

    `distances` and `indices` `(n, k)` are those of the neighbours, the distances positive and ascending. `rounding` is
    the std of each column that rounding alone explains, `(D,)`, or one for all; `warnings` name unusual properties of
    the data; `unit` is the length in the data of a length of 1 in the points.
    """

    points: Tensor
    distances: Tensor
    indices: Tensor
    rounding: Tensor | float = 0.0
    warnings: tuple[str, ...] = ()
    unit: float = 1.0

    @classmethod
    def of(cls, points: Tensor, k: int) -> Neighbourhoods:
        """Return the k nearest others of each of distinct points `(n, D)`."""
        if points.shape[1] <= TREE:
            from sklearn.neighbors import NearestNeighbors  # imported here because it takes a second

            tree = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(points.numpy())
            distances, indices = (torch.from_numpy(array) for array in tree.kneighbors())
        else:
            squares, indices = k_nearest(points, k)
            distances = squares.sqrt()
        return cls(points, distances.clamp(min=torch.finfo(distances.dtype).tiny), indices)

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def k(self) -> int:
        """Number of neighbours of each point."""
        return self.distances.shape[1]

    @property
    def dim(self) -> int:
        """Number of coordinates D."""
        return self.points.shape[1]

    @cached_property
    def principal(self) -> tuple[Tensor, Tensor]:
        """Coordinates `(n, rank)` in the principal directions in which points vary, and their stds, ascending."""
        variances, directions = torch.linalg.eigh(self.points.T @ self.points / (self.n - 1))
        columns = torch.as_tensor(self.rounding, dtype=self.points.dtype).expand(self.dim)
        explained = (directions.square().T @ columns.square()).sqrt().clamp(min=LOST)
        kept = variances.clamp(min=0).sqrt() > explained
        if not bool(kept.any()):
            raise UserError("the rows differ by rounding only: subtract the mean of each column before rounding")
        return self.points @ directions[:, kept], variances[kept].sqrt()

    @property
    def flat(self) -> int:
        """Number of principal directions with at most a twelfth of the std of the next one: taken for noise."""
        return flat_directions(self.principal[1], NOISE)

    @cached_property
    def without_flat(self) -> Neighbourhoods:
        """The same points in the principal coordinates that are not flat; unchanged where none is."""
        if not self.flat:
            return self
        near = Neighbourhoods.of(self.principal[0][:, self.flat :], self.k)
        return replace(near, warnings=self.warnings, unit=self.unit)


def neighbourhoods(x: Tensor, k: int = K, n: int | None = None, seed: int = 0) -> Neighbourhoods:
    """Return the k nearest others, or all, of each distinct row of data `(N, *S)`, or of n rows drawn from them."""
    rows, rounding, unit, warnings = distinct_rows(x, n, seed)
    near = Neighbourhoods.of(rows, min(k, len(rows) - 1))
    tied = float((near.distances[:, 1] <= (1 + ROUNDING) * near.distances[:, 0]).double().mean())
    if tied > TIED:
        ties = f"{tied:.0%} of the points have two nearest neighbours that are equally far"
        noise = grid_noise(rows, seed)
        if noise is None:
            warnings += (f"{ties}: estimates with few neighbours are too high",)
        else:
            warnings += (f"{ties}, as values lie on a grid: uniform noise of one step was added",)
            near = Neighbourhoods.of(rows + noise, near.k)
    return replace(near, rounding=rounding, warnings=warnings, unit=unit)
