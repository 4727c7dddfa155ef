"""The intrinsic dimension around each row, smoothed over neighbours as far as these agree.

With T_1 <= ... <= T_k the distances to the nearest others, the mean s_i of log(T_k / T_j), j < k, is that of m = k - 1
exponential variables of rate d_i (see `estimators`). A row alone knows d to 1/sqrt(m), so neighbours are averaged by
propagation and separation: in rounds over more and more of them,

    w_ij = max(0, 1 - N_i K(d_i, d_j) / λ),   K(a, b) = log(a/b) + b/a - 1,
    1/d_i = Σ_j w_ij s_j / Σ_j w_ij,          N_i = m Σ_j w_ij,

K being the divergence of exponential distributions. Neighbours whose dimension differs significantly get no weight, so
pieces of several dimensions are kept apart, and as many rows are averaged as agree. λ is such that one dimension is
smoothed almost as without weights. A `calibration` of the number of points that have about such an estimate corrects
what few points and edges make too low.

*Scale.* Noise adds dimensions at small k. Each row takes the smallest k from which a doubling lowers the corrected
dimension by less than 8 %, or by about as little as at any k; or a larger such k with a dimension lower by a factor of
1.3 or more, as a manifold has above the scale of its noise.

*Standard error* of d: the m log-ratios of W = N/m averaged rows overlap, which leaves about (1/m + 0.06) / W of
relative variance; half the change with a doubling of k, which edges and curvature cause, is added in squares. Noise
that counts as a dimension is not part of it.

Sources: Propagation-Separation Approach for Local Likelihood Estimation (Polzehl & Spokoiny, 2006); Maximum Likelihood
Estimation of Intrinsic Dimension (Levina & Bickel, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.neighbours import k_nearest
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.diagnosis.dimension.calibration import DIMENSIONS
from twostep.diagnosis.dimension.distinct_rows import as_table, distinct
from twostep.diagnosis.dimension.estimators import mean_log_ratios, mean_logs
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods

ROWS = 30_000  # distinct ones that estimates are made at; others take that of the nearest
SCALES = (10, 20, 40, 80, 160)
AVERAGED = (5, 10, 20, 40, 80, 160)  # neighbours in each round
SEPARATION = 24.0  # λ
STEADY = 0.08  # relative change of the dimension that is no change
FEWER = 1.3  # ratio of dimensions below and above the scale of noise
OVERLAP = 0.06  # relative variance of one averaged row that more neighbours don't lower
ALIKE = 1.5  # ratio of estimates that are of one piece
PIECES = (1.0, 1 / 3, 1 / 9, 1 / 27)  # of the points
LEAST = 2 * SCALES[0]  # distinct rows, and one more
EQUAL = 1e-9  # mean log-ratio of distances that are equal up to rounding
CENTRES = 1000  # points of a reference sample at which it is measured

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LocalDimension:
    """The dimension around each row, `(N,)`, its standard error, and the number of neighbours that is its scale."""

    values: Array
    standard_errors: Array
    neighbours: NDArray[np.int64]

    def columns(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Return all by name of a column of a table, `row` first."""
        return {
            "row": np.arange(len(self.values)),
            "local_dimension": self.values,
            "standard_error": self.standard_errors,
            "neighbours": self.neighbours,
        }


def local_dimension(x: Tensor | np.ndarray, seed: int = 0) -> LocalDimension:
    """Estimate the intrinsic dimension around each row of data `(N, *S)` of any number type; equal rows have one.

    Columns are taken as they are: bring different units to one scale first.

    Raises:
        UserError: for fewer than 50 rows, 21 or fewer distinct ones, or values that are not finite.
    """
    table = as_table(torch.as_tensor(x))
    first, groups = distinct(table)
    if len(first) > ROWS:
        generator = torch.Generator().manual_seed(derive(seed, "local"))
        drawn = first[torch.randperm(len(first), generator=generator)[:ROWS].sort().values]
        groups, first = k_nearest(table[first], 1, table[drawn])[1][groups, 0], drawn
    if len(first) <= LEAST:
        raise UserError(f"{len(first)} distinct rows are too few for {LEAST} neighbours each: give more rows")
    near = neighbourhoods(table[first], 2 * SCALES[-1], seed=seed).without_flat
    scales = [k for k in SCALES if 2 * k <= near.k]
    scales.append(2 * scales[-1])
    smoothed = [_smoothed(near, k) for k in scales]
    correct = _Correction(near, scales, seed)
    logs = torch.stack([correct(k, estimates).log() for k, (estimates, _) in zip(scales, smoothed, strict=True)], 1)
    falls = (logs[:, :-1] - logs[:, 1:]).clamp(min=0)
    falls = torch.stack([_averaged(near, column) for column in falls.T], 1)
    levels = torch.stack([_averaged(near, column) for column in logs.T], 1)
    steady = falls <= (1.2 * falls.amin(1, keepdim=True)).clamp(min=STEADY)
    choice = steady.int().argmax(1, keepdim=True)  # the first that is
    for larger in range(1, len(scales) - 1):
        lower = levels[:, [larger]] < levels.gather(1, choice) - math.log(FEWER)
        choice = torch.where(steady[:, [larger]] & (larger > choice) & lower, larger, choice)
    averaged = torch.stack([rows for _, rows in smoothed], 1).gather(1, choice)[:, 0]
    k = torch.tensor(scales)[choice[:, 0]]
    values = logs.gather(1, choice)[:, 0].exp()
    change = (logs.gather(1, choice + 1)[:, 0].exp() - values) / 2
    errors = (values.square() * (1 / (k - 1) + OVERLAP) / averaged + change.square()).sqrt()
    return LocalDimension(*(column[groups].numpy() for column in (values, errors, k)))


