"""Manifold overfitting: has a density that is fitted well to these data a bound?

*yes*: the data lie on or very near a manifold of fewer dimensions than they have coordinates, and the likelihood of a
density can grow without end by hugging it, whatever it says of the law on it. *no*: they fill their space as far as
their number can show. *undecided*: this many points can't tell. Witnesses, in this order:

1. the linear rank, and flat directions whose spread is less than 1/200 of the next one (a thickness, which is told);
2. few points for many directions: the estimate by neighbours is less than 0.7 of what laws with the data's covariance
   give, a Gaussian or mixture and a box (more is left undecided: nothing smaller is measurable there);
3. quadrics that held-out rows fulfil (`quadrics`);
4. neighbours of the whitened data beside laws of D and of D - 1 dimensions (`contrast`), with fewer neighbours where
   twenty of them leave it open, since the dimension may depend on the scale;
5. if asked for, a trained noise ladder (`denoiser`). It says yes by half a missing dimension or more. Its no counts if
   neighbours too find the data like a law that fills the space, because a network can miss a manifold.

A thick manifold is one above its thickness and none below. Where the points resolve the thickness the verdict is that
below it, and the scale is told: at larger scales the ladder's d(s) has a plateau at a whole number below D, and it is
halfway from D to there at 1.55 times the std of Gaussian noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from twostep.diagnosis.consensus import Dimension
from twostep.diagnosis.contrast import Contrast, contrast
from twostep.diagnosis.denoiser import TrainedLadder, trained_ladder
from twostep.diagnosis.intrinsic_dimension import maximum_likelihood
from twostep.diagnosis.ladder import Ladder
from twostep.diagnosis.neighbourhoods import Neighbourhoods, nearest_others
from twostep.diagnosis.null import principal_coordinates
from twostep.diagnosis.quadrics import enough_rows, thinnest_quadrics
from twostep.seeds import derive

Verdict = Literal["yes", "no", "undecided"]

GAP = 200.0  # between the stds of neighbouring principal directions
LOW = 0.7  # of the estimate for a law of the same covariance
ROWS = 20  # for each direction, to whiten
THIN = 0.02  # stds of the data
FINE = 5  # neighbours
HALF = 0.5  # dimensions
LITTLE = 0.35
NEAR = 0.8  # of D, above which the Gaussian's own d(s) is
LEVEL, ROUND = 0.15, 0.3  # fall of d(s) over three rungs of a plateau, relative; its distance to a whole number
HALFWAY = 1.55
WIDEST = 60  # coordinates of a denoiser


@dataclass(frozen=True)
class Overfitting:
    """The verdict.

    Args:
        verdict: whether a density fitted to these data has no bound.
        evidence: why, in a sentence.
        at_most: dimensions that the evidence leaves.
        scales: smallest and largest scale at which the noise ladder shows the manifold, in units of the data.
        thickness: std of the noise across a thick manifold, in units of the data; None if none was seen.
        trained: the trained ladder, if it was asked for and needed.
    """

    verdict: Verdict
    evidence: str
    at_most: int
    scales: tuple[float, float] | None = None
    thickness: float | None = None
    trained: TrainedLadder | None = None

    def line(self) -> str:
        """Return the verdict, with the scale where it depends on one."""
        if self.thickness is None:
            return self.verdict
        if self.verdict == "yes":
            return f"yes (above a scale of {self.thickness:.2g}; below it the data are full)"
        return f"{self.verdict} (below a scale of {self.thickness:.2g}; yes above it)"


@dataclass(frozen=True)
class _Finding:
    verdict: Verdict
    evidence: str
    at_most: int
    thickness: float | None = None
    trained: TrainedLadder | None = None


def overfitting(
    near: Neighbourhoods, dimension: Dimension, ladder: Ladder, thorough: bool = False, seed: int = 0
) -> Overfitting:
    """Judge the points, whose dimension and noise ladder are known.

    Args:
        near: the points with 20 neighbours or more.
        dimension: of the same points.
        ladder: of the same points.
        thorough: whether to train a denoiser where all else leaves it undecided.
        seed: of all that is drawn.
    """
    points, stds = principal_coordinates(near.points, near.rounding)
    found = _flat(near, stds) or _by_shape(near, points, stds, dimension, thorough, seed)
    thickness = found.thickness
    if thickness is None and found.verdict == "no":
        thickness = _thickness(ladder)
    scales = ladder.scales_of(min(dimension.recommended, found.at_most)) if found.verdict == "yes" else None
    return Overfitting(found.verdict, found.evidence, found.at_most, scales, thickness, found.trained)


def flat_directions(stds: Tensor) -> int:
    """Return how many of the ascending stds of principal directions lie below a gap of a factor of 200; 0: no gap."""
    ratios = stds[1:] / stds[:-1]
    return int(ratios.argmax()) + 1 if len(ratios) and float(ratios.max()) >= GAP else 0


def _flat(near: Neighbourhoods, stds: Tensor) -> _Finding | None:
    """Return the finding if principal directions alone decide; `stds` ascend."""
    rank = len(stds)
    if rank < min(near.dim, near.n - 1):
        return _Finding("yes", f"the data vary in {rank} of {near.dim} directions only", rank)
    if near.dim == 1:
        return _Finding("no", "the data have one coordinate, and there are values all along it", 1)
    flat = flat_directions(stds)
    if not flat:
        return None
    thickness, next_ = float(stds[flat - 1]) * near.unit, float(stds[flat]) * near.unit
    told = f"in {flat} of {near.dim} directions the data have a std of {thickness:.2g} or less, in others {next_:.2g}"
    return _Finding("yes", f"{told} or more", rank - flat, thickness)


def _by_shape(
    near: Neighbourhoods, points: Tensor, stds: Tensor, dimension: Dimension, thorough: bool, seed: int
) -> _Finding:
    rank = len(stds)
    if near.n < ROWS * rank:
        return _wide(near, stds, dimension, seed)
    white = points / stds
    if found := _on_quadrics(white, seed):
        return found
    coarse = contrast(white, seed=seed)
    compared = coarse if coarse.is_manifold is not None else contrast(white, FINE, seed)
    if compared.is_manifold is not None:
        verdict: Verdict = "yes" if compared.is_manifold else "no"
        return _Finding(verdict, compared.told(), rank - 1 if compared.is_manifold else rank)
    if not thorough or rank > WIDEST:
        advice = "" if thorough else ": ask for a thorough diagnosis"
        return _Finding("undecided", f"{coarse.told()}, which leaves it open{advice}", rank)
    return _trained(white, coarse, seed)


def _wide(near: Neighbourhoods, stds: Tensor, dimension: Dimension, seed: int) -> _Finding:
    rank = len(stds)
    generator = torch.Generator().manual_seed(derive(seed, "box"))
    box = torch.rand(near.n, rank, generator=generator, dtype=torch.double) * stds
    few = near.first(min(near.k, dimension.votes[0].estimate.k))
    of_box = maximum_likelihood(Neighbourhoods(box, *nearest_others(box, few.k)), few.k).value
    value = dimension.votes[0].estimate
    full = min(of_box, *dimension.null.estimates)
    told = f"{value.k} neighbours give {value.value:.2f} where full laws of the same covariance give {full:.2f}"
    if value.high < LOW * full:
        return _Finding("yes", told, min(rank, dimension.high))
    return _Finding("undecided", f"{told}: {near.n} rows are too few for {rank} directions", rank)


def _on_quadrics(white: Tensor, seed: int) -> _Finding | None:
    generator = torch.Generator().manual_seed(derive(seed, "quadrics"))
    held, kept = white[torch.randperm(len(white), generator=generator)].tensor_split([len(white) // 5])
    if not enough_rows(len(kept), white.shape[1]):
        return None
    thickness = thinnest_quadrics(kept).thickness(held)
    thin = int((thickness < THIN).sum())
    if not thin:
        return None
    told = f"held-out rows fulfil an equation of degree 2 up to {float(thickness.min()):.1g} of their std"
    return _Finding("yes", told, max(1, white.shape[1] - 1))


def _trained(white: Tensor, coarse: Contrast, seed: int) -> _Finding:
    trained, rank = trained_ladder(white, seed), white.shape[1]
    low, high = trained.limit
    told = f"of {rank} dimensions a trained denoiser finds {max(0.0, (low + high) / 2):.2f} missing as noise goes to 0"
    if low > HALF:
        return _Finding("yes", told, rank - max(1, round((low + high) / 2)), trained=trained)
    like_full = coarse.value >= coarse.full - 3 * coarse.error
    if high < LITTLE and like_full:
        return _Finding("no", f"{told}, and {coarse.told()}", rank, trained=trained)
    return _Finding("undecided", f"{told}, and {coarse.told()}", rank, trained=trained)


def _thickness(ladder: Ladder) -> float | None:
    """Return the std of the noise of a thick manifold by the ladder of data that fill their space; None: not thick."""
    rungs = [rung for rung in ladder.resolved if rung.gaussian >= NEAR * ladder.dim]
    plateaus = [
        middle
        for first, middle, last in zip(rungs, rungs[1:], rungs[2:], strict=False)
        if first.dimension - last.dimension <= LEVEL * middle.dimension
        and middle.gaussian - middle.dimension >= HALF
        and 0 < round(middle.dimension) < ladder.dim
        and abs(middle.dimension - round(middle.dimension)) <= ROUND
    ]
    if not plateaus:
        return None
    lowest = plateaus[-1]
    halfway = (ladder.dim + lowest.dimension) / 2
    for before, after in pairwise(ladder.rungs):
        if before.dimension >= halfway > after.dimension and after.scale <= lowest.scale:
            share = (before.dimension - halfway) / (before.dimension - after.dimension)
            return before.scale * (after.scale / before.scale) ** share / HALFWAY
    return None
