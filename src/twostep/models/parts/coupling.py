"""The layers of a flow: permute, move one half by splines that the other half decides, mix linearly.

    h_i = W_i S_i(P_i h_{i-1})

S_i leaves the first half of the coordinates as they are, and moves each of the others by a monotone rational-quadratic
spline whose bins and slopes a residual network computes from the first half; outside of `[-tail_bound, tail_bound]` it
is the identity. P_i is a fixed random permutation in every other layer, and a reversal in those between, so that two
layers move every coordinate. W_i = L_i U_i, plus a bias with `linear_bias`. In one dimension a spline's parameters are
free numbers.

On images a coordinate is a channel, at every pixel alike. Each level gathers 2 x 2 pixels into the channels of one,
applies its layers, and hands half of the channels on to the next level; the other half is noise already.

Sources: Neural Spline Flows (Durkan et al., 2019, arXiv 1906.04032); Density estimation using Real NVP (Dinh et al.,
2017, arXiv 1605.08803), for the levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from twostep.nn.cnn import ResidualCNN
from twostep.nn.mlp import ResidualMLP

LEVELS = 3


@dataclass(frozen=True)
class Couplings:
    """How the layers over one set of coordinates are made; the fields are keys of `FlowConfig`."""

    num_layers: int = 4
    hidden_units: int = 64
    num_blocks_per_layer: int = 3
    num_bins: int = 8
    tail_bound: float = 3.0
    linear_bias: bool = False
    conditions: int = 0  # size of a vector that the networks see beside the kept half

    def build(self, dim: int, network: Callable[[int, int, int, int], nn.Module]) -> list[FlowLayer]:
        """Return layers over `dim` coordinates, given the class of networks that compute the splines."""
        seen, parameters = dim // 2 + self.conditions, (dim - dim // 2) * (3 * self.num_bins - 1)
        return [
            FlowLayer(
                network(seen, self.hidden_units, parameters, self.num_blocks_per_layer)
                if seen
                else ConstantConditioner(parameters),
                torch.arange(dim).flip(0) if layer % 2 else torch.randperm(dim),
                self.num_bins,
                self.tail_bound,
                self.linear_bias,
            )
            for layer in range(self.num_layers)
        ]


class FlowLayer(nn.Module):
    """Permutation by `order`, coupling splines on `[-bound, bound]`, and LU linear map of the last axis.

    The conditioner computes `3 bins - 1` parameters for each moved coordinate from the kept half, and from a condition
    `(B, K)` if there is one.
    """

    order: Tensor
    restore: Tensor

    def __init__(self, conditioner: nn.Module, order: Tensor, bins: int, bound: float, bias: bool = False) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.kept, self.bins, self.bound = len(order) // 2, bins, bound
        self.register_buffer("order", order)
        self.register_buffer("restore", order.argsort())
        self.lower_upper = nn.Parameter(torch.eye(len(order)))
        self.bias = nn.Parameter(torch.zeros(len(order))) if bias else None

    def forward(self, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take one layer towards the noise; `(B, *, D)` to the same with its log-determinant `(B,)`."""
        h = h[..., self.order]
        kept, moved = h[..., : self.kept], h[..., self.kept :]
        moved, log_slope = self._spline(kept, c).call_and_ladj(moved)
        lower, upper = self._factors()
        mixed = torch.cat([kept, moved], -1) @ upper.T @ lower.T
        mixed = mixed if self.bias is None else mixed + self.bias
        places = math.prod(h.shape[1:-1])
        return mixed, log_slope.flatten(1).sum(1) + places * lower.diagonal().abs().log().sum()

    def inverse(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Take one layer towards the data."""
        lower, upper = self._factors()
        h = h if self.bias is None else h - self.bias
        columns = torch.linalg.solve_triangular(lower, h.flatten(0, -2).T, upper=False)
        h = torch.linalg.solve_triangular(upper, columns, upper=True, unitriangular=True).T.reshape(h.shape)
        kept, moved = h[..., : self.kept], h[..., self.kept :]
        moved = cast(Tensor, self._spline(kept, c).inv(moved))
        return torch.cat([kept, moved], -1)[..., self.restore]

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return L, lower triangular, and U, upper triangular with ones on its diagonal, of the map `L U`."""
        lower = self.lower_upper.tril()
        upper = self.lower_upper.triu(1) + torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return lower, upper

    def _spline(self, kept: Tensor, c: Tensor | None) -> MonotonicRQSTransform:
        raw = self.conditioner(kept if c is None else torch.cat([kept, c], 1))
        widths, heights, slopes = raw.unflatten(-1, (-1, 3 * self.bins - 1)).split(
            [self.bins, self.bins, self.bins - 1], dim=-1
        )
        return MonotonicRQSTransform(widths, heights, slopes, bound=self.bound)


class ConstantConditioner(nn.Module):
    """Numbers that depend on nothing: what decides the spline of a single coordinate; `(B, 0) -> (B, out_dim)`."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, out_dim))

    def forward(self, nothing: Tensor) -> Tensor:
        """Repeat the numbers for every row."""
        return self.values.expand(len(nothing), -1)


class Stack(nn.Module):
    """Invertible layers, such as `FlowLayer`, one after the other; data `(B, D)` to noise `(B, D)`.

    Layers of a conditional flow are given conditions `(B, K)` too.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, y: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to noise, with the log-determinant `(B,)`."""
        return _towards_noise(self.layers, y, y.new_zeros(len(y)), *c)

    def inverse(self, u: Tensor, *c: Tensor) -> Tensor:
        """Map noise to data."""
        return _towards_data(self.layers, u, *c)


def vector_layers(dim: int, couplings: Couplings) -> Stack:
    """Return layers over the coordinates of a vector."""
    return Stack(couplings.build(dim, ResidualMLP))


class Multiscale(nn.Module):
    """Layers over the channels of an image, at up to three resolutions; data `(B, C, H, W)` to noise `(B, D)`."""

    def __init__(self, shape: tuple[int, int, int], couplings: Couplings) -> None:
        super().__init__()
        channels, height, width = shape
        assert height % 2 == width % 2 == 0, "height and width must be even"
        self.levels = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []
        while len(self.levels) < LEVELS and height % 2 == width % 2 == 0:
            channels, height, width = 4 * channels, height // 2, width // 2
            self.shapes.append((height, width, channels))
            self.levels.append(nn.ModuleList(couplings.build(channels, ResidualCNN)))
            channels //= 2

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to noise, with the log-determinant `(B,)`."""
        h, log_det, done = y.movedim(1, -1), y.new_zeros(len(y)), list[Tensor]()
        for level in self.levels:
            h = h.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).transpose(2, 3).flatten(3)
            h, log_det = _towards_noise(level, h, log_det)
            noise, h = h.chunk(2, -1)
            done.append(noise.flatten(1))
        return torch.cat([*done, h.flatten(1)], 1), log_det

    def inverse(self, u: Tensor) -> Tensor:
        """Map noise to data."""
        sizes = [height * width * channels // 2 for height, width, channels in self.shapes]
        *done, last = u.split([*sizes, sizes[-1]], 1)
        h = last.unflatten(1, (*self.shapes[-1][:2], -1))
        for level, shape, noise in zip(reversed(self.levels), self.shapes[::-1], done[::-1], strict=True):
            h = torch.cat([noise.unflatten(1, (*shape[:2], -1)), h], -1)
            h = _towards_data(cast(nn.ModuleList, level), h)
            h = h.unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return h.movedim(-1, 1)


def _towards_noise(layers: nn.Module, h: Tensor, log_det: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
    for layer in cast(nn.ModuleList, layers):
        h, step = layer(h, *c)
        log_det = log_det + step
    return h, log_det


def _towards_data(layers: nn.ModuleList, h: Tensor, *c: Tensor) -> Tensor:
    for layer in reversed(layers):
        h = cast(FlowLayer, layer).inverse(h, *c)
    return h