def _smoothed(near: Neighbourhoods, k: int) -> tuple[Tensor, Tensor]:
    """Return the uncorrected dimension around each point by k neighbours, and how many points it averages, `(n,)`."""
    own = mean_logs(near, k).clamp(min=EQUAL)
    mean, weight = own, torch.ones_like(own)
    for count in (count for count in AVERAGED if count <= near.k):
        indices = near.indices[:, :count]
        ratio = mean[:, None] / mean[indices]  # d_j / d_i
        divergence = (k - 1) * weight[:, None] * (ratio - 1 - ratio.log())
        weights = (1 - divergence / SEPARATION).clamp(min=0)
        weight = 1 + weights.sum(1)
        mean = (own + (weights * own[indices]).sum(1)) / weight
    return 1 / mean, weight


def _averaged(near: Neighbourhoods, values: Tensor) -> Tensor:
    """Return the mean of values `(n,)` over the neighbours of each point."""
    return values[near.indices[:, : AVERAGED[3]]].mean(1)


class _Correction:
    """Corrects estimates by those of Gaussians and cubes of known dimension, with as many points as a piece has."""

    def __init__(self, near: Neighbourhoods, scales: Sequence[int], seed: int) -> None:
        self.scales, self.rank = list(scales), len(near.principal[1])
        sizes = sorted({max(scales[-1] + 2, round(share * near.n)) for share in PIECES})
        self.sizes = torch.tensor(sizes, dtype=torch.double)
        generator = torch.Generator().manual_seed(derive(seed, "reference"))
        self.dimensions: list[int] = []
        rows: list[Tensor] = []
        largest = 1 / float(mean_logs(near, scales[0]).clamp(min=EQUAL).quantile(0.05))
        for d in (*(d for d in DIMENSIONS if d < self.rank), self.rank):
            self.dimensions.append(d)
            rows.append(torch.stack([self._bias(size, d, generator) for size in sizes]))
            if float(rows[-1].exp().min()) > largest:
                break
        self.biases = torch.stack(rows)  # log of the estimate, by dimension, size and scale

    def _bias(self, size: int, d: int, generator: torch.Generator) -> Tensor:
        found: list[Tensor] = []
        for draw in (torch.randn, torch.rand):
            sample = draw(size, d, generator=generator, dtype=torch.double)
            squares = k_nearest(sample[:CENTRES], self.scales[-1] + 1, sample)[0][:, 1:]  # but for the point itself
            distances = squares.sqrt().clamp(min=torch.finfo(squares.dtype).tiny)
            found.append(torch.stack([mean_log_ratios(distances[:, :k]).mean() for k in self.scales]))
        return -torch.stack(found).log().mean(0)

    def __call__(self, k: int, estimates: Tensor) -> Tensor:
        """Return corrected estimates `(n,)` by k neighbours, at most the linear rank."""
        order = estimates.sort().values
        alike = torch.searchsorted(order, estimates * ALIKE) - torch.searchsorted(order, estimates / ALIKE)
        known = np.log(self.dimensions)
        biases = self.biases[:, :, self.scales.index(k)].cummax(0).values
        by_size = [np.interp(estimates.log().numpy(), bias.numpy(), known) for bias in biases.T]
        place = np.interp(alike.double().log().numpy(), self.sizes.log().numpy(), np.arange(len(self.sizes)))
        below = np.floor(place).astype(int).clip(max=max(0, len(self.sizes) - 2))
        rows, share = np.arange(len(estimates)), place - below
        table = np.stack(by_size, 1)
        above = table[rows, np.minimum(below + 1, len(self.sizes) - 1)]
        return torch.from_numpy(np.exp((1 - share) * table[rows, below] + share * above))
