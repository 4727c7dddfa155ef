"""Surfaces with known area elements: torus, Klein bottle, swiss roll, S-curve.

Torus and Klein bottle are uniform by area. The swiss roll and the S-curve are curves in the plane times an interval,
uniform in the parameters; as the S-curve's parameter is arc length, it is uniform by area too.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Self

import torch
from pydantic import Field, create_model, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import PositiveFloat
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.curves import CELLS, Curve, CurveSet
from twostep.data.synthetic.numerics import minimise, rejection, uniform

TURN = 2 * math.pi


class TubeSet(SyntheticDistribution):
    """Uniform on a tube of radius r around a circle of radius R; angles theta around the tube, phi along the circle."""

    R: PositiveFloat = Field(2.0, description="radius of the circle at the centre of the tube")
    r: PositiveFloat = Field(1.0, description="radius of the tube, smaller than R")

    @abstractmethod
    def place(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Return points `(*, m)`."""

    @abstractmethod
    def stretch(self, theta: Tensor) -> Tensor:
        """Return the area element divided by r."""

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        largest = 1.5 * (self.R + self.r)

        def propose(count: int) -> Tensor:
            theta = TURN * uniform(count, generator=generator)
            return theta[largest * uniform(count, generator=generator) <= self.stretch(theta)]

        return self.place(rejection(n, propose), TURN * uniform(n, generator=generator))

    @override
    def log_density(self, y: Tensor) -> Tensor:
        theta = torch.arange(1024, dtype=torch.double) * (TURN / 1024)
        return torch.full((len(y),), -math.log(self.r * TURN**2 * float(self.stretch(theta).mean())), dtype=y.dtype)

    @model_validator(mode="after")
    def _check_radii(self) -> Self:
        if self.r >= self.R:
            raise ValueError(f"r={self.r:g} must be smaller than R={self.R:g}, or the surface intersects itself")
        return self


@synthetic("torus", "uniform distribution on a torus")
class Torus(TubeSet):
    """`((R + r cos theta) cos phi, (R + r cos theta) sin phi, r sin theta)`; area element `r (R + r cos theta)`."""

    fixed_dims = (2, 3)

    @override
    def place(self, theta: Tensor, phi: Tensor) -> Tensor:
        radius = self.R + self.r * theta.cos()
        return torch.stack([radius * phi.cos(), radius * phi.sin(), self.r * theta.sin()], -1)

    @override
    def stretch(self, theta: Tensor) -> Tensor:
        return self.R + self.r * theta.cos()

    @override
    def nearest(self, y: Tensor) -> Tensor:
        theta = torch.atan2(y[:, 2], y[:, :2].norm(dim=1) - self.R)
        return self.place(theta, torch.atan2(y[:, 1], y[:, 0]))


@synthetic("klein", "uniform distribution on a Klein bottle in R^4")
class Klein(TubeSet):
    """`((R + r cos theta) (cos phi, sin phi), r sin theta (cos phi/2, sin phi/2))`.

    Its area element is `r sqrt((R + r cos theta)² + r² sin² theta / 4)`.
    """

    fixed_dims = (2, 4)

    @override
    def place(self, theta: Tensor, phi: Tensor) -> Tensor:
        radius, height = self.R + self.r * theta.cos(), self.r * theta.sin()
        return torch.stack(
            [radius * phi.cos(), radius * phi.sin(), height * (phi / 2).cos(), height * (phi / 2).sin()], -1
        )

    @override
    def stretch(self, theta: Tensor) -> Tensor:
        return torch.hypot(self.R + self.r * theta.cos(), self.r / 2 * theta.sin())

    @override
    def nearest(self, y: Tensor) -> Tensor:

        def tube(y: Tensor, phi: Tensor) -> Tensor:
            across = y[..., 0] * phi.cos() + y[..., 1] * phi.sin() - self.R
            return torch.atan2(y[..., 2] * (phi / 2).cos() + y[..., 3] * (phi / 2).sin(), across)

        def cost(phi: Tensor, rows: slice) -> Tensor:
            return (self.place(tube(y[rows, None], phi), phi) - y[rows, None]).square().sum(-1)

        # half a turn more at both ends, so that a minimum at 0 is in the interior
        phi = minimise(cost, len(y), -math.pi, TURN + math.pi, CELLS)
        return self.place(tube(y, phi), phi)


class SheetSet(CurveSet):
    """A curve `c: [low, high] -> R^2` times an interval `[0, width]`: `(c1(t), v, c2(t))`, t and v uniform."""

    fixed_dims = (2, 3)
    pieces = 1
    width: ClassVar[float]

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        t = self.draw_parameter(n, generator)
        return self._place(self.curve(torch.zeros_like(t), t), self.width * uniform(n, generator=generator))

    @override
    def log_density(self, y: Tensor) -> Tensor:
        return super().log_density(y[:, ::2]) - math.log(self.width)

    @override
    def nearest(self, y: Tensor) -> Tensor:
        return self._place(super().nearest(y[:, ::2]), y[:, 1].clamp(0, self.width))

    noisy_log_density = SyntheticDistribution.noisy_log_density

    def _place(self, on_curve: Tensor, v: Tensor) -> Tensor:
        return torch.stack([on_curve[:, 0], v, on_curve[:, 1]], 1)


def _sheet(name: str, description: str, formula: Curve, ends: tuple[float, float], width: float) -> None:
    kind = create_model(name, __base__=SheetSet)
    kind.formula, (kind.low, kind.high), kind.width = staticmethod(formula), ends, width
    synthetic(name, f"{description} in R^3, as in scikit-learn")(kind)


_sheet("swiss_roll", "a swiss roll", lambda _, t: (t * t.cos(), t * t.sin()), (1.5 * math.pi, 4.5 * math.pi), 21.0)
_sheet(
    "s_curve", "an S-curve", lambda _, t: (t.sin(), t.real.sign() * (t.cos() - 1)), (-1.5 * math.pi, 1.5 * math.pi), 2.0
)
