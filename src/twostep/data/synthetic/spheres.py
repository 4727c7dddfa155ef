"""Distributions on the unit sphere S^k in R^m, m = k + 1.

Projected Gaussian, `u = y / |y|` with `y ~ N(mu, I)`; with `t = mu . u`,

    p(u) = (2 pi)^(-m/2) exp(-(|mu|² - t²) / 2) * integral over r > 0 of r^(m-1) exp(-(r - t)² / 2) dr.

Von Mises-Fisher, `p(u) = C(kappa) exp(kappa e . u)` around the first axis e. With Gaussian noise s it has the
closed form

    p(x) = C(kappa) / C(|kappa e + x / s²|) * (2 pi s²)^(-m/2) exp(-(1 + |x|²) / (2 s²)).

Sampling: Simulation of the von Mises Fisher distribution (Wood, 1994).
"""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import NonNegativeFloat, PositiveInt
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.numerics import gauss_legendre, normal, rejection, uniform

KAPPA = "concentration around the first axis; 0: uniform"


class SphereSet(SyntheticDistribution):
    """A distribution on S^k."""

    @override
    def nearest(self, y: Tensor) -> Tensor:
        radius = y.norm(dim=1, keepdim=True)
        return torch.where(radius > 0, y / radius, _first_axis(self.native_dim))


class AnySphere(SphereSet):
    """A distribution on a sphere of any dimension."""

    manifold_dim: PositiveInt = Field(2, description="dimension k of the sphere, which lies in R^(k+1)")

    @property
    @override
    def dims(self) -> tuple[int, int]:
        return self.manifold_dim, self.manifold_dim + 1


@synthetic("sphere", "a Gaussian projected onto a sphere")
class ProjectedGaussian(AnySphere):
    """`N(mu, I)`, each point divided by its norm."""

    mu: tuple[FiniteFloat, ...] | None = Field(
        None, description="mean of the Gaussian, k+1 numbers; None: (-1, -1, 0, ...)"
    )

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        return self.nearest(normal(n, self.native_dim, generator=generator) + self._mean())

    @override
    def log_density(self, y: Tensor) -> Tensor:
        m, mean = self.native_dim, self._mean()
        t = y @ mean
        peak = (t + (t.square() + 4 * (m - 1)).sqrt()) / 2
        r, log_weights = gauss_legendre((peak - 10).clamp(min=0), peak + 10)
        radial = torch.logsumexp((m - 1) * r.log() - (r - t[:, None]).square() / 2 + log_weights, 1)
        return radial - (mean.square().sum() - t.square()) / 2 - m / 2 * math.log(2 * math.pi)

    def _mean(self) -> Tensor:
        mean = (-1.0, -1.0, *(0.0,) * (self.native_dim - 2)) if self.mu is None else self.mu
        return torch.tensor(mean, dtype=torch.double)

    @model_validator(mode="after")
    def _check_mean(self) -> Self:
        if self.mu is not None and len(self.mu) != self.native_dim:
            raise ValueError(f"mu={list(self.mu)}: give manifold_dim + 1 = {self.native_dim} finite numbers")
        return self


class VonMisesFisherSet(SphereSet):
    """A von Mises-Fisher distribution around the first axis."""

    @property
    def concentration(self) -> float:
        """The key `kappa`; 0, which is uniform, for sets without it."""
        return vars(self).get("kappa", 0.0)

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        # the height along the axis by rejection from a beta distribution, and a uniform direction around it
        m, kappa = self.native_dim, self.concentration
        b = (m - 1) / (2 * kappa + math.sqrt(4 * kappa**2 + (m - 1) ** 2))
        centre = (1 - b) / (1 + b)
        bound = kappa * centre + (m - 1) * math.log1p(-(centre**2))

        def propose(count: int) -> Tensor:
            z = (1 + _uniform_directions(count, m, generator)[:, 0]) / 2  # beta((m-1)/2, (m-1)/2)
            height = (1 - (1 + b) * z) / (1 - (1 - b) * z)
            log_ratio = kappa * height + (m - 1) * torch.log1p(-centre * height) - bound
            return height[uniform(count, generator=generator).log() <= log_ratio]

        height = rejection(n, propose)[:, None]
        return torch.cat([height, (1 - height.square()).sqrt() * _uniform_directions(n, m - 1, generator)], 1)

    @override
    def log_density(self, y: Tensor) -> Tensor:
        return _log_constant(self.concentration, self.native_dim) + self.concentration * y[:, 0]

    @override
    def noisy_log_density(self, y: Tensor) -> Tensor:
        variance, m = self.noise**2, self.native_dim
        tilted = (self.concentration * _first_axis(m) + y / variance).norm(dim=1)
        gaussian = -(1 + y.square().sum(1)) / (2 * variance) - m / 2 * math.log(2 * math.pi * variance)
        return _log_constant(self.concentration, m) - _log_constant(tilted, m) + gaussian


@synthetic("vmf_sphere", "von Mises-Fisher distribution on a sphere")
class VonMisesFisherSphere(AnySphere, VonMisesFisherSet):
    """Von Mises-Fisher on S^k."""

    kappa: NonNegativeFloat = Field(4.0, description=KAPPA)


@synthetic("uniform_sphere", "uniform distribution on a sphere")
class UniformSphere(AnySphere, VonMisesFisherSet):
    """Uniform on S^k."""


@synthetic("von-mises-circle", "von Mises distribution on the unit circle")
class VonMisesCircle(VonMisesFisherSet):
    """Von Mises on the circle, the example of the paper."""

    fixed_dims = (1, 2)

    kappa: NonNegativeFloat = Field(1.0, description=KAPPA)


def _first_axis(m: int) -> Tensor:
    return torch.eye(m, dtype=torch.double)[0]


def _uniform_directions(n: int, m: int, generator: Generator) -> Tensor:
    y = normal(n, m, generator=generator)
    return y / y.norm(dim=1, keepdim=True)


def _log_constant(kappa: Tensor | float, m: int) -> Tensor:
    """Return `log C(kappa)`, minus the log of the integral of `exp(kappa e . u)` over the sphere in R^m.

    Gauss-Legendre quadrature over the angle to the axis, where the integrand exceeds e^-45 of its peak.
    """
    kappa = torch.as_tensor(kappa, dtype=torch.double)
    widest = (15 / kappa.sqrt()).clamp(max=math.pi)
    angle, log_weights = gauss_legendre(torch.zeros_like(kappa), widest)
    exponent = kappa.unsqueeze(-1) * (angle.cos() - 1) + (m - 2) * angle.sin().log() + log_weights
    area = math.log(2) + (m - 1) / 2 * math.log(math.pi) - math.lgamma((m - 1) / 2)
    return -(torch.logsumexp(exponent, -1) + kappa + area)
