"""Manifold overfitting: is the likelihood of a density fitted well to these data unbounded?

*yes*: the data lie on or very near a manifold of fewer dimensions than they have coordinates, and the likelihood of a
density can grow without bound by concentrating on it, whatever its distribution along the manifold. *no*: the data fill
their space as far as their number can show. *undecided*: this many points can't decide. The evidence, in this order:

1. the linear rank, and flat directions with a std below 1/200 of the next one (a thickness, which is reported);
2. where fewer than 20 rows for each direction forbid whitening: an estimate by neighbours below 0.7 of that of
   full-dimensional distributions of the same covariance; other data stay undecided;
3. quadrics that held-out rows satisfy (`quadrics`), unless neighbours show that the data are merely clustered;
4. neighbours of the whitened data compared with distributions of D and of D - 1 dimensions (`contrast`), in few
   dimensions also with fewer neighbours. They say no only where rows were enough to look for quadrics, and where no
   column repeats one value as the surface of a cube does;
5. if asked for, a trained denoiser (`denoiser`). It says yes for half a missing dimension or more. Its no counts if
   neighbours too find the data like a full-dimensional distribution, because a network can miss a manifold.

With a thickness, of a thick manifold or of flat directions, the verdict is that below this scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.consensus import Dimension
from twostep.diagnosis.dimension.distinct_rows import flat_directions, heaped_column, is_coarse
from twostep.diagnosis.dimension.estimators import likelihood
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods
from twostep.diagnosis.dimension.reference_distributions import tamed, uniform
from twostep.diagnosis.overfitting.contrast import FEW, Contrast, contrast
from twostep.diagnosis.overfitting.denoiser import MissingDimensions, missing_dimensions
from twostep.diagnosis.overfitting.noise_scales import NoiseScaleCurve, thickness_of
from twostep.diagnosis.overfitting.quadrics import enough_rows, thinnest_quadrics

Verdict = Literal["yes", "no", "undecided"]

WIDEST = 60  # directions that a denoiser is trained in
LOW = 0.7  # of the estimate for a distribution of the same covariance
ROWS = 20  # for each direction, to whiten
THIN_GAP = 200.0  # std of a direction over that of the next flatter one
THIN = 0.02  # stds of the data
FINE = 5  # neighbours
HALF = 0.5  # missing dimensions
LITTLE = 0.35  # missing dimensions
HELD_OUT = 5  # one in so many rows
LIKE = 0.75  # position between a distribution without one dimension and the same distribution


@dataclass(frozen=True)
class Overfitting:
    """The verdict on whether a density fitted to these data has an unbounded likelihood, and the evidence, a sentence.

    `at_most` is the largest dimension that the evidence allows. In units of the data: `scales`, the smallest and the
    largest noise scale at which the manifold shows, and `thickness`, the std of the noise across a thick one. `trained`
    has the missing dimensions by a trained denoiser, if it was asked for and needed.
    """

    verdict: Verdict
    evidence: str
    at_most: int
    scales: tuple[float, float] | None = None
    thickness: float | None = None
    trained: MissingDimensions | None = None

    def line(self) -> str:
        """Return the verdict, with the scale where it depends on one."""
        if self.thickness is None:
            return self.verdict
        if self.verdict == "yes":
            return f"yes (above a scale of {self.thickness:.2g}; below it they fill their space)"
        return f"{self.verdict} (below a scale of {self.thickness:.2g}; yes above it)"


def overfitting(
    near: Neighbourhoods, dimension: Dimension, curve: NoiseScaleCurve, thorough: bool, seed: int
) -> Overfitting:
    """Decide for points with 20 neighbours or more, whose dimension and curve without flat directions are known."""
    found = _from_directions(near) or _from_shape(near, dimension, thorough, seed)
    if found.verdict == "yes":
        return replace(found, scales=curve.range_of(min(dimension.recommended, found.at_most)))
    if near.flat:
        return replace(found, thickness=float(near.principal[1][near.flat - 1]) * near.unit)
    return replace(found, thickness=thickness_of(curve)) if found.verdict == "no" else found


def _from_directions(near: Neighbourhoods) -> Overfitting | None:
    """Return the verdict if principal directions alone decide."""
    stds = near.principal[1]
    rank = len(stds)
    if rank < min(near.dim, near.n - 1):
        evidence = f"the data vary in {rank} of {near.dim} directions"
        if is_coarse(near.points, near.rounding):
            return Overfitting("undecided", f"{evidence}, and rounding hides their variation in the others", rank)
        return Overfitting("yes", f"{evidence} only", rank)
    if near.dim == 1:
        return Overfitting("no", "the data have one coordinate, and there are values all along it", 1)
    flat = flat_directions(stds, THIN_GAP)
    if not flat:
        return None
    thickness, wide = float(stds[flat - 1]) * near.unit, float(stds[flat]) * near.unit
    evidence = f"in {flat} of {near.dim} directions the data have a std of {thickness:.2g} or less, "
    evidence += f"in the others {wide:.2g} or more"
    return Overfitting("yes", evidence, rank - flat, thickness=thickness)


def _from_shape(near: Neighbourhoods, dimension: Dimension, thorough: bool, seed: int) -> Overfitting:
    points, stds = near.principal
    rank = len(stds)
    if near.n < ROWS * rank:
        return _from_few_rows(near, stds, dimension, seed)
    white = points / stds
    coarse = contrast(white, seed=seed)
    few = rank <= FEW
    if not (few and coarse.is_manifold is False) and (found := _from_quadrics(white, seed)):
        return found
    compared = contrast(white, FINE, seed) if few and coarse.is_manifold is None else coarse
    if compared.is_manifold is False and (column := heaped_column(near.points)):
        evidence = f"{compared.sentence()}, but column {column} repeats one value in many rows, so some may be flat"
        return Overfitting("undecided", evidence, rank)
    blind = compared.is_manifold is False and not enough_rows(near.n - near.n // HELD_OUT, rank)
    if compared.is_manifold is not None and not blind:
        verdict: Verdict = "yes" if compared.is_manifold else "no"
        return Overfitting(verdict, compared.sentence(), rank - 1 if compared.is_manifold else rank)
    if not thorough or rank > WIDEST:
        advice = "" if thorough or rank > WIDEST else ": use --thorough (thorough=True)"
        why = f"and {near.n:,} rows are too few to look for quadrics" if blind else "which decides nothing"
        return Overfitting("undecided", f"{coarse.sentence()}, {why}{advice}", rank)
    return _from_denoiser(white, coarse, seed)


def _from_few_rows(near: Neighbourhoods, stds: Tensor, dimension: Dimension, seed: int) -> Overfitting:
    rank = len(stds)
    generator = torch.Generator().manual_seed(derive(seed, "box"))
    box = uniform(near.n, rank - near.flat, generator) * stds[near.flat :]
    found = dimension.votes[0].estimate
    of_box = float(likelihood(Neighbourhoods.of(box, found.k), found.k))
    full = min(of_box, *dimension.reference.estimates)
    evidence = f"{found.k} neighbours estimate {found.value:.2f} dimensions, and {full:.2f} for full-dimensional "
    evidence += "distributions of the same covariance"
    if found.high < LOW * full:
        return Overfitting("yes", evidence, min(rank, dimension.high))
    return Overfitting("undecided", f"{evidence}: {near.n} rows are too few for {rank} directions", rank)


def _from_quadrics(white: Tensor, seed: int) -> Overfitting | None:
    generator = torch.Generator().manual_seed(derive(seed, "quadrics"))
    held, kept = white[torch.randperm(len(white), generator=generator)].tensor_split([len(white) // HELD_OUT])
    if not enough_rows(len(kept), white.shape[1]):
        return None
    thickness = float(thinnest_quadrics(kept).thickness(held).min())
    if thickness >= THIN:
        return None
    evidence = f"held-out rows satisfy an equation of degree 2 up to {thickness:.1g} of their std"
    return Overfitting("yes", evidence, max(1, white.shape[1] - 1))


def _from_denoiser(white: Tensor, coarse: Contrast, seed: int) -> Overfitting:
    trained, rank = missing_dimensions(tamed(white), seed), white.shape[1]
    limit = trained.limit
    evidence = (
        f"a trained denoiser finds {max(0.0, limit.value):.2f} of {rank} dimensions missing as the noise goes to 0"
    )
    if limit.low > HALF:
        return Overfitting("yes", evidence, rank - max(1, round(limit.value)), trained=trained)
    verdict = "no" if limit.high < LITTLE and coarse.position >= LIKE else "undecided"
    return Overfitting(verdict, f"{evidence}, and {coarse.sentence()}", rank, trained=trained)
