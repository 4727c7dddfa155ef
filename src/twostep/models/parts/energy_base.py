"""What the energy of `ebm` is relative to: nothing, in a box, or a Gaussian with the moments of the data.

    E(y) = F(y)   or   E(y) = F(y) - log N(y; 0, diag(spread²)),  y along the principal axes of the data

The second has its fresh chains from the Gaussian, and its network F has to learn only how the data differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from twostep.nn.distributions import normal_log_prob
from twostep.nn.energy import EnergyNet
from twostep.nn.principal import Principal


class BaseDistribution(Protocol):
    """What a network's energy is added to."""

    def energy(self, y: Tensor) -> Tensor:
        """Return the base's part of the energies, `(B,)`."""
        ...

    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        """Return the network's slope `(B, *)` and the base's together."""
        ...

    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fill `y` `(B, *)` with points to start fresh chains from, and return it."""
        ...


@dataclass(frozen=True)
class UniformBase:
    """No base: fresh chains start anywhere between `low` and `high`."""

    low: float
    high: float

    def energy(self, y: Tensor) -> Tensor:
        """Return zeros."""
        return y.new_zeros(len(y))

    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        """Return the network's slope."""
        return slope

    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw from the uniform law of the box."""
        return y.uniform_(self.low, self.high, generator=generator)


@dataclass(frozen=True)
class GaussianBase:
    """The Gaussian of the data along their principal axes."""

    axes: Principal

    def energy(self, y: Tensor) -> Tensor:
        """Return `-log N(y; 0, diag(spread²))`."""
        return -normal_log_prob(y.square(), self.axes.spread.log())

    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the network's slope and `y / spread²`."""
        return slope.addcdiv(y, self.axes.spread.square())

    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw from the Gaussian."""
        return y.normal_(generator=generator).mul_(self.axes.spread)


class EnergyOnPrincipalAxes(nn.Module):
    """An energy of pictures as one of their coordinates along principal axes, `(B, D) -> (B, 1)`.

    The network sees the picture that the coordinates make up, without mean and with its stds shrunk as the axes' are.

    Args:
        net: an energy of pictures.
        axes: the axes; their buffers stay with the transform that they belong to.
        shape: of a picture.
    """

    def __init__(self, net: EnergyNet, axes: Principal, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = cast(nn.Module, net), shape
        self._axes = (axes,)  # a tuple hides the module from this one's state, and is copied with it

    def forward(self, y: Tensor) -> Tensor:
        """Return the energies `(B, 1)`."""
        return self.net(self._picture(y))

    def gradient(self, y: Tensor) -> Tensor:
        """Return dE/dy, `(B, D)`, without a graph."""
        return cast(EnergyNet, self.net).gradient(self._picture(y)).flatten(1) @ self._axes[0].axes

    def _picture(self, y: Tensor) -> Tensor:
        return (y @ self._axes[0].axes.T).unflatten(1, self.shape)
