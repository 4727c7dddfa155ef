"""One intrinsic dimension for a dataset, with a range and the reasons.

Maximum likelihood and TwoNN are corrected for n by reference distributions of known dimension (`calibration`): the vote
is the mean of the corrections by one without edges and one with the most, or the correction by one that is as uneven as
the data if that gives more. Local principal components vote uncorrected, while they can: up to a quarter of their
neighbours. The dimension is the median of the votes, rounded, and at most the linear rank.

The range covers all corrected values and their intervals. It goes up to the linear rank where a full-dimensional
distribution has estimates as low: directions of small std may then be unseen at this n. It goes down to the uncorrected
estimates where these are corrected by half or more: in many dimensions a curved manifold (a product of 32 circles) can
have the estimates of a flat distribution of twice as many.

Directions narrower than the noise scale of neighbours (`visible`) don't count, so of many uneven dimensions some are
lost; wider noise counts as dimensions, and the scale curve shows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twostep.core.estimate import Estimate
from twostep.diagnosis.dimension import estimators
from twostep.diagnosis.dimension.calibration import Calibration, ReferenceRatio, reference_ratio, visible
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, DimensionEstimate, Estimator
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods

ROWS = 5000
STEADY = 1.2  # largest over smallest estimate of a curve that is flat
CORRECTED = 1.5  # correction from which on it rests on the reference distributions alone
UNEVEN = 2.0  # std of estimates around points over that of one dimension
FEW_POINTS = 200  # below which that std is left to chance
LOCAL = 0.25  # dimensions that local principal components can show, for each neighbour


@dataclass(frozen=True)
class Vote(Estimate):
    """An estimate, corrected, the uncorrected one, and whether it counts in the decision."""

    estimate: DimensionEstimate
    counts: bool = True


@dataclass(frozen=True)
class Dimension:
    """The intrinsic dimension of a dataset: `recommended`, and the range from `low` to `high` that the evidence allows.

    `votes` are the estimates, uncorrected and corrected, `curve` is maximum likelihood over the number of neighbours,
    and `reference` the estimate relative to a full-dimensional distribution's; its `rank` is the linear rank. `reasons`
    and `warnings` have a sentence each for the evidence and for unusual properties of the data.
    """

    recommended: int
    low: int
    high: int
    reasons: tuple[str, ...]
    votes: tuple[Vote, ...]
    curve: tuple[DimensionEstimate, ...]
    reference: ReferenceRatio
    warnings: tuple[str, ...]


def dimension_of(x: Tensor | np.ndarray, n: int = ROWS, seed: int = 0) -> Dimension:
    """Estimate the intrinsic dimension of data `(N, *S)` from n distinct rows or fewer.

    Raises:
        UserError: for fewer than 50 rows, 20 or fewer distinct ones, or values that are not finite.
    """
    return consensus(neighbourhoods(torch.as_tensor(x), n=n, seed=seed), seed)


def consensus(near: Neighbourhoods, seed: int = 0) -> Dimension:
    """Estimate the intrinsic dimension from 20 neighbours or more, better 100, without flat directions."""
    flat, near = near.flat, near.without_flat
    reference = reference_ratio(near, seed=seed)
    stds = near.principal[1].flip(0)
    stds = stds[: visible(stds, float(near.distances[:, NEIGHBOURS - 1].median()))]
    equal, keys = torch.ones_like(stds), (near.n, NEIGHBOURS, seed)
    calibrations = (
        Calibration("Gaussian", equal, *keys),
        Calibration("cube", equal, *keys),
        Calibration("Gaussian", stds, *keys),
    )
    components = estimators.local_pca(near, near.k, seed)
    votes = (
        _vote(estimators.maximum_likelihood(near, seed=seed), estimators.likelihood, calibrations),
        _vote(estimators.two_nn(near, seed), estimators.ratio, calibrations),
        Vote(components.value, *components.interval, components, components.value <= LOCAL * components.k),
    )
    counted = [vote for vote in votes if vote.counts]
    lowest, highest = min(vote.low for vote in counted), max(vote.high for vote in counted)
    middle = statistics.median(vote.value for vote in counted)
    low, recommended, high = (max(1, min(reference.rank, round(value))) for value in (lowest, middle, highest))
    curve = tuple(estimators.maximum_likelihood(near, k, seed) for k in estimators.SCALES if k <= near.k)
    reasons = (*(_vote_reason(vote) for vote in votes), _curve_reason(curve), _reference_reason(reference, near))
    if narrow := reference.rank - len(stds):
        reasons += (f"{len(stds)} directions are wide enough to count, {narrow} too narrow for {near.n:,} points",)
    if flat:
        reasons += (f"{flat} directions have at most a twelfth of the std of the next one and are left out as noise",)
    warnings = near.warnings
    uncorrected = min(vote.estimate.low for vote in votes[:2])
    if recommended >= CORRECTED * uncorrected:
        low = min(low, max(1, round(uncorrected)))
        warnings += (
            f"at {near.n:,} rows a curved manifold of {low} dimensions or more can have the estimates of a flat "
            f"distribution of {recommended}: use more rows to distinguish them",
        )
    local = estimators.dimensions_around(near)
    expected = max(calibration.local_std(recommended) for calibration in calibrations)
    if near.n >= FEW_POINTS and float(local.log().std()) >= UNEVEN * expected:
        least, most = local.quantile(local.new_tensor([0.05, 0.95])).tolist()
        warnings += (
            f"estimates around single points range from {least:.1f} to {most:.1f} (90 % of them), more than one "
            "dimension explains: there may be components of several dimensions, and one chart of all of them needs the "
            "largest",
        )
    if reference.rank >= near.n - 1:
        warnings += (f"{near.n} rows span at most {reference.rank} directions: more rows would show more dimensions",)
        high = near.dim
    elif reference.fills_space:
        high = reference.rank
    return Dimension(recommended, low, high, reasons, votes, curve, reference, warnings)


def _vote(estimate: DimensionEstimate, estimator: Estimator, calibrations: Sequence[Calibration]) -> Vote:
    even, edged, uneven = calibrations
    corrected = (even.correct(estimate.value, estimator) + edged.correct(estimate.value, estimator)) / 2
    low = even.correct(estimate.low, estimator)
    high = max(calibration.correct(estimate.high, estimator) for calibration in (edged, uneven))
    return Vote(max(corrected, uneven.correct(estimate.value, estimator)), low, high, estimate)


def _vote_reason(vote: Vote) -> str:
    estimate = vote.estimate
    text = f"{estimate.method}: {estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f}) on {estimate.n:,} points"
    if not vote.counts:
        return f"{text}, too many for this number of neighbours, so it is left out"
    if vote.value == estimate.value:
        return text
    return f"{text}, calibrated to {vote.low:.1f}-{vote.high:.1f} dimensions"


def _curve_reason(curve: tuple[DimensionEstimate, ...]) -> str:
    first, last = curve[0], curve[-1]
    values = [estimate.value for estimate in curve]
    text = f"from {first.k} to {last.k} neighbours the estimate changes from {first.value:.2f} to {last.value:.2f}"
    if max(values) <= STEADY * min(values):
        return f"{text}: it hardly depends on the scale"
    return f"{text}: it depends on the scale, because of noise, curvature, edges or few points"


def _reference_reason(reference: ReferenceRatio, near: Neighbourhoods) -> str:
    text = (
        f"the data vary in {reference.rank} of {near.dim} directions, and their estimate is {reference.ratio:.2f} "
        f"times that of {reference.distribution} in {reference.rank} dimensions"
    )
    if reference.fills_space:
        return f"{text}: but for flat directions they can't be distinguished from full-dimensional data"
    return f"{text}: they have a lower dimension, or edges"
