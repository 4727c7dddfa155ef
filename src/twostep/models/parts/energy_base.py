"""What the energy of `ebm` is relative to: nothing, in a box, or a Gaussian with the moments of the data.

    E(y) = F(y)   or   E(y) = F(y) - log N(y; 0, diag(spread²)),  y along the principal axes of the data

The second has its fresh chains from the Gaussian, and its network F has to learn only how the data differ from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from twostep.nn.distributions import normal_log_prob
from twostep.nn.principal import Principal


class BaseDistribution(ABC):
    """What a network's energy is relative to, and where fresh chains start."""

    @abstractmethod
    def energy(self, y: Tensor) -> Tensor:
        """Return the base's share of the energies at `y` `(B, *)`, `(B,)`."""

    @abstractmethod
    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        """Return the network's slope `(B, *)` at `y` and the base's together."""

    @abstractmethod
    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fill `y` `(B, *)` with draws of the base, and return it."""


@dataclass(frozen=True)
class UniformBase(BaseDistribution):
    """The uniform distribution between `low` and `high` in every coordinate; its energy is left out."""

    low: float
    high: float

    @override
    def energy(self, y: Tensor) -> Tensor:
        return y.new_zeros(len(y))

    @override
    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        return slope

    @override
    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        return y.uniform_(self.low, self.high, generator=generator)


@dataclass(frozen=True)
class GaussianBase(BaseDistribution):
    """N(0, diag(spread²)): the Gaussian with the moments of the data, along their principal axes."""

    axes: Principal

    @override
    def energy(self, y: Tensor) -> Tensor:
        return -normal_log_prob(y.square(), self.axes.spread.log())

    @override
    def add_slope(self, slope: Tensor, y: Tensor) -> Tensor:
        return slope.addcdiv(y, self.axes.spread.square())

    @override
    def fill(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        return y.normal_(generator=generator).mul_(self.axes.spread)


class EnergyOnPrincipalAxes(nn.Module):
    """An energy of images as one of their coordinates along principal axes, `(B, D) -> (B, 1)`.

    The network sees the image that the coordinates make up, without mean and with its stds shrunk as the axes' are.

    Args:
        net: an energy of images.
        axes: the axes; their buffers stay with the transform that they belong to.
        shape: of an image.
    """

    def __init__(self, net: nn.Module, axes: Principal, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape
        self._axes = (axes,)  # a tuple hides the module from this one's state, and is copied with it

    def forward(self, y: Tensor) -> Tensor:
        """Return the energies `(B, 1)`."""
        return self.net((y @ self._axes[0].axes.T).unflatten(1, self.shape))
