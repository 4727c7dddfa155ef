"""Densities in the plane in closed form: Gaussians, boxes, an annulus.

Those called as in FFJORD (Grathwohl et al., 2019, arXiv 1810.01367) follow its shapes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor

from twostep.core.schema import NonNegativeFloat, PositiveFloat
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.numerics import choice, normal, uniform


class PlaneSet(SyntheticDistribution):
    """A law with a density in the plane."""

    @property
    def intrinsic_dim(self) -> int:
        """Dimension 2."""
        return 2


class BoxSet(PlaneSet):
    """Uniform on equal, separate boxes, given by their lower corners and one size."""

    corners: ClassVar[tuple[tuple[float, float], ...]]
    size: ClassVar[tuple[float, float]]

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw a box and a place in it for each point."""
        corners, size = self._boxes()
        return corners[choice(n, len(corners), generator)] + size * uniform(n, 2, generator=generator)

    def density(self, y: Tensor) -> Tensor:
        """Return minus the log of the boxes' area, `-inf` outside."""
        corners, size = self._boxes()
        inside = ((y[:, None] >= corners) & (y[:, None] <= corners + size)).all(2).any(1)
        return torch.where(inside, -math.log(len(corners) * float(size.prod())), -torch.inf).double()

    def _boxes(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.corners, dtype=torch.double), torch.tensor(self.size, dtype=torch.double)


@synthetic("checkerboard", "the black squares of a board")
class Checkerboard(BoxSet):
    """Eight squares of side 2 in `[-4, 4]²`."""

    corners: ClassVar[tuple[tuple[float, float], ...]] = tuple(
        (2.0 * i, 2.0 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0
    )
    size: ClassVar[tuple[float, float]] = (2.0, 2.0)


@synthetic("1uniform", "a square")
class OneUniform(BoxSet):
    """Uniform on `[-1, 1]²`."""

    corners: ClassVar[tuple[tuple[float, float], ...]] = ((-1.0, -1.0),)
    size: ClassVar[tuple[float, float]] = (2.0, 2.0)


@synthetic("2uniforms", "two squares, corner to corner with a gap")
class TwoUniforms(BoxSet):
    """Uniform on `[-1.5, -0.5]²` and `[0.5, 1.5]²`."""

    corners: ClassVar[tuple[tuple[float, float], ...]] = ((-1.5, -1.5), (0.5, 0.5))
    size: ClassVar[tuple[float, float]] = (1.0, 1.0)


@synthetic("2marginals", "uniform on two intervals in one coordinate, Gaussian in the other")
class TwoMarginals(PlaneSet):
    """`x1` uniform on `[-2, -1]` and `[1, 2]`, `x2` standard normal, independent."""

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw both coordinates."""
        first = (1 + uniform(n, generator=generator)) * _signs(n, generator)
        return torch.stack([first, normal(n, generator=generator)], 1)

    def density(self, y: Tensor) -> Tensor:
        """Return the sum of the two log-densities."""
        inside = (y[:, 0].abs() >= 1) & (y[:, 0].abs() <= 2)
        return torch.where(inside, -math.log(2) + _log_normal(y[:, 1:], 1.0), -torch.inf)


@synthetic("annulus", "a ring of some width, evenly filled")
class Annulus(PlaneSet):
    """Uniform between two radii."""

    inner: NonNegativeFloat = Field(1.0, description="inner radius")
    width: PositiveFloat = Field(1.0, description="outer radius less the inner one")

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw angle and radius."""
        inner, outer = self.inner**2, (self.inner + self.width) ** 2
        radius = (inner + (outer - inner) * uniform(n, generator=generator)).sqrt()
        angle = 2 * math.pi * uniform(n, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)

    def density(self, y: Tensor) -> Tensor:
        """Return minus the log of the area, `-inf` outside."""
        radius, outer = y.norm(dim=1), self.inner + self.width
        area = math.pi * (outer**2 - self.inner**2)
        return torch.where((radius >= self.inner) & (radius <= outer), -math.log(area), -torch.inf).double()


@synthetic("8gaussians", "eight Gaussians on a circle")
class EightGaussians(PlaneSet):
    """Centres on the circle of radius `4 / sqrt 2`."""

    std: PositiveFloat = Field(0.5 / math.sqrt(2), description="std of each Gaussian")

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw a Gaussian and a point of it for each point."""
        return self._centres()[choice(n, 8, generator)] + self.std * normal(n, 2, generator=generator)

    def density(self, y: Tensor) -> Tensor:
        """Return the mixture's log-density."""
        return self._mixture(y, self.std)

    def blurred(self, y: Tensor) -> Tensor:
        """Return the log-density of a mixture whose variances have grown by that of the noise."""
        return self._mixture(y, math.hypot(self.std, self.noise))

    def _mixture(self, y: Tensor, std: float) -> Tensor:
        return torch.logsumexp(_log_normal(y[:, None] - self._centres(), std), 1) - math.log(8)

    def _centres(self) -> Tensor:
        angles = torch.arange(8, dtype=torch.double) * math.pi / 4
        return 4 / math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], 1)


