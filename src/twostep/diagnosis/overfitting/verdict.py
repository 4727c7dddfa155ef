"""Manifold overfitting: has a density that is fitted well to these data a bound?

*yes*: the data lie on or very near a manifold of fewer dimensions than they have coordinates, and the likelihood of a
density can grow without end by hugging it, whatever it says of the law on it. *no*: they fill their space as far as
their number can show. *undecided*: this many points can't tell. Witnesses, in this order:

1. the linear rank, and flat directions whose spread is less than 1/200 of the next one (a thickness, which is told);
2. where fewer than 20 rows for each direction forbid whitening: an estimate by neighbours below 0.7 of what full laws
   of the same covariance give, a Gaussian or a mixture and a box; other data stay undecided;
3. quadrics that held-out rows fulfil (`quadrics`), unless neighbours see that clusters are all there is to it;
4. neighbours of the whitened data beside laws of D and of D - 1 dimensions (`contrast`), in few dimensions also with
   fewer neighbours, since the dimension may depend on the scale. They say no only where rows were enough to look for
   quadrics, and where no column repeats one value as the surface of a cube does: from afar that looks like the cube;
5. if asked for, a trained noise ladder (`denoiser`). It says yes by half a missing dimension or more. Its no counts if
   neighbours too find the data like a law that fills the space, because a network can miss a manifold.

Where the points resolve the thickness of a manifold, or some directions are a twelfth as wide as the others or less,
the verdict is that below this scale, and the scale is told (`thickness`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.consensus import Dimension
from twostep.diagnosis.dimension.estimators import likelihood_value
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, nearest_others
from twostep.diagnosis.dimension.points import flat_directions, heaped_column, is_coarse
from twostep.diagnosis.overfitting.contrast import FEW, Contrast, contrast
from twostep.diagnosis.overfitting.denoiser import TrainedLadder, trained_ladder
from twostep.diagnosis.overfitting.noise_scales import Ladder
from twostep.diagnosis.overfitting.quadrics import enough_rows, thinnest_quadrics
from twostep.diagnosis.overfitting.reference_distributions import tamed
from twostep.diagnosis.overfitting.thickness import thickness_of

Verdict = Literal["yes", "no", "undecided"]

WIDEST = 60  # directions of a denoiser
LOW = 0.7  # of the estimate for a law of the same covariance
ROWS = 20  # for each direction, to whiten
THIN_GAP = 200.0  # std of a direction over that of the next flatter one
THIN = 0.02  # stds of the data
FINE = 5  # neighbours
HALF = 0.5  # dimensions
LITTLE = 0.35
HELD_OUT = 5  # of so many rows one
LIKE = 0.75  # place between a law without one dimension and itself


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
            return f"yes (above a scale of {self.thickness:.2g}; below it they fill their space)"
        return f"{self.verdict} (below a scale of {self.thickness:.2g}; yes above it)"


def overfitting(
    near: Neighbourhoods, dimension: Dimension, ladder: Ladder, thorough: bool = False, seed: int = 0
) -> Overfitting:
    """Judge the points, whose dimension and noise ladder are known.

    Args:
        near: the points with 20 neighbours or more.
        dimension: of the points without their flat directions, if there are any.
        ladder: of the same.
        thorough: whether to train a denoiser where all else leaves it undecided.
        seed: of all that is drawn.
    """
    points, stds = near.principal
    found = _flat(near, stds) or _by_shape(near, points, stds, dimension, thorough, seed)
    if found.verdict == "yes":
        return replace(found, scales=ladder.scales_of(min(dimension.recommended, found.at_most)))
    if near.flat:
        return replace(found, thickness=float(stds[near.flat - 1]) * near.unit)
    return replace(found, thickness=thickness_of(ladder)) if found.verdict == "no" else found


def _flat(near: Neighbourhoods, stds: Tensor) -> Overfitting | None:
    """Return the finding if principal directions alone decide; `stds` ascend."""
    rank = len(stds)
    if rank < min(near.dim, near.n - 1):
        told = f"the data vary in {rank} of {near.dim} directions"
        if is_coarse(near.points, near.rounding):
            return Overfitting("undecided", f"{told}, and rounding hides what they do in others", rank)
        return Overfitting("yes", f"{told} only", rank)
    if near.dim == 1:
        return Overfitting("no", "the data have one coordinate, and there are values all along it", 1)
    flat = flat_directions(stds, THIN_GAP)
    if not flat:
        return None
    thickness, next_ = float(stds[flat - 1]) * near.unit, float(stds[flat]) * near.unit
    told = f"in {flat} of {near.dim} directions the data have a std of {thickness:.2g} or less, in others {next_:.2g}"
    return Overfitting("yes", f"{told} or more", rank - flat, thickness=thickness)


def _by_shape(
    near: Neighbourhoods, points: Tensor, stds: Tensor, dimension: Dimension, thorough: bool, seed: int
) -> Overfitting:
    rank = len(stds)
    if near.n < ROWS * rank:
        return _wide(near, stds, dimension, seed)
    white = points / stds
    coarse = contrast(white, seed=seed)
    few = rank <= FEW
    if not (few and coarse.is_manifold is False) and (found := _on_quadrics(white, seed)):
        return found
    compared = contrast(white, FINE, seed) if few and coarse.is_manifold is None else coarse
    if compared.is_manifold is False and (column := heaped_column(near.points)):
        told = f"{compared.told()}, but column {column} repeats one value in many rows, so a part of them may be flat"
        return Overfitting("undecided", told, rank)
    blind = compared.is_manifold is False and not enough_rows(_kept(near.n), rank)
    if compared.is_manifold is not None and not blind:
        verdict: Verdict = "yes" if compared.is_manifold else "no"
        return Overfitting(verdict, compared.told(), rank - 1 if compared.is_manifold else rank)
    if not thorough or rank > WIDEST:
        advice = "" if thorough or rank > WIDEST else ": ask for a thorough diagnosis"
        why = f"and {near.n:,} rows are too few to look for quadrics" if blind else "which leaves it open"
        return Overfitting("undecided", f"{coarse.told()}, {why}{advice}", rank)
    return _trained(white, coarse, seed)


def _wide(near: Neighbourhoods, stds: Tensor, dimension: Dimension, seed: int) -> Overfitting:
    rank = len(stds)
    generator = torch.Generator().manual_seed(derive(seed, "box"))
    box = torch.rand(near.n, rank - near.flat, generator=generator, dtype=torch.double) * stds[near.flat :]
    value = dimension.votes[0].estimate
    of_box = likelihood_value(Neighbourhoods(box, *nearest_others(box, value.k)), value.k)
    full = min(of_box, *dimension.null.estimates)
    told = f"{value.k} neighbours give {value.value:.2f} where full laws of the same covariance give {full:.2f}"
    if value.high < LOW * full:
        return Overfitting("yes", told, min(rank, dimension.high))
    return Overfitting("undecided", f"{told}: {near.n} rows are too few for {rank} directions", rank)


def _kept(n: int) -> int:
    """Return how many of n rows quadrics are fitted to; they are measured on the others."""
    return n - n // HELD_OUT


def _on_quadrics(white: Tensor, seed: int) -> Overfitting | None:
    generator = torch.Generator().manual_seed(derive(seed, "quadrics"))
    held, kept = white[torch.randperm(len(white), generator=generator)].tensor_split([len(white) - _kept(len(white))])
    if not enough_rows(len(kept), white.shape[1]):
        return None
    thickness = thinnest_quadrics(kept).thickness(held)
    thin = int((thickness < THIN).sum())
    if not thin:
        return None
    told = f"held-out rows fulfil an equation of degree 2 up to {float(thickness.min()):.1g} of their std"
    return Overfitting("yes", told, max(1, white.shape[1] - 1))


def _trained(white: Tensor, coarse: Contrast, seed: int) -> Overfitting:
    trained, rank = trained_ladder(tamed(white), seed), white.shape[1]
    low, high = trained.limit
    told = f"of {rank} dimensions a trained denoiser finds {max(0.0, (low + high) / 2):.2f} missing as noise goes to 0"
    if low > HALF:
        return Overfitting("yes", told, rank - max(1, round((low + high) / 2)), trained=trained)
    if high < LITTLE and coarse.place >= LIKE:
        return Overfitting("no", f"{told}, and {coarse.told()}", rank, trained=trained)
    return Overfitting("undecided", f"{told}, and {coarse.told()}", rank, trained=trained)
