"""Curves in the plane, with noise around them or without.

With noise 0 the law is one on a curve, with its density by arc length,

    log p(c(t)) = log p(t) - log |c'(t)|,

and with noise s it is a density in the plane,

    p(x) = integral of p(t) N(x; c(t), s² I) dt,

by Gauss-Legendre rules on panels no longer than 4 s, which is exact to about ten digits. A set of several curves takes
each with the same probability. Those called as in FFJORD (Grathwohl et al., 2019, arXiv 1810.01367) follow its shapes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor

from twostep.core.schema import NonNegativeFloat
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.numerics import CHUNK, choice, minimise, panels, uniform

CELLS = 500
PANEL = 4  # in units of the noise
COMPLEX_STEP = 1e-20  # Im c(t + ih) / h is the derivative to all digits, for there is no difference to cancel
NOISE = "std of Gaussian noise around the curve; 0: points on the curve"


class CurveSet(SyntheticDistribution):
    """A mixture of `pieces` curves `c_k: [low, high] -> R^2`, their parameter uniform unless a set says otherwise."""

    pieces: ClassVar[int] = 1
    low: ClassVar[float]
    high: ClassVar[float]

    @property
    def intrinsic_dim(self) -> int:
        """Dimension 1."""
        return 1

    @abstractmethod
    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return points `(*, 2)` for the curve's number and the parameter, both `(*,)`; analytic in the parameter."""

    def draw_parameter(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n,)` parameters."""
        return self.low + (self.high - self.low) * uniform(n, generator=generator)

    def log_parameter_density(self, t: Tensor) -> Tensor:
        """Return the log-density of the parameter, `(*,)` to `(*,)`."""
        return torch.full_like(t, -math.log(self.high - self.low))

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw a curve and a parameter for each point."""
        piece = choice(n, self.pieces, generator)
        return self.curve(piece, self.draw_parameter(n, generator))

    def nearest(self, y: Tensor) -> Tensor:
        """Return the nearest points of all curves."""
        return self.curve(*self._locate(y))

    def density(self, y: Tensor) -> Tensor:
        """Return the log-density by arc length."""
        piece, t = self._locate(y)
        return self.log_parameter_density(t) - self._speed(piece, t).log() - math.log(self.pieces)

    def blurred(self, y: Tensor) -> Tensor:
        """Return the log-density of curve plus noise."""
        centres, log_masses = self._mixture()
        parts = [
            torch.logsumexp(
                log_masses - (block[:, None] - centres).square().sum(2) / (2 * self.noise**2),
                dim=1,
            )
            for block in y.split(max(1, CHUNK // len(centres)))
        ]
        return torch.cat(parts) - math.log(2 * math.pi * self.noise**2)

    def _mixture(self) -> tuple[Tensor, Tensor]:
        piece, t = torch.arange(self.pieces)[:, None], torch.linspace(self.low, self.high, CELLS + 1).double()
        longest = self._speed(piece.expand(-1, len(t)), t.expand(self.pieces, -1)).max() * (self.high - self.low)
        t, log_weights = panels(self.low, self.high, math.ceil(float(longest) / (PANEL * self.noise)))
        centres = self.curve(piece.expand(-1, len(t)), t.expand(self.pieces, -1))
        log_masses = self.log_parameter_density(t) + log_weights - math.log(self.pieces)
        return centres.flatten(0, 1), log_masses.repeat(self.pieces)

    def _speed(self, piece: Tensor, t: Tensor) -> Tensor:
        beside = self.curve(piece, torch.complex(t, torch.full_like(t, COMPLEX_STEP)))
        return beside.imag.norm(dim=-1) / COMPLEX_STEP

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


def _at(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(x, y), -1)


def _noise(default: float) -> NonNegativeFloat:
    return Field(default, description=NOISE)


@synthetic("swissroll", "a spiral in the plane, with noise")
class PlanarSwissRoll(CurveSet):
    """`t (cos t, sin t) / 5`, one and a half turns."""

    low: ClassVar[float] = 1.5 * math.pi
    high: ClassVar[float] = 4.5 * math.pi
    noise: NonNegativeFloat = _noise(0.2)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the spiral's points."""
        return _at(t * t.cos(), t * t.sin()) / 5


@synthetic("circles", "two circles with one centre, with noise")
class Circles(CurveSet):
    """Radii 3 and 1.5."""

    pieces: ClassVar[int] = 2
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 2 * math.pi
    noise: NonNegativeFloat = _noise(0.24)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the circles' points."""
        radius = 3.0 - 1.5 * piece
        return _at(radius * t.cos(), radius * t.sin())


@synthetic("rings", "four rings with one centre, with noise")
class Rings(CurveSet):
    """Radii 3, 2.25, 1.5 and 0.75."""

    pieces: ClassVar[int] = 4
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 2 * math.pi
    noise: NonNegativeFloat = _noise(0.08)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the rings' points."""
        radius = 3.0 - 0.75 * piece
        return _at(radius * t.cos(), radius * t.sin())


@synthetic("2spirals", "two spirals that wind around each other, with noise")
class TwoSpirals(CurveSet):
    """`± t (cos t, -sin t) / 3` with `t = 3 pi sqrt(u)`, so that points lie about evenly."""

    pieces: ClassVar[int] = 2
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 3 * math.pi
    noise: NonNegativeFloat = _noise(0.1)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the spirals' points."""
        sign = 1.0 - 2.0 * piece
        return _at(sign * t * t.cos(), -sign * t * t.sin()) / 3

    def draw_parameter(self, n: int, generator: Generator) -> Tensor:
        """Draw parameters with a density that grows like t."""
        return self.high * uniform(n, generator=generator).sqrt()

    def log_parameter_density(self, t: Tensor) -> Tensor:
        """Return `log (2 t / high²)`."""
        return t.log() + math.log(2 / self.high**2)


@synthetic("line", "points on a line, without noise")
class Line(CurveSet):
    """`(t, t)`."""

    low: ClassVar[float] = -2.5
    high: ClassVar[float] = 2.5

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the line's points."""
        return _at(t, t)


@synthetic("cos", "points on a cosine, without noise")
class Cosine(CurveSet):
    """`(t, 2.5 cos t)`."""

    low: ClassVar[float] = -2.5
    high: ClassVar[float] = 2.5

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the cosine's points."""
        return _at(t, 2.5 * t.cos())


@synthetic("2lines", "points on two parallel lines, without noise")
class TwoLines(CurveSet):
    """`(t, 1)` and `(t, -1)`."""

    pieces: ClassVar[int] = 2
    low: ClassVar[float] = -2.0
    high: ClassVar[float] = 2.0

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the lines' points."""
        return _at(t, 1.0 - 2.0 * piece)


@synthetic("sawtooth", "a saw's teeth, with noise")
class Sawtooth(CurveSet):
    """Four flanks from -1 to 1, each of width 1."""

    pieces: ClassVar[int] = 4
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    noise: NonNegativeFloat = _noise(0.05)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the flanks' points."""
        return _at(t + piece - 2, 2 * t - 1)


@synthetic("quadspline", "a smooth spline of parabolas, with noise")
class QuadraticSpline(CurveSet):
    """Four parabolas, up and down in turn, that meet with the same slope."""

    pieces: ClassVar[int] = 4
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    noise: NonNegativeFloat = _noise(0.05)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the parabolas' points."""
        sign = 1.0 - 2.0 * (piece % 2)
        return _at(t + piece - 2, 4 * sign * t * (1 - t))


@synthetic("sin-wave-mixture", "two sine waves that cross each other, with noise")
class SineWaves(CurveSet):
    """`(t, sin t)` and `(t, -sin t)`."""

    pieces: ClassVar[int] = 2
    low: ClassVar[float] = -math.pi
    high: ClassVar[float] = math.pi
    noise: NonNegativeFloat = _noise(0.1)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the waves' points."""
        return _at(t, (1.0 - 2.0 * piece) * t.sin())


@synthetic("two_moons", "two half circles that reach into each other, with noise")
class TwoMoons(CurveSet):
    """`(cos t, sin t)` and `(1 - cos t, 1/2 - sin t)`, half a turn of each."""

    pieces: ClassVar[int] = 2
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = math.pi
    noise: NonNegativeFloat = _noise(0.1)

    def curve(self, piece: Tensor, t: Tensor) -> Tensor:
        """Return the moons' points."""
        sign = 1.0 - 2.0 * piece
        return _at(piece + sign * t.cos(), 0.5 * piece + sign * t.sin())
