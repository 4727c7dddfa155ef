"""Laws that fill their space, fitted to whitened points: what these would look like if they lay on no manifold.

    clusters       a mixture of Gaussians that share one covariance, which no curved manifold makes flat
    components     independent components (FastICA), each shuffled by itself: has the edges and tails of the data
    shells         the data's distances to their mean, in directions of their own: alike in all directions

Each can be asked for a sample without one of its dimensions. Where an estimate of dimension is as high as that of a law
which fits, the data are like that law; it is as high as one without a dimension if they lack one.

Heavy tails widen every estimate until nothing can be told. `tamed` points are x → x c asinh(r/c)/r, r = ‖x‖, whitened
anew, with the largest c at which r² varies about as much as a Gaussian's. The map is smooth and has a smooth inverse:
it moves no point on or off a manifold.

Sources: Fast and robust fixed-point algorithms for independent component analysis (Hyvärinen, 1999).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from twostep.core.seeds import derive

SHARED = (1, 2, 4, 8, 16)  # Gaussians that share a covariance
SHAPED = (1, 2, 4, 8)
ROWS = 5  # for each coordinate of a Gaussian of its own shape
HEAVY = 1.05  # E r⁴ / (E r²)² over that of a Gaussian
HALVINGS = 50


@dataclass(frozen=True)
class FullLaw:
    """A law that fills its space.

    Args:
        name: of it, in the plural, for a sentence.
        draw: makes a sample `(n, D)`.
        without: takes a dimension from a sample.
    """

    name: str
    draw: Callable[[Generator], Tensor]
    without: Callable[[Tensor], Tensor]


def fitted_laws(points: Tensor, seed: int) -> Iterator[FullLaw]:
    """Fit laws to whitened points `(n, D)`, and draw tamed samples of as many points."""
    calm = tamed(points)
    yield _clusters(calm, seed)
    if _thick(points.norm(dim=1), points.shape[1]):
        yield _shells(points)
    yield _components(calm, "logcosh", seed)
    yield _components(calm, "cube", seed)


def flatter_laws(points: Tensor, seed: int) -> Iterator[Callable[[Generator], Tensor]]:
    """Fit laws that come nearer to a manifold than others; of a heavy tail, too, their estimates may be too low."""
    calm = tamed(points)
    yield _mixture(calm, "full", seed).draw
    if calm is not points:
        yield _components(points, "logcosh", seed).draw


def tamed(points: Tensor) -> Tensor:
    """Draw in the tails of whitened points `(n, D)` that are heavier than a Gaussian's; others stay as they are."""
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
    """Centre points `(n, D)` and turn them so that their covariance is the identity."""
    centred = points - points.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(points))
    return centred @ directions / variances.sqrt()


@dataclass(frozen=True)
class _Mixture:
    """Gaussians of `weights: (K,)`, `means: (K, D)` and lower triangular `factors: (K, D, D)` of their covariances."""

    weights: Tensor
    means: Tensor
    factors: Tensor
    n: int

    def draw(self, generator: Generator) -> Tensor:
        kinds = torch.multinomial(self.weights, self.n, replacement=True, generator=generator)
        points = torch.randn(self.n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        for kind, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            points[kinds == kind] = mean + points[kinds == kind] @ factor.T
        return points


def _mixture(points: Tensor, kind: Literal["tied", "full"], seed: int) -> _Mixture:
    """Fit the mixture of least BIC, whose Gaussians share a covariance (`tied`) or have one each (`full`)."""
    from sklearn.mixture import GaussianMixture  # here because it takes a second

    counts, rows = (SHARED, 10) if kind == "tied" else (SHAPED, ROWS * points.shape[1])
    state, x = derive(seed, "clusters") % 2**32, points.numpy()
    fitted = [
        GaussianMixture(count, covariance_type=kind, random_state=state, max_iter=50, tol=1e-2).fit(x)
        for count in counts
        if count == 1 or rows * count <= len(x)
    ]
    best: Any = min(fitted, key=lambda mixture: mixture.bic(x))
    weights, means, covariances = (
        torch.from_numpy(part).to(points) for part in (best.weights_, best.means_, best.covariances_)
    )
    factors = torch.linalg.cholesky(covariances.expand(len(means), -1, -1))
    return _Mixture(weights, means, factors, len(points))


def _clusters(points: Tensor, seed: int) -> FullLaw:
    found = _mixture(points, "tied", seed)
    factor, means = found.factors[0], found.means
    centres = torch.linalg.solve_triangular(factor, (means - found.weights @ means).T, upper=False)
    spread = (centres * found.weights) @ centres.T
    across = torch.linalg.eigh(spread).eigenvectors[:, :1]  # where clusters differ least
    projection = torch.linalg.solve_triangular(factor.T, across, upper=True) @ (factor @ across).T

    def without(sample: Tensor) -> Tensor:
        return sample - sample @ projection

    return FullLaw("clusters of one shape", found.draw, without)


def _components(points: Tensor, contrast: Literal["logcosh", "cube"], seed: int) -> FullLaw:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a Gaussian has no such components, and any will do
        keys: dict[str, Any] = {"whiten": False, "fun": contrast, "max_iter": 200}  # points are white
        model = FastICA(random_state=derive(seed, "sources") % 2**32, **keys)
        sources = torch.from_numpy(model.fit_transform(points.numpy())).to(points)
    sources = sources[:, (sources.pow(4).mean(0) - 3).abs().argsort(descending=True)]  # what makes clusters stays

    def draw(generator: Generator) -> Tensor:
        orders = (torch.randperm(len(sources), generator=generator) for _ in sources.T)
        return tamed(torch.stack([column[order] for column, order in zip(sources.T, orders, strict=True)], 1))

    return FullLaw("independent components", draw, _without_last)


def _shells(points: Tensor) -> FullLaw:
    radii = points.norm(dim=1, keepdim=True)

    def draw(generator: Generator) -> Tensor:
        directions = normalize(torch.randn(points.shape, generator=generator, dtype=points.dtype), dim=1)
        return tamed(directions * radii)

    return FullLaw("laws alike in all directions", draw, _without_last)


def _thick(radii: Tensor, dim: int) -> bool:
    """Whether the radii vary at least half as much as those of a ball: around a sphere they make no full law."""
    return float(radii.std() / radii.mean()) > 0.5 / (dim * (dim + 2)) ** 0.5


def _without_last(sample: Tensor) -> Tensor:
    return sample[:, :-1]
