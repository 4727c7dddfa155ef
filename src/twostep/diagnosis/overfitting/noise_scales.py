"""Noise ladder without training: how many dimensions the data, blurred by noise of std s, have at each s.

The law of the data plus N(0, s² I), with a point itself left out, is a mixture of Gaussians at the others,

    p_s(x_i) = mean_{j ≠ i} N(x_i; x_j, s² I),      w_ij ∝ exp(-r_ij² / 2s²), sum_j w_ij = 1
    d(s) = D + ∂ log p_s(x_i) / ∂ log s = sum_j w_ij r_ij² / s²,   in the mean over points

so that the slope of the mean log-density against log s is d(s) - D. On a manifold of d dimensions d(s) is d, wherever
s is above the spacing and the thickness of the data and below their curvature and extent: the log-density then grows
without bound, by D - d nats for each factor of e in s. For N(0, diag(σ²)) it is

    d(s) = sum_k (1 + 2t_k²) / (1 + t_k²)²,   t_k = s / σ_k

which is D for s far below all σ_k. Below the spacing of the points the curve says nothing: there d(s) is (nearest
distance)² / s². A point is *seen* at s if the effective number of its neighbours, 1 / sum_j w_ij², is 8 or more. Only
these enter the mean, as those in tails never do, and a rung at which nine in ten points are seen is *resolved*. The
rungs go from a quarter of the median distance to the nearest other up to the root mean square distance to the mean.

At high d the curve is too low at any n, as estimates by neighbours are: it is read beside the Gaussian's curve.

Sources: the slope is LIDL's (LIDL: Local Intrinsic Dimension Estimation Using Approximate Likelihood, Tempczyk et al.,
2022, arXiv 2206.14882); its derivative form is FLIPD's (A Geometric View of Data Complexity, Kamkari et al., 2024,
arXiv 2406.03537). Here the density is the empirical one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import resamples
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods

RUNGS = 20
POINTS = 2000  # at which the density is asked for
EFFECTIVE = 8  # neighbours
SHARE = 0.9  # of points that a resolved rung sees
LEAST = 30  # seen points for an interval that means something
ENTRIES = 2**20  # distances held at once


@dataclass(frozen=True)
class Rung:
    """The blurred data at one scale.

    Args:
        scale: std s of the noise, in units of the data.
        dimension: d(s), in the mean over seen points.
        low: lower end of its 95 % interval.
        high: higher end.
        gaussian: d(s) of a Gaussian with the covariance of the data.
        seen: share of the points that have neighbours enough at this scale.
    """

    scale: float
    dimension: float
    low: float
    high: float
    gaussian: float
    seen: float

    @property
    def resolved(self) -> bool:
        """Whether the curve means something at this scale."""
        return self.seen >= SHARE


@dataclass(frozen=True)
class Ladder:
    """The curve d(s), from small scales to large ones.

    Args:
        rungs: those at which some points are seen.
        dim: number of coordinates D.
        spread: root mean square distance of the points to their mean, in units of the data.
    """

    rungs: tuple[Rung, ...]
    dim: int
    spread: float

    @property
    def resolved(self) -> tuple[Rung, ...]:
        """Rungs that mean something."""
        return tuple(rung for rung in self.rungs if rung.resolved)

    @property
    def slope(self) -> float:
        """Slope of the mean log-density against log s at the finest resolved scale: about -(D - d)."""
        return self.resolved[0].dimension - self.dim if self.resolved else 0.0

    def scales_of(self, dimension: int) -> tuple[float, float] | None:
        """Return the smallest and the largest resolved scale at which d(s) is about this; None if there is none."""
        slack = max(0.25, 0.1 * dimension)
        found = [rung.scale for rung in self.resolved if abs(rung.dimension - dimension) <= slack]
        return (found[0], found[-1]) if found else None


def noise_ladder(near: Neighbourhoods, seed: int = 0) -> Ladder:
    """Return the ladder of the points, with intervals of a bootstrap over cells of near points."""
    generator = torch.Generator().manual_seed(derive(seed, "ladder"))
    asked = torch.randperm(near.n, generator=generator)[:POINTS].sort().values
    spread = float(near.points.square().sum(1).mean().sqrt())
    first = min(float(near.distances[:, 0].median()) / 4, spread / 2)
    scales = torch.logspace(0, 1, RUNGS, base=spread / first, dtype=torch.double) * first
    values, effective = local_dimensions(near.points, asked, scales)
    gaussian = gaussian_ladder(scales, near.principal[1]).tolist()
    weights = resamples(near, seed)[:, asked]
    seen = (effective >= EFFECTIVE).to(values)
    rungs: list[Rung] = []
    for index, scale in enumerate((scales * near.unit).tolist()):
        value, sight = values[:, index], seen[:, index]
        if sight.sum() < LEAST:
            continue
        mean = float((value * sight).sum() / sight.sum())
        drawn = weights @ (value * sight) / (weights @ sight).clamp(min=1)
        low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
        rungs.append(Rung(scale, mean, min(low, mean), max(high, mean), gaussian[index], float(sight.mean())))
    return Ladder(tuple(rungs), near.dim, spread * near.unit)


def local_dimensions(points: Tensor, asked: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return d(s) and the effective number of neighbours at the points of these indices.

    Shapes: `points: (n, D)` in float64, `asked: (m,)`, `scales: (S,)`, results `(m, S)`.
    """
    values, effective = points.new_empty(len(asked), len(scales)), points.new_empty(len(asked), len(scales))
    norms = points.square().sum(1)
    step = max(1, ENTRIES // len(points))
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        squares = norms[part, None] + norms - 2 * points[part] @ points.T
        squares = squares.clamp_(min=0).scatter_(1, part[:, None], torch.inf)
        nearest = squares.min(1, keepdim=True).values
        above = (squares - nearest).float()
        for index, scale in enumerate(scales.tolist()):
            weights = above.mul(-0.5 / scale**2).exp_()
            total = weights.sum(1)
            moments = (weights * above.nan_to_num(posinf=0.0)).sum(1) / total + nearest[:, 0]
            values[start : start + step, index] = moments / scale**2
            effective[start : start + step, index] = total.square() / weights.square().sum(1)
    return values, effective


def gaussian_ladder(scales: Tensor, stds: Tensor) -> Tensor:
    """Return d(s), `(S,)`, of a Gaussian with these stds along its axes, `(rank,)`."""
    squares = (scales[:, None] / stds).square()
    return ((1 + 2 * squares) / (1 + squares).square()).sum(1)
