"""Flat manifolds: a Gaussian on a subspace, and planar data with repeated coordinates."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import PositiveFloat, PositiveInt
from twostep.data.synthetic.base import SyntheticDistribution, distribution, synthetic
from twostep.data.synthetic.numerics import log_normal, normal
from twostep.data.synthetic.plane import EightGaussians


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
        return log_normal(y, self.std)

    @override
    def noisy_log_density(self, y: Tensor) -> Tensor:
        return log_normal(y, math.hypot(self.std, self.noise))


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
