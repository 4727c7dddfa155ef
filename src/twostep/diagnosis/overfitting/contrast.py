"""Neighbours of the data beside those of laws that fill the space, and of a law that lacks one dimension.

The estimate of dimension by k neighbours of whitened, tamed points is held against those of as many points of

    full      the law of `full_laws` that gives the least: what the data would give if they were like it
    lacking   a sample of that law without one of its dimensions
    least     the least of `full`, a cube, a ball, and laws that come nearer to a manifold (`flatter_laws`)

Clusters, edges and tails lower an estimate as a missing dimension does, so the data are placed between `lacking` (0)
and `full` (1), which have the same. Near 1 nothing tells them from a law that fills the space. Near 0 does not suffice
for a manifold, since no law that is fitted has all that the data have: they must be clearly below `least` too. In more
than six dimensions a missing one changes an estimate as little as what fitted laws lack. There only data far below
`least` are a manifold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, likelihood_value, maximum_likelihood
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, nearest_others
from twostep.diagnosis.overfitting.reference_distributions import fitted_laws, flatter_laws, tamed

POINTS = 3000
DRAWS = 2
FEW = 6  # dimensions
CLEAR = 4.0  # stds
LACKING, FILLED = 0.25, 0.88  # places between a law without one dimension (0) and the same law (1)
FAR = 0.75  # of the least estimate


@dataclass(frozen=True)
class Contrast:
    """An estimate beside those of full laws and of laws that lack a dimension.

    Args:
        value: the estimate of the data.
        error: its standard error, that of the laws included.
        full: the least estimate of laws that are fitted and fill the space.
        lacking: of the same law without one dimension.
        least: the least estimate of any law that fills the space.
        law: the law that `full` is of.
        k: neighbours.
        dim: dimension D of the space.
    """

    value: float
    error: float
    full: float
    lacking: float
    least: float
    law: str
    k: int
    dim: int

    @property
    def place(self) -> float:
        """Where the data are between a law without one dimension (0) and the same law (1)."""
        return (self.value - self.lacking) / max(self.full - self.lacking, self.error)

    @property
    def is_manifold(self) -> bool | None:
        """Whether the data lack a dimension; None where neighbours don't tell."""
        if self.place >= FILLED:
            return False
        if self.dim <= FEW:
            return True if self.place <= LACKING and self.value < self.least - CLEAR * self.error else None
        return True if self.value < FAR * self.least else None

    def told(self) -> str:
        """Return the figures in a sentence."""
        return (
            f"{self.k} neighbours give {self.value:.2f} (± {self.error:.2f}) where {self.law} in {self.dim} dimensions "
            f"give {self.full:.2f}, and {self.lacking:.2f} without one of them"
        )


def contrast(points: Tensor, k: int = NEIGHBOURS, seed: int = 0) -> Contrast:
    """Compare whitened points `(n, D)`, D of 2 or more; of more than 3,000 a random part."""
    generator = torch.Generator().manual_seed(derive(seed, "contrast"))
    points = points[torch.randperm(len(points), generator=generator)[:POINTS]]
    n, dim = points.shape

    def mean(draw: Callable[[], Tensor]) -> float:
        return sum(_value(draw(), k) for _ in range(DRAWS)) / DRAWS

    laws = list(fitted_laws(points, seed))
    estimates = [mean(lambda law=law: law.draw(generator)) for law in laws]
    full, law = min(zip(estimates, laws, strict=True), key=lambda pair: pair[0])
    lacking = mean(lambda: law.without(law.draw(generator)))
    edged = min(mean(lambda: _uniform(n, dim, generator)), mean(lambda: _ball(n, dim, generator)))
    flatter = min(mean(lambda draw=draw: draw(generator)) for draw in flatter_laws(points, seed))
    found = maximum_likelihood(_near(tamed(points), k), k, seed)
    error = (found.high - found.low) / 3.92 * math.sqrt(1 + 1 / DRAWS)
    return Contrast(found.value, error, full, lacking, min(full, edged, flatter), law.name, k, dim)


def _value(points: Tensor, k: int) -> float:
    return likelihood_value(_near(points, k), k)


def _near(points: Tensor, k: int) -> Neighbourhoods:
    return Neighbourhoods(points, *nearest_others(points, k))


def _uniform(n: int, dim: int, generator: Generator) -> Tensor:
    return torch.rand(n, dim, generator=generator, dtype=torch.double)


def _ball(n: int, dim: int, generator: Generator) -> Tensor:
    directions = normalize(torch.randn(n, dim, generator=generator, dtype=torch.double), dim=1)
    return directions * _uniform(n, 1, generator) ** (1 / dim)
