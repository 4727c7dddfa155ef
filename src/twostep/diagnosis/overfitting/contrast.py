"""An estimate of dimension compared with full-dimensional distributions, and with one that lacks a dimension.

The estimate of dimension by k neighbours of whitened, tamed points is compared with those of as many points of

    full      the lowest of the `fitted_distributions`: what the data would have if they were like it
    reduced   a sample of that distribution without one of its dimensions
    lowest    the lowest of `full` and of `other_distributions`

Clusters, edges and tails lower an estimate as a missing dimension does, and `reduced` and `full` have the same. Near
`full` the data can't be distinguished from a full-dimensional distribution. On a manifold they must be near `reduced`
and clearly below `lowest`, since no fitted distribution has all properties of the data; in more than six dimensions,
where a missing one changes an estimate little, far below `lowest`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.estimate import Estimate
from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, likelihood, maximum_likelihood
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods
from twostep.diagnosis.dimension.reference_distributions import Draw, fitted_distributions, other_distributions, tamed

POINTS = 3000
DRAWS = 2
FEW = 6  # dimensions
CLEAR = 4.0  # standard errors
REDUCED, FULL = 0.25, 0.88  # positions between a distribution without one dimension (0) and the same distribution (1)
FAR = 0.75  # of the lowest estimate


@dataclass(frozen=True)
class Contrast:
    """An estimate by k neighbours in `dim` dimensions, beside those of the `distribution` with that name and others."""

    estimate: Estimate
    full: float
    reduced: float
    lowest: float
    distribution: str
    k: int
    dim: int

    @property
    def position(self) -> float:
        """Position of the data between `reduced` (0) and `full` (1)."""
        return (self.estimate.value - self.reduced) / max(self.full - self.reduced, self.estimate.standard_error)

    @property
    def is_manifold(self) -> bool | None:
        """Whether the data lack a dimension; None where neighbours can't decide."""
        if self.position >= FULL:
            return False
        value, error = self.estimate.value, self.estimate.standard_error
        if self.dim <= FEW:
            return True if self.position <= REDUCED and value < self.lowest - CLEAR * error else None
        return True if value < FAR * self.lowest else None

    def sentence(self) -> str:
        """Return the numbers in a sentence."""
        value, error = self.estimate.value, self.estimate.standard_error
        return (
            f"{self.k} neighbours estimate {value:.2f} dimensions (± {error:.2f}), {self.full:.2f} for "
            f"{self.distribution} in {self.dim} dimensions and {self.reduced:.2f} without one of them"
        )


def contrast(points: Tensor, k: int = NEIGHBOURS, seed: int = 0) -> Contrast:
    """Compare whitened points `(n, D)`, D of 2 or more; of more than 3,000 a random subsample."""
    generator = torch.Generator().manual_seed(derive(seed, "contrast"))
    points = points[torch.randperm(len(points), generator=generator)[:POINTS]]

    def mean(draw: Draw) -> float:
        return sum(float(likelihood(Neighbourhoods.of(draw(generator), k), k)) for _ in range(DRAWS)) / DRAWS

    fitted = [(mean(reference.draw), reference) for reference in fitted_distributions(points, seed)]
    full, reference = min(fitted, key=lambda pair: pair[0])
    reduced = mean(lambda generator: reference.without(reference.draw(generator)))
    lowest = min(full, *(mean(draw) for draw in other_distributions(points, seed)))
    found = maximum_likelihood(Neighbourhoods.of(tamed(points), k), k, seed)
    estimate = Estimate.normal(found.value, found.standard_error * math.sqrt(1 + 1 / DRAWS))
    return Contrast(estimate, full, reduced, lowest, reference.name, k, points.shape[1])
