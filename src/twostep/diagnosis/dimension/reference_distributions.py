"""Full-dimensional reference distributions, fitted to whitened points: what these would look like without a manifold.

    clusters       a mixture of Gaussians that share one covariance, which no curved manifold makes flat
    components     independent components (FastICA), each shuffled on its own: has the edges and tails of the data
    isotropic      the data's distances to their mean, in uniformly random directions

A sample of each can be reduced by one dimension. Heavy tails widen every estimate until nothing can be decided. `tamed`
points are x → x c asinh(r/c)/r, r = ‖x‖, whitened again, with the largest c at which r² varies about as much as a
Gaussian's: a smooth map with a smooth inverse, so it moves no point on or off a manifold.

Source: Fast and robust fixed-point algorithms for independent component analysis (Hyvärinen, 1999).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from twostep.core.moments import gaussian_mixture
from twostep.core.seeds import derive

SHARED = (1, 2, 4, 8, 16)  # Gaussians that share a covariance
SHAPED = (1, 2, 4, 8)  # Gaussians with a covariance each
SHARED_ROWS = 10  # for each Gaussian that shares a covariance
SHAPED_ROWS = 5  # for each coordinate of a Gaussian with its own covariance
HEAVY = 1.05  # E r⁴ / (E r²)² over that of a Gaussian
HALVINGS = 50
THICK = 0.5  # std of the radii over a ball's: those of a sphere give no full-dimensional sample

Draw = Callable[[Generator], Tensor]
"""Draws a sample, `(n, D)`."""


@dataclass(frozen=True)
class ReferenceDistribution:
    """A full-dimensional distribution with a name in the plural; `without` removes one dimension from a sample."""

    name: str
    draw: Draw
    without: Callable[[Tensor], Tensor]


class Mixture(NamedTuple):
    """Gaussians of `weights: (K,)`, `means: (K, D)` and lower triangular `factors: (K, D, D)` of their covariances."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def fit(cls, points: Tensor, kind: Literal["tied", "full"], seed: int) -> Mixture:
        """Fit mixtures whose Gaussians share a covariance (`tied`) or have one each (`full`), and take the best."""
        counts, rows = (SHARED, SHARED_ROWS) if kind == "tied" else (SHAPED, SHAPED_ROWS * points.shape[1])
        counts = [count for count in counts if count == 1 or rows * count <= len(points)]
        weights, means, found = gaussian_mixture(points, counts, derive(seed, "clusters"), kind, max_iter=50, tol=1e-2)
        return cls(weights, means, torch.linalg.cholesky(found.expand(len(means), -1, -1)))

    def place(self, noise: Tensor, components: Tensor) -> Tensor:
        """Map standard normal noise `(n, D)` to points of these components `(n,)`."""
        points = noise.clone()
        for component, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            rows = components == component
            points[rows] = mean + noise[rows] @ factor.T
        return points

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n, D)` points."""
        components = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.place(noise, components)


def fitted_distributions(points: Tensor, seed: int) -> Iterator[ReferenceDistribution]:
    """Fit distributions to whitened points `(n, D)`; they draw tamed samples of as many points."""
    calm = tamed(points)
    yield _clusters(calm, seed)
    dim, radii = points.shape[1], points.norm(dim=1, keepdim=True)
    if float(radii.std() / radii.mean()) > THICK / (dim * (dim + 2)) ** 0.5:
        yield ReferenceDistribution(
            "isotropic distributions",
            lambda generator: tamed(directions(len(points), dim, generator) * radii),
            _without_last,
        )
    yield _components(calm, "logcosh", seed)
    yield _components(calm, "cube", seed)


def other_distributions(points: Tensor, seed: int) -> Iterator[Draw]:
    """Yield a cube, a ball, and fitted ones closer to a manifold than the others, whose estimates may be too low."""
    n, dim = points.shape
    yield lambda generator: uniform(n, dim, generator)
    yield lambda generator: directions(n, dim, generator) * uniform(n, 1, generator) ** (1 / dim)
    calm = tamed(points)
    mixture = Mixture.fit(calm, "full", seed)
    yield lambda generator: mixture.draw(n, generator)
    if calm is not points:
        yield _components(points, "logcosh", seed).draw


def uniform(n: int, dim: int, generator: Generator) -> Tensor:
    """Draw `(n, dim)` points of the unit cube."""
    return torch.rand(n, dim, generator=generator, dtype=torch.double)


def directions(n: int, dim: int, generator: Generator) -> Tensor:
    """Draw `(n, dim)` uniformly random unit vectors."""
    return normalize(torch.randn(n, dim, generator=generator, dtype=torch.double), dim=1)


def tamed(points: Tensor) -> Tensor:
    """Draw in those tails of whitened points `(n, D)` that are heavier than a Gaussian's; others are unchanged."""
    dim, radii = points.shape[1], points.norm(dim=1, keepdim=True)
    limit = HEAVY * (dim + 2) / dim

    def heavy(c: float) -> bool:
        squares = (c * (radii / c).asinh()).square()
        return float(squares.square().mean() / squares.mean() ** 2) > limit

    low, high = 1e-6 * float(radii.median()), 1e3 * float(radii.max())
    if high == 0 or not heavy(high):
        return points
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if heavy(middle) else (middle, high)
    return whitened(points * (low * (radii / low).asinh() / radii.clamp(min=1e-30)))


def whitened(points: Tensor) -> Tensor:
    """Map points `(n, D)` linearly so that their mean is 0 and their covariance the identity."""
    centred = points - points.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(points))
    return centred @ directions / variances.sqrt()


def _clusters(points: Tensor, seed: int) -> ReferenceDistribution:
    found = Mixture.fit(points, "tied", seed)
    factor, means = found.factors[0], found.means
    centres = torch.linalg.solve_triangular(factor, (means - found.weights @ means).T, upper=False)
    between = (centres * found.weights) @ centres.T
    across = torch.linalg.eigh(between).eigenvectors[:, :1]  # the direction in which clusters differ least
    projection = torch.linalg.solve_triangular(factor.T, across, upper=True) @ (factor @ across).T

    def without(sample: Tensor) -> Tensor:
        return sample - sample @ projection

    return ReferenceDistribution("clusters of one shape", lambda generator: found.draw(len(points), generator), without)


def _components(points: Tensor, contrast: Literal["logcosh", "cube"], seed: int) -> ReferenceDistribution:
    from sklearn.decomposition import FastICA  # imported here because it takes a second
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a Gaussian has no such components, and any will do
        keys: dict[str, Any] = {"whiten": False, "fun": contrast, "max_iter": 200}  # points are white
        model = FastICA(random_state=derive(seed, "sources") % 2**32, **keys)
        sources = torch.from_numpy(model.fit_transform(points.numpy())).to(points)
    sources = sources[:, (sources.pow(4).mean(0) - 3).abs().argsort(descending=True)]  # keeps what separates clusters

    def draw(generator: Generator) -> Tensor:
        orders = (torch.randperm(len(sources), generator=generator) for _ in sources.T)
        return tamed(torch.stack([column[order] for column, order in zip(sources.T, orders, strict=True)], 1))

    return ReferenceDistribution("independent components", draw, _without_last)


def _without_last(sample: Tensor) -> Tensor:
    return sample[:, :-1]
