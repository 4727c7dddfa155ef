"""One intrinsic dimension for a data set, with a range and the reasons.

Maximum likelihood and TwoNN are corrected for n by laws whose dimension is known (`calibration`): the vote is half-way
between a law without edges and one with the most, or by a law that is as uneven as the data if that gives more. Local
principal components vote as they are, while they can: up to a quarter of their neighbours. The dimension is the median
of the votes, rounded, and at most the linear rank. The range holds all corrected values and their intervals. It goes up
to the linear rank where a law that fills the space gives estimates as low: then directions of little spread may be
there, unseen at this n. It goes down to the estimates as they are where these are corrected by half or more: in many
dimensions a curved manifold (a product of 32 circles) can have the estimates of a flat distribution of twice as many.

A set may consist of components of several dimensions. Then estimates around points differ more than those of the
reference laws with the recommended dimension, and a warning gives their range.

Where it can be wrong: directions with less spread than a quarter of the distance of neighbours don't count, so that
small noise adds nothing, nor do thin directions of the data. Of many uneven dimensions some are still lost (a network's
manifold of 20 dimensions in R^100: 16; by even laws 14). Noise above that distance counts as dimensions; the scale
curve shows it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from twostep.diagnosis.dimension.calibration import Law, Reference, visible
from twostep.diagnosis.dimension.estimators import (
    NEIGHBOURS,
    DimensionEstimate,
    dimensions_around,
    likelihood_value,
    local_pca,
    maximum_likelihood,
    scale_curve,
    two_nn,
    two_nn_value,
)
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods
from twostep.diagnosis.dimension.null import Estimator, NullRatio, against_null

ROWS = 5000
STEADY = 1.2  # largest over smallest estimate of a curve that is flat
CORRECTED = 1.5  # times the estimate, from which on the correction rests on the laws alone
UNEVEN = 2.0  # times the spread of estimates around points that one dimension explains
FEW_POINTS = 200  # below which that spread is left to chance
SEEN = 0.25  # dimensions that local principal components tell, for each neighbour


@dataclass(frozen=True)
class Vote:
    """An estimate and what it means for this many points.

    Args:
        estimate: as it is.
        value: corrected.
        low: the lower end of the corrected interval.
        high: the higher end.
        counts: whether it is one of those that decide.
    """

    estimate: DimensionEstimate
    value: float
    low: float
    high: float
    counts: bool = True


class Laws(NamedTuple):
    """The three that explain why an estimate is low."""

    even: Reference
    edged: Reference
    uneven: Reference

    @classmethod
    def for_points(cls, near: Neighbourhoods, seed: int) -> Laws:
        """Return those for as many points, of as many directions as are wide enough to count."""
        stds = near.principal[1].flip(0)
        stds = stds[: visible(stds, float(near.distances[:, NEIGHBOURS - 1].median()))]
        alike = torch.ones_like(stds)
        kinds: tuple[tuple[Law, Tensor], ...] = (("Gaussian", alike), ("cube", alike), ("Gaussian", stds))
        return cls(*(Reference(law, scales, near.n, NEIGHBOURS, seed) for law, scales in kinds))

    @property
    def directions(self) -> int:
        """How many there can be."""
        return len(self.uneven.scales)


@dataclass(frozen=True)
class Dimension:
    """The intrinsic dimension of a data set.

    Args:
        recommended: the dimension, 1 or more.
        low: the lowest dimension that the evidence allows.
        high: the highest.
        reasons: the evidence, a sentence each.
        votes: the estimates, as they are and corrected.
        curve: maximum likelihood over the number of neighbours.
        null: the estimate beside that of a law that fills the space; its `rank` is the linear rank.
        warnings: what is odd about the data, a sentence each.
    """

    recommended: int
    low: int
    high: int
    reasons: tuple[str, ...]
    votes: tuple[Vote, ...]
    curve: tuple[DimensionEstimate, ...]
    null: NullRatio
    warnings: tuple[str, ...]


def dimension_of(x: Tensor | np.ndarray, n: int = ROWS, seed: int = 0) -> Dimension:
    """Tell the intrinsic dimension of data `(N, *S)` by n distinct rows or fewer.

    Raises:
        UserError: for fewer than 50 rows, 20 or fewer distinct ones, or values that are not finite.
    """
    return consensus(neighbourhoods(torch.as_tensor(x), n=n, seed=seed), seed)


def consensus(near: Neighbourhoods, seed: int = 0) -> Dimension:
    """Tell the intrinsic dimension by neighbourhoods of 20 or more others, better 100; flat directions count for none.

    Raises:
        UserError: if there are 20 or fewer points.
    """
    flat, near = near.flat, near.steep
    null = against_null(near, seed=seed)
    laws = Laws.for_points(near, seed)
    votes = (
        _corrected(maximum_likelihood(near, seed=seed), likelihood_value, laws),
        _corrected(two_nn(near, seed), two_nn_value, laws),
        _as_it_is(local_pca(near, near.k, seed)),
    )
    low, recommended, high = _agreed([vote for vote in votes if vote.counts], null.rank)
    curve = scale_curve(near, seed=seed)
    reasons = (*(_vote_told(vote) for vote in votes), _curve_told(curve), _null_told(null, near))
    if narrow := null.rank - laws.directions:
        told = f"{laws.directions} directions are wide enough to count, {narrow} too narrow for {near.n:,} points"
        reasons += (told,)
    if flat:
        told = f"{flat} directions spread a twelfth as far as the next one or less, and are left out as noise"
        reasons += (told,)
    warnings = near.warnings
    raw = min(vote.estimate.low for vote in votes[:2])
    if recommended >= CORRECTED * raw:
        low = min(low, max(1, round(raw)))
        told = f"a curved manifold of {low} dimensions or more can be estimated as a flat distribution of {recommended}"
        warnings += (f"{told} at {near.n:,} rows: more rows would tell",)
    if told := _mixed_told(near, laws, recommended):
        warnings += (told,)
    if null.rank >= near.n - 1:
        warnings += (f"{near.n} rows span {null.rank} directions at most: more rows would show more dimensions",)
        high = near.dim
    elif null.fills_space:
        high = null.rank
    return Dimension(recommended, low, high, reasons, votes, curve, null, warnings)


def _agreed(votes: list[Vote], rank: int) -> tuple[int, int, int]:
    """Return the lowest, the middle and the highest dimension of the votes."""
    low, high = min(vote.low for vote in votes), max(vote.high for vote in votes)
    middle = statistics.median(vote.value for vote in votes)
    low, middle, high = (max(1, min(rank, round(value))) for value in (low, middle, high))
    return low, middle, high


def _corrected(estimate: DimensionEstimate, estimator: Estimator, laws: Laws) -> Vote:
    """Return a vote half-way between the even laws, or by the uneven one where that is more."""
    even, edged, uneven = (law.correct(estimate.value, estimator) for law in laws)
    low = laws.even.correct(estimate.low, estimator)
    high = max(law.correct(estimate.high, estimator) for law in (laws.edged, laws.uneven))
    return Vote(estimate, max((even + edged) / 2, uneven), low, high)


def _as_it_is(estimate: DimensionEstimate) -> Vote:
    return Vote(estimate, estimate.value, estimate.low, estimate.high, estimate.value <= SEEN * estimate.k)


def _mixed_told(near: Neighbourhoods, laws: Laws, recommended: int) -> str:
    """Return a warning where estimates around points spread more than one dimension explains, else an empty text."""
    if near.n < FEW_POINTS:
        return ""
    found = dimensions_around(near)
    expected = max(law.spread(recommended) for law in laws)
    if float(found.log().std()) < UNEVEN * expected:
        return ""
    low, high = found.quantile(found.new_tensor([0.05, 0.95])).tolist()
    return (
        f"estimates around single points go from {low:.1f} to {high:.1f} (90 % of them), more than one dimension "
        "explains: there may be components of several dimensions, and a chart of all of them takes the largest"
    )


def _vote_told(vote: Vote) -> str:
    estimate = vote.estimate
    told = f"{estimate.method}: {estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f}) on {estimate.n:,} points"
    if not vote.counts:
        return f"{told}, more than so many neighbours can tell, so it is left out"
    if vote.value == estimate.value:
        return told
    return f"{told}, by reference laws {vote.low:.1f}-{vote.high:.1f} dimensions"


def _curve_told(curve: tuple[DimensionEstimate, ...]) -> str:
    first, last = curve[0], curve[-1]
    values = [estimate.value for estimate in curve]
    told = f"from {first.k} to {last.k} neighbours the estimate goes from {first.value:.2f} to {last.value:.2f}"
    if max(values) <= STEADY * min(values):
        return f"{told}: it hardly depends on the scale"
    return f"{told}: it depends on the scale, so noise, curvature, edges or few points play a part"


def _null_told(null: NullRatio, near: Neighbourhoods) -> str:
    compared = f"{null.ratio:.2f} times that of {null.law} in {null.rank} dimensions"
    told = f"the data vary in {null.rank} of {near.dim} directions, and their estimate is {compared}"
    if null.fills_space:
        return f"{told}: but for flat directions nothing tells them from data that fill the space"
    return f"{told}: they are of a lower dimension than it, or have edges"
