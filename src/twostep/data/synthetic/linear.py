"""Flat manifolds: a Gaussian on a subspace, and planar data whose coordinates are repeated."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator
from torch import Generator, Tensor

from twostep.core.schema import PositiveFloat, PositiveInt
from twostep.data.synthetic.base import SyntheticDistribution, distribution, synthetic
from twostep.data.synthetic.numerics import normal
from twostep.data.synthetic.toys_2d import EightGaussians


@synthetic("affine", "a Gaussian on a flat subspace")
class Affine(SyntheticDistribution):
    """`N(0, std² I)` on a random d-dimensional subspace; with noise s, `N(0, std² Q Qᵀ + s² I)`."""

    manifold_dim: PositiveInt = Field(2, description="dimension d of the subspace")
    std: PositiveFloat = Field(1.0, description="std of the Gaussian in every direction of the subspace")
    ambient_dim: PositiveInt | None = Field(5, description="D of the space around it, d or more; None: d")

    @property
    def intrinsic_dim(self) -> int:
        """Dimension d."""
        return self.manifold_dim

    @property
    def own_dim(self) -> int:
        """Dimension d."""
        return self.manifold_dim

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw the Gaussian."""
        return self.std * normal(n, self.own_dim, generator=generator)

    def density(self, y: Tensor) -> Tensor:
        """Return the Gaussian's log-density."""
        return self._gaussian(y, self.std)

    def blurred(self, y: Tensor) -> Tensor:
        """Return the log-density of the Gaussian with the noise's variance added."""
        return self._gaussian(y, math.hypot(self.std, self.noise))

    def _gaussian(self, y: Tensor, std: float) -> Tensor:
        return -y.square().sum(1) / (2 * std**2) - self.own_dim * math.log(std * math.sqrt(2 * math.pi))


@synthetic("repeated", "planar data whose two coordinates are repeated up to 24")
class Repeated(SyntheticDistribution):
    """`(y, y, ..., y)` for a planar set y: a plane in R^D, on which lengths have grown by `sqrt(D / 2)`."""

    base: str = Field(EightGaussians.name, description="the planar set, with its own defaults")
    ambient_dim: PositiveInt | None = Field(24, description="D, an even number; None: 2")

    @property
    def intrinsic_dim(self) -> int:
        """Dimension of a planar set with a density; 1 for points on a curve without noise."""
        return 2 if self._planar.measure == "Lebesgue" else self._planar.intrinsic_dim

    @property
    def own_dim(self) -> int:
        """All coordinates: the set needs no isometry."""
        return self.ambient_dim or 2

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw the planar set and repeat it."""
        return self._planar.sample(n, generator).repeat(1, self._copies)

    def density(self, y: Tensor) -> Tensor:
        """Return the planar log-density, less the log of the manifold's scale."""
        return self._planar.log_prob(y[:, :2]) - self.intrinsic_dim / 2 * math.log(self._copies)

    def nearest(self, y: Tensor) -> Tensor:
        """Return the mean of the copies, on the planar set's own manifold if it has one, repeated."""
        mean = y.unflatten(1, (self._copies, 2)).mean(1)
        on = self._planar.nearest(mean) if self.intrinsic_dim < 2 else mean
        return on.repeat(1, self._copies)

    @property
    def _planar(self) -> SyntheticDistribution:
        return distribution(self.base)

    @property
    def _copies(self) -> int:
        return self.own_dim // 2

    @model_validator(mode="after")
    def _base_is_planar(self) -> Self:
        if self.base == "repeated" or self._planar.dim != 2:
            raise ValueError(f"base={self.base}: choose a planar set")
        if self.own_dim % 2:
            raise ValueError(f"ambient_dim={self.ambient_dim} must be even")
        return self
