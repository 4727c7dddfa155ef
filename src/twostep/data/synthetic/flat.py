"""Flat distributions in closed form: densities in the plane, a Gaussian on a subspace, repeated coordinates.

Datasets named as in FFJORD (Grathwohl et al., 2019, arXiv 1810.01367) have its shapes.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from pydantic import Field, create_model, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import NonNegativeFloat, PositiveFloat, PositiveInt
from twostep.data.synthetic.base import SyntheticDistribution, distribution, synthetic
from twostep.data.synthetic.numerics import choice, log_normal, normal, uniform


class Boxes(SyntheticDistribution):
    """Uniform on disjoint squares of equal side, given by their lower left corners."""

    corners: ClassVar[Tensor]
    side: ClassVar[float]

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        corners = self.corners[choice(n, len(self.corners), generator)]
        return corners + self.side * uniform(n, 2, generator=generator)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        inside = ((y[:, None] >= self.corners) & (y[:, None] <= self.corners + self.side)).all(2).any(1)
        return torch.where(inside, -math.log(len(self.corners) * self.side**2), -torch.inf).double()


def _boxes(name: str, description: str, corners: list[tuple[float, float]], side: float) -> None:
    kind = create_model(name, __base__=Boxes)
    kind.corners, kind.side = torch.tensor(corners, dtype=torch.double), side
    synthetic(name, f"uniform distribution on {description}")(kind)


EIGHTHS = torch.arange(8, dtype=torch.double) * math.pi / 4
BLACK = [(2.0 * i, 2.0 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]

_boxes("checkerboard", "the black squares of a checkerboard", BLACK, side=2.0)
_boxes("1uniform", "a square", [(-1.0, -1.0)], side=2.0)
_boxes("2uniforms", "two disjoint squares", [(-1.5, -1.5), (0.5, 0.5)], side=1.0)


@synthetic("2marginals", "uniform on two intervals in one coordinate, Gaussian in the other")
class TwoMarginals(SyntheticDistribution):
    """`x1` uniform on `[-2, -1]` and `[1, 2]`, `x2` standard normal, independent."""

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        first = (1 + uniform(n, generator=generator)) * (2.0 * choice(n, 2, generator).double() - 1)
        return torch.stack([first, normal(n, generator=generator)], 1)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        inside = (y[:, 0].abs() >= 1) & (y[:, 0].abs() <= 2)
        return torch.where(inside, -math.log(2) + log_normal(y[:, 1:], 1.0), -torch.inf)


@synthetic("annulus", "uniform distribution on an annulus")
class Annulus(SyntheticDistribution):
    """Uniform between two radii."""

    inner: NonNegativeFloat = Field(1.0, description="inner radius")
    width: PositiveFloat = Field(1.0, description="outer radius minus inner radius")

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        inner, outer = self.inner**2, (self.inner + self.width) ** 2
        radius = (inner + (outer - inner) * uniform(n, generator=generator)).sqrt()
        angle = 2 * math.pi * uniform(n, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        radius, outer = y.norm(dim=1), self.inner + self.width
        area = math.pi * (outer**2 - self.inner**2)
        return torch.where((radius >= self.inner) & (radius <= outer), -math.log(area), -torch.inf).double()


@synthetic("8gaussians", "eight Gaussians with centres on a circle")
class EightGaussians(SyntheticDistribution):
    """Centres on the circle of radius `4 / sqrt 2`; noise adds to the variances."""

    centres: ClassVar[Tensor] = 4 / math.sqrt(2) * torch.stack([EIGHTHS.cos(), EIGHTHS.sin()], 1)

    std: PositiveFloat = Field(0.5 / math.sqrt(2), description="std of each Gaussian")

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        return self.centres[choice(n, 8, generator)] + self.std * normal(n, 2, generator=generator)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        std = math.hypot(self.std, self.noise)
        return torch.logsumexp(log_normal(y[:, None] - self.centres, std), 1) - math.log(8)

    noisy_log_density = log_density


@synthetic("split-gaussian", "a Gaussian split into two halves, separated by a gap")
class SplitGaussian(SyntheticDistribution):
    """A standard Gaussian whose halves left and right of 0 are shifted away from 0 by `gap`."""

    gap: NonNegativeFloat = Field(1.0, description="shift of each half")

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        y = normal(n, 2, generator=generator)
        return torch.stack([y[:, 0] + self.gap * torch.where(y[:, 0] < 0, -1.0, 1.0), y[:, 1]], 1)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        shifted_back = torch.stack([y[:, 0].abs() - self.gap, y[:, 1]], 1)
        return torch.where(shifted_back[:, 0] >= 0, log_normal(shifted_back, 1.0), -torch.inf)


@synthetic("pinwheel", "five twisted arms")
class Pinwheel(SyntheticDistribution):
    """Five narrow Gaussians on a circle of radius 2, rotated by an angle that grows with the radius.

    `x = 2 R(a_k + exp(|f|) / 4) f`, `f ~ N((1, 0), diag(0.3², 0.1²))`. FFJORD rotates by the first coordinate of f
    instead of its norm, which is nearly the same; with the norm the map preserves area, so the density is closed.
    """

    mean: ClassVar[Tensor] = torch.tensor([1.0, 0.0])
    std: ClassVar[Tensor] = torch.tensor([0.3, 0.1], dtype=torch.double)

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        f = normal(n, 2, generator=generator) * self.std + self.mean
        return self._rotate(2 * f, f.norm(dim=1), choice(n, 5, generator))

    @override
    def log_density(self, y: Tensor) -> Tensor:
        arms: list[Tensor] = []
        for k in range(5):
            f = self._rotate(y / 2, y.norm(dim=1) / 2, torch.tensor(k), back=True)
            arms.append(log_normal((f - self.mean) / self.std, 1.0) - self.std.log().sum())
        return torch.logsumexp(torch.stack(arms), 0) - math.log(5) - 2 * math.log(2)

    def _rotate(self, y: Tensor, radius: Tensor, arm: Tensor, back: bool = False) -> Tensor:
        angle = (arm * (2 * math.pi / 5) + radius.exp() / 4) * (-1 if back else 1)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * y[:, 0] - sin * y[:, 1], sin * y[:, 0] + cos * y[:, 1]], 1)


@synthetic("affine", "a Gaussian on a linear subspace")
class Affine(SyntheticDistribution):
    """`N(0, std² I)` on a random d-dimensional subspace; with noise s, `N(0, std² Q Qᵀ + s² I)`."""

    manifold_dim: PositiveInt = Field(2, description="dimension d of the subspace")
    std: PositiveFloat = Field(1.0, description="std of the Gaussian in every direction of the subspace")
    ambient_dim: PositiveInt | None = Field(5, description="dimension D of the space, at least d; None: d")

    @property
    @override
    def dims(self) -> tuple[int, int]:
        return self.manifold_dim, self.manifold_dim

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        return self.std * normal(n, self.native_dim, generator=generator)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        return log_normal(y, math.hypot(self.std, self.noise))

    noisy_log_density = log_density


@synthetic("repeated", "a planar dataset with its two coordinates repeated up to 24")
class Repeated(SyntheticDistribution):
    """`(y, y, ..., y)` for a planar dataset y: a plane in R^D, on which lengths are scaled by `sqrt(D / 2)`."""

    base: str = Field(EightGaussians.name, description="the planar dataset, with its default keys")
    ambient_dim: PositiveInt | None = Field(24, description="dimension D of the space, an even number; None: 2")

    @property
    @override
    def dims(self) -> tuple[int, int]:
        return 2 if self._planar.measure == "Lebesgue" else self._planar.intrinsic_dim, self.ambient_dim or 2

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        return self._planar.sample(n, generator).repeat(1, self.native_dim // 2)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        return self._planar.log_prob(y[:, :2]) - self.intrinsic_dim / 2 * math.log(self.native_dim // 2)

    @override
    def nearest(self, y: Tensor) -> Tensor:
        mean = y.unflatten(1, (-1, 2)).mean(1)
        on = self._planar.nearest(mean) if self.intrinsic_dim < 2 else mean
        return on.repeat(1, self.native_dim // 2)

    @property
    def _planar(self) -> SyntheticDistribution:
        return distribution(self.base)

    @model_validator(mode="after")
    def _check_base(self) -> Self:
        if self.base == "repeated" or self._planar.dim != 2:
            raise ValueError(f"base={self.base}: choose a planar dataset")
        if self.native_dim % 2:
            raise ValueError(f"ambient_dim={self.ambient_dim} must be even")
        return self