@synthetic("split-gaussian", "a Gaussian cut in two, its halves moved apart")
class SplitGaussian(PlaneSet):
    """A standard Gaussian whose halves left and right of 0 are moved away from it by `gap`."""

    gap: NonNegativeFloat = Field(1.0, description="how far each half is moved")

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw a Gaussian and move its halves."""
        y = normal(n, 2, generator=generator)
        return torch.stack([y[:, 0] + self.gap * torch.where(y[:, 0] < 0, -1.0, 1.0), y[:, 1]], 1)

    def density(self, y: Tensor) -> Tensor:
        """Return the Gaussian's log-density where the points came from, `-inf` in the gap."""
        back = torch.stack([y[:, 0].abs() - self.gap, y[:, 1]], 1)
        return torch.where(back[:, 0] >= 0, _log_normal(back, 1.0), -torch.inf)


@synthetic("pinwheel", "five twisted arms")
class Pinwheel(PlaneSet):
    """Five thin Gaussians on a circle of radius 2, turned by an angle that grows with the radius.

    `x = 2 R(a_k + exp(|f|) / 4) f`, `f ~ N((1, 0), diag(0.3², 0.1²))`. FFJORD turns by the first coordinate of f
    instead of its norm, which is nearly the same; with the norm the turn keeps area, so the density is closed.
    """

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw a Gaussian, scale and turn it."""
        f = normal(n, 2, generator=generator) * self._std() + torch.tensor([1.0, 0.0])
        return _turn(2 * f, self._angle(f.norm(dim=1), choice(n, 5, generator)))

    def density(self, y: Tensor) -> Tensor:
        """Return the log-density of the five arms, each turned back."""
        arms: list[Tensor] = []
        for k in range(5):
            f = _turn(y / 2, -self._angle(y.norm(dim=1) / 2, torch.full((len(y),), k)))
            scaled = (f - torch.tensor([1.0, 0.0])) / self._std()
            arms.append(_log_normal(scaled, 1.0) - self._std().log().sum())
        return torch.logsumexp(torch.stack(arms), 0) - math.log(5) - 2 * math.log(2)

    def _std(self) -> Tensor:
        return torch.tensor([0.3, 0.1], dtype=torch.double)

    def _angle(self, radius: Tensor, arm: Tensor) -> Tensor:
        return arm * (2 * math.pi / 5) + radius.exp() / 4


def _turn(y: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * y[:, 0] - sin * y[:, 1], sin * y[:, 0] + cos * y[:, 1]], 1)


def _signs(n: int, generator: Generator) -> Tensor:
    return 2.0 * choice(n, 2, generator).double() - 1


def _log_normal(y: Tensor, std: float) -> Tensor:
    """Return the log-density of `N(0, std² I)` over the last dimension."""
    return -y.square().sum(-1) / (2 * std**2) - y.shape[-1] * math.log(std * math.sqrt(2 * math.pi))
