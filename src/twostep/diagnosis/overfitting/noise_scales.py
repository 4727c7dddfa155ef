"""Dimension of the data with added noise over the scale of the noise, without training; the thickness of a manifold.

The distribution of the data with noise N(0, s² I), a point itself left out, is a mixture of Gaussians at the others,

    p_s(x_i) = mean_{j ≠ i} N(x_i; x_j, s² I),      w_ij ∝ exp(-r_ij² / 2s²), sum_j w_ij = 1
    d(s) = D + ∂ log p_s(x_i) / ∂ log s = sum_j w_ij r_ij² / s²,   averaged over points

On a manifold of d dimensions d(s) is d, wherever s is above the spacing and the thickness of the data and below their
curvature and extent: the log-density then grows by D - d nats for each factor of e in s. For N(0, diag(σ²)) it is

    d(s) = sum_k (1 + 2t_k²) / (1 + t_k²)²,   t_k = s / σ_k

At high d the curve is too low at any n, so it is shown beside the Gaussian's. A point is *resolved* at s if the
effective number of its neighbours, 1 / sum_j w_ij², is 8 or more, and a scale if nine in ten are. Gaussian noise of std
σ across a manifold has half a dimension at s = 1.55 σ: where the curve has a plateau at an integer below D and is
halfway up to D at a smaller s, the manifold is thick.

Sources: the slope is LIDL's (LIDL: Local Intrinsic Dimension Estimation Using Approximate Likelihood, Tempczyk et al.,
2022, arXiv 2206.14882); its derivative form is FLIPD's (A Geometric View of Data Complexity, Kamkari et al., 2024,
arXiv 2406.03537). Here the density is the empirical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from twostep.core.estimate import Estimate
from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import bootstrap_interval, resamples
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods

SCALES = 20
POINTS = 2000  # at which the density is evaluated
EFFECTIVE = 8  # neighbours
SHARE = 0.9  # of points that a resolved scale resolves
LEAST = 30  # resolved points for a meaningful interval
ENTRIES = 2**20  # distances held at once

NEAR = 0.8  # of D, above which the Gaussian's own d(s) is
BELOW = 0.5  # dimensions of a plateau under the Gaussian's d(s)
LEVEL, ROUND = 0.15, 0.3  # relative decrease over three scales of a plateau, and its distance to an integer
HALFWAY = 1.55


@dataclass(frozen=True)
class NoiseScale(Estimate):
    """The dimension d(s) of data with noise of std `scale`, over a share of resolved points, beside the Gaussian's."""

    scale: float
    gaussian: float
    share: float


@dataclass(frozen=True)
class NoiseScaleCurve:
    """The curve d(s) of D = `dim` coordinates, at ascending scales, and the data's rms radius, in their units."""

    scales: tuple[NoiseScale, ...]
    dim: int
    rms_radius: float

    @property
    def resolved(self) -> tuple[NoiseScale, ...]:
        """The resolved scales, at which d(s) is meaningful."""
        return tuple(at for at in self.scales if at.share >= SHARE)

    def range_of(self, dimension: int) -> tuple[float, float] | None:
        """Return the smallest and the largest resolved scale at which d(s) is about this; None without any."""
        slack = max(0.25, 0.1 * dimension)
        found = [at.scale for at in self.resolved if abs(at.value - dimension) <= slack]
        return (found[0], found[-1]) if found else None


def noise_scale_curve(near: Neighbourhoods, seed: int = 0) -> NoiseScaleCurve:
    """Return the curve of the points, with intervals of a bootstrap over cells of near points."""
    generator = torch.Generator().manual_seed(derive(seed, "ladder"))
    asked = torch.randperm(near.n, generator=generator)[:POINTS].sort().values
    rms_radius = float(near.points.square().sum(1).mean().sqrt())
    first = min(float(near.distances[:, 0].median()) / 4, rms_radius / 2)
    scales = torch.logspace(0, 1, SCALES, base=rms_radius / first, dtype=torch.double) * first
    values, effective = local_dimensions(near.points, asked, scales)
    gaussian = gaussian_curve(scales, near.principal[1]).tolist()
    weights = resamples(near, seed)[:, asked]
    resolved = (effective >= EFFECTIVE).to(values)
    found: list[NoiseScale] = []
    for index, scale in enumerate((scales * near.unit).tolist()):
        value, counts = values[:, index], resolved[:, index]
        if counts.sum() < LEAST:
            continue
        mean = float((value * counts).sum() / counts.sum())
        interval = bootstrap_interval(mean, weights @ (value * counts) / (weights @ counts).clamp(min=1))
        found.append(NoiseScale(mean, *interval, scale, gaussian[index], float(counts.mean())))
    return NoiseScaleCurve(tuple(found), near.dim, rms_radius * near.unit)


def local_dimensions(points: Tensor, asked: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return d(s) of points `(n, D)` and the effective number of neighbours at those of m indices, `(m, S)`."""
    values, effective = points.new_empty(len(asked), len(scales)), points.new_empty(len(asked), len(scales))
    norms = points.square().sum(1)
    step = max(1, ENTRIES // len(points))
    for start in range(0, len(asked), step):
        block = asked[start : start + step]
        squares = norms[block, None] + norms - 2 * points[block] @ points.T
        squares = squares.clamp_(min=0).scatter_(1, block[:, None], torch.inf)
        nearest = squares.min(1, keepdim=True).values
        above = (squares - nearest).float()
        for index, scale in enumerate(scales.tolist()):
            weights = above.mul(-0.5 / scale**2).exp_()
            total = weights.sum(1)
            moments = (weights * above.nan_to_num(posinf=0.0)).sum(1) / total + nearest[:, 0]
            values[start : start + step, index] = moments / scale**2
            effective[start : start + step, index] = total.square() / weights.square().sum(1)
    return values, effective


def gaussian_curve(scales: Tensor, stds: Tensor) -> Tensor:
    """Return d(s), `(S,)`, of a Gaussian with these stds along its axes, `(rank,)`."""
    squares = (scales[:, None] / stds).square()
    return ((1 + 2 * squares) / (1 + squares).square()).sum(1)


def thickness_of(curve: NoiseScaleCurve) -> float | None:
    """Return the std of the noise of a thick manifold from the curve of full-dimensional data; None: not thick."""
    scales = [at for at in curve.resolved if at.gaussian >= NEAR * curve.dim]
    plateaus = [
        middle
        for first, middle, last in zip(scales, scales[1:], scales[2:], strict=False)
        if first.value - last.value <= LEVEL * middle.value
        and middle.gaussian - middle.value >= BELOW
        and 0 < round(middle.value) < curve.dim
        and abs(middle.value - round(middle.value)) <= ROUND
    ]
    if not plateaus:
        return None
    plateau = plateaus[-1]
    halfway = (curve.dim + plateau.value) / 2
    for before, after in pairwise(curve.scales):
        if before.value >= halfway > after.value and after.scale <= plateau.scale:
            share = (before.value - halfway) / (before.value - after.value)
            return before.scale * (after.scale / before.scale) ** share / HALFWAY
    return None
