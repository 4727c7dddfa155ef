"""Neighbours of the data beside those of laws that fill the space, and of laws that lack one dimension.

The estimate of dimension by k neighbours is held, after whitening, against samples of as many points of

    full     a cube, a ball, a mixture of Gaussians that share one covariance: the least of their estimates
    lacking  the sphere S^(D-1), a Gaussian in D - 1 dimensions: the largest of their estimates

Edges and clusters lower the estimate of a law that fills the space, and these are the laws with most of them. Whitening
changes no dimension, and takes flat but full data (ill-conditioned Gaussians) out of the question. Where the two are
far from each other, the data are placed between them: near `lacking` is a manifold, near `full` is none, and what is
between them depends on the scale. Up to D = 6 that decides; at higher D an estimate below both is a manifold, one above
both none, others are left open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from twostep.diagnosis.intrinsic_dimension import NEIGHBOURS, DimensionEstimate, maximum_likelihood
from twostep.diagnosis.neighbourhoods import Neighbourhoods, nearest_others
from twostep.seeds import derive

POINTS = 2000
DRAWS = 2
CLUSTERS = (1, 2, 4, 8, 16)
APART = 6.0  # stds between full and lacking from which on places between them are told
CLEAR = 4.0  # stds below or above both
MANIFOLD, NONE = 0.4, 0.7  # places from `lacking` (0) to `full` (1)


@dataclass(frozen=True)
class Contrast:
    """An estimate beside those of full laws and of laws that lack a dimension.

    Args:
        value: the estimate of the data.
        error: its standard error, that of the laws included.
        full: the least estimate of laws that fill the space.
        lacking: the largest estimate of laws of one dimension less.
        k: neighbours.
        dim: dimension of the space.
    """

    value: float
    error: float
    full: float
    lacking: float
    k: int
    dim: int

    @property
    def apart(self) -> bool:
        """Whether full laws are far enough from those that lack a dimension."""
        return self.full - self.lacking > APART * self.error

    @property
    def is_manifold(self) -> bool | None:
        """Whether the data lack a dimension; None where neighbours don't tell."""
        if self.apart:
            place = (self.value - self.lacking) / (self.full - self.lacking)
            return True if place <= MANIFOLD else False if place >= NONE else None
        if self.value < min(self.full, self.lacking) - CLEAR * self.error:
            return True
        return False if self.value > max(self.full, self.lacking) + CLEAR * self.error else None

    def told(self) -> str:
        """Return the figures in a sentence."""
        return (
            f"{self.k} neighbours give {self.value:.2f} (± {self.error:.2f}) where laws of {self.dim} dimensions give "
            f"{self.full:.2f} or more, and laws of {self.dim - 1} at most {self.lacking:.2f}"
        )


def contrast(points: Tensor, k: int = NEIGHBOURS, seed: int = 0) -> Contrast:
    """Compare whitened points `(n, D)`, D of 2 or more; of more than 2,000 a random part."""
    generator = torch.Generator().manual_seed(derive(seed, "contrast"))
    points = points[torch.randperm(len(points), generator=generator)[:POINTS]]
    found = _estimate(points, k)
    n, dim = points.shape
    full = min(_mean(law, k) for law in _full(points, generator, seed))
    lacking = max(_mean(law, k) for law in _lacking(n, dim, generator))
    error = (found.high - found.low) / 3.92 * math.sqrt(1 + 1 / DRAWS)
    return Contrast(found.value, error, full, lacking, k, dim)


def _full(points: Tensor, generator: Generator, seed: int) -> Iterator[list[Tensor]]:
    n, dim = points.shape
    yield [_uniform(n, dim, generator) for _ in range(DRAWS)]
    yield [_sphere(n, dim, generator) * _uniform(n, 1, generator) ** (1 / dim) for _ in range(DRAWS)]
    mixture = _clusters(points, seed)
    yield [torch.from_numpy(mixture.sample(n)[0]).to(points) for _ in range(DRAWS)]


def _lacking(n: int, dim: int, generator: Generator) -> Iterator[list[Tensor]]:
    yield [_sphere(n, dim, generator) for _ in range(DRAWS)]
    yield [_gaussian(n, dim - 1, generator) for _ in range(DRAWS)]


def _clusters(points: Tensor, seed: int) -> Any:
    """Return the mixture of Gaussians of one common covariance, which no curved manifold makes flat."""
    from sklearn.mixture import GaussianMixture  # here because it takes a second

    x, state = points.numpy(), derive(seed, "clusters") % 2**32
    fitted = [
        GaussianMixture(count, covariance_type="tied", random_state=state, max_iter=50, tol=1e-2).fit(x)
        for count in CLUSTERS
        if 10 * count <= len(x)
    ]
    return min(fitted, key=lambda mixture: mixture.bic(x))


def _mean(samples: list[Tensor], k: int) -> float:
    return sum(_estimate(sample, k).value for sample in samples) / len(samples)


def _estimate(points: Tensor, k: int) -> DimensionEstimate:
    return maximum_likelihood(Neighbourhoods(points, *nearest_others(points, k)), k)


def _gaussian(n: int, dim: int, generator: Generator) -> Tensor:
    return torch.randn(n, dim, generator=generator, dtype=torch.double)


def _uniform(n: int, dim: int, generator: Generator) -> Tensor:
    return torch.rand(n, dim, generator=generator, dtype=torch.double)


def _sphere(n: int, dim: int, generator: Generator) -> Tensor:
    return normalize(_gaussian(n, dim, generator), dim=1)
