"""Curves in the plane, with or without noise.

Without noise the distribution lives on the curve, with log-density by arc length

    log p(c(t)) = log p(t) - log |c'(t)|,

and with noise s it has a density in the plane,

    p(x) = integral of p(t) N(x; c(t), s² I) dt,

by Gauss-Legendre quadrature on panels no longer than 4 s, accurate to about ten digits. Several curves have equal
weights. Datasets named as in FFJORD (Grathwohl et al., 2019, arXiv 1810.01367) have its shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field, create_model
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import NonNegativeFloat
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.numerics import CHUNK, choice, gauss_legendre, minimise, uniform

CELLS = 500
PANEL = 4  # in units of the noise
COMPLEX_STEP = 1e-20  # Im c(t + ih) / h is the derivative to machine precision: nothing cancels

Curve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class CurveSet(SyntheticDistribution):
    """A mixture of `pieces` curves `c_k: [low, high] -> R^2`, whose parameter is a root of a uniform number.

    With `power` 1 it is uniform, with 2 points of a spiral are about even along it.
    """

    fixed_dims = (1, 2)
    formula: ClassVar[Curve]
    """Maps number of the curve and parameter, both `(*,)`, to two coordinates; analytic in the parameter."""
    pieces: ClassVar[int]
    low: ClassVar[float]
    high: ClassVar[float]
    power: ClassVar[int] = 1

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return points `(*, 2)` for number of the curve and parameter, both `(*,)`."""
        return torch.stack(torch.broadcast_tensors(*type(self).formula(piece, t)), -1)

    def draw_parameter(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n,)` parameters."""
        return self.low + (self.high - self.low) * uniform(n, generator=generator) ** (1 / self.power)

    def log_parameter_density(self, t: Tensor) -> Tensor:
        """Return the log-density of the parameter, `(*,)` to `(*,)`."""
        length = self.high - self.low
        return torch.xlogy(self.power - 1, (t - self.low) / length) + math.log(self.power / length)

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        piece = choice(n, self.pieces, generator)
        return self.curve(piece, self.draw_parameter(n, generator))

    @override
    def nearest(self, y: Tensor) -> Tensor:
        return self.curve(*self._locate(y))

    @override
    def log_density(self, y: Tensor) -> Tensor:
        piece, t = self._locate(y)
        return self.log_parameter_density(t) - self._speed(piece, t).log() - math.log(self.pieces)

    @override
    def noisy_log_density(self, y: Tensor) -> Tensor:
        centres, log_masses = self._mixture()
        blocks = [
            torch.logsumexp(log_masses - (block[:, None] - centres).square().sum(2) / (2 * self.noise**2), dim=1)
            for block in y.split(max(1, CHUNK // len(centres)))
        ]
        return torch.cat(blocks) - math.log(2 * math.pi * self.noise**2)

    def _mixture(self) -> tuple[Tensor, Tensor]:
        piece, t = torch.arange(self.pieces)[:, None], torch.linspace(self.low, self.high, CELLS + 1).double()
        longest = self._speed(piece.expand(-1, len(t)), t.expand(self.pieces, -1)).max() * (self.high - self.low)
        ends = torch.linspace(
            self.low, self.high, 1 + math.ceil(float(longest) / (PANEL * self.noise)), dtype=torch.double
        )
        t, log_weights = (values.flatten() for values in gauss_legendre(ends[:-1], ends[1:], 16))
        centres = self.curve(piece.expand(-1, len(t)), t.expand(self.pieces, -1))
        log_masses = self.log_parameter_density(t) + log_weights - math.log(self.pieces)
        return centres.flatten(0, 1), log_masses.repeat(self.pieces)

    def _speed(self, piece: Tensor, t: Tensor) -> Tensor:
        shifted = self.curve(piece, torch.complex(t, torch.full_like(t, COMPLEX_STEP)))
        return shifted.imag.norm(dim=-1) / COMPLEX_STEP

    def _locate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return number of the curve and parameter of the nearest point, both `(n,)`."""
        ts: list[Tensor] = []
        distances: list[Tensor] = []
        for k in range(self.pieces):

            def cost(t: Tensor, rows: slice, k: int = k) -> Tensor:
                return (self.curve(torch.full_like(t, k).long(), t) - y[rows, None]).square().sum(-1)

            t = minimise(cost, len(y), self.low, self.high, CELLS)
            ts.append(t)
            distances.append(cost(t[:, None], slice(None))[:, 0])
        piece = torch.stack(distances).argmin(0)
        return piece, torch.stack(ts).gather(0, piece[None])[0]


def _curves(
    name: str,
    description: str,
    formula: Curve,
    ends: tuple[float, float],
    pieces: int = 1,
    noise: float = 0.0,
    power: int = 1,
) -> None:
    noise_key = Field(noise, description="std of Gaussian noise around the curve; 0: points on the curve")
    kind = create_model(name, __base__=CurveSet, noise=(NonNegativeFloat, noise_key))
    kind.formula, kind.pieces, kind.power = staticmethod(formula), pieces, power
    kind.low, kind.high = ends
    synthetic(name, f"{description}, {'with' if noise else 'without'} noise")(kind)


def _spiral(_: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return t * t.cos() / 5, t * t.sin() / 5


def _circle(radius: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return radius * t.cos(), radius * t.sin()


def _sign(piece: Tensor) -> Tensor:
    return 1.0 - 2.0 * piece


def _two_spirals(k: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return _sign(k) * t * t.cos() / 3, -_sign(k) * t * t.sin() / 3


def _moons(k: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return k + _sign(k) * t.cos(), 0.5 * k + _sign(k) * t.sin()


def _parabolas(k: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return t + k - 2, 4 * _sign(k % 2) * t * (1 - t)


PI = math.pi
CIRCLES = "two concentric circles of radii 3 and 1.5"
RINGS = "four concentric circles of radii 3, 2.25, 1.5 and 0.75"
_curves("swissroll", "a spiral of one and a half turns in the plane", _spiral, (1.5 * PI, 4.5 * PI), noise=0.2)
_curves("circles", CIRCLES, lambda k, t: _circle(3.0 - 1.5 * k, t), (0.0, 2 * PI), 2, 0.24)
_curves("rings", RINGS, lambda k, t: _circle(3.0 - 0.75 * k, t), (0.0, 2 * PI), 4, 0.08)
_curves("2spirals", "two intertwined spirals", _two_spirals, (0.0, 3 * PI), 2, 0.1, power=2)
_curves("line", "a line segment", lambda _, t: (t, t), (-2.5, 2.5))
_curves("cos", "a cosine curve", lambda _, t: (t, 2.5 * t.cos()), (-2.5, 2.5))
_curves("2lines", "two parallel line segments", lambda k, t: (t, _sign(k)), (-2.0, 2.0), 2)
_curves("sawtooth", "a sawtooth curve", lambda k, t: (t + k - 2, 2 * t - 1), (0.0, 1.0), 4, 0.05)
_curves("quadspline", "a smooth spline of four parabolas", _parabolas, (0.0, 1.0), 4, 0.05)
_curves("sin-wave-mixture", "two crossing sine waves", lambda k, t: (t, _sign(k) * t.sin()), (-PI, PI), 2, 0.1)
_curves("two_moons", "two interleaving half circles", _moons, (0.0, PI), 2, 0.1)
