"""Convolutional encoders and decoders for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from typing_extensions import override

from twostep.core.schema import UserError
from twostep.nn.layers import ACTIVATIONS, Activation, Affine
from twostep.nn.mlp import ResidualMLP

PerLayer = int | Sequence[int]
"""One number for all layers, or one for each."""


@dataclass(frozen=True)
class Convolutions:
    """Layers of a convolutional network.

    Args:
        channels: after each convolution, or before each transposed one.
        kernel_size: side of the kernels in pixels.
        stride: in pixels.
        padding: pad each convolution by half its kernel, so that stride 1 with an odd kernel keeps the size, and no
            kernel or stride is too large for an image.
    """

    channels: Sequence[int]
    kernel_size: PerLayer = 3
    stride: PerLayer = 1
    activation: Activation = "relu"
    padding: bool = True

    def windows(self) -> list[tuple[int, int, int]]:
        """Return kernel, stride and padding of each layer."""
        kernels, strides = (
            [value] * len(self.channels) if isinstance(value, int) else list(value)
            for value in (self.kernel_size, self.stride)
        )
        return [
            (kernel, stride, kernel // 2 if self.padding else 0)
            for kernel, stride in zip(kernels, strides, strict=True)
        ]


class ConvEncoder(nn.Sequential):
    """Convolutions and a last linear layer; `(B, C, H, W) -> (B, out_dim)`.

    Raises:
        UserError: if there is no padding and a kernel is larger than what it is applied to.
    """

    def __init__(self, in_shape: Sequence[int], layers: Convolutions, out_dim: int) -> None:
        windows = layers.windows()
        modules: list[nn.Module] = []
        for (before, after), window in zip(pairwise([in_shape[0], *layers.channels]), windows, strict=True):
            modules += [nn.Conv2d(before, after, *window), ACTIVATIONS[layers.activation]()]
        height, width = _sizes(in_shape, windows)[-1]
        super().__init__(*modules, nn.Flatten(), nn.Linear(layers.channels[-1] * height * width, out_dim))

    def forward(self, input: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_dim)`."""
        first, *rest = self
        h = _channels_innermost(first(input))
        for layer in rest:
            h = layer(h)
        return h


class ConvDecoder(nn.Sequential):
    """The mirror of `ConvEncoder`: a linear layer and transposed convolutions; `(B, in_dim) -> (B, C, H, W)`."""

    def __init__(self, in_dim: int, out_shape: Sequence[int], layers: Convolutions) -> None:
        super().__init__()
        windows, channels = layers.windows(), layers.channels
        sizes = _sizes(out_shape, windows[::-1])[::-1]
        start = channels[0], *sizes[0]
        self.linear = nn.Linear(in_dim, math.prod(start))
        self.image = Affine(lambda h: _channels_innermost(h.unflatten(1, start)))
        modules: list[nn.Module] = []
        for (before, after), (small, large), (kernel, step, pad) in zip(
            pairwise([*channels, out_shape[0]]), pairwise(sizes), windows, strict=True
        ):
            lost = [full - ((side - 1) * step - 2 * pad + kernel) for side, full in zip(small, large, strict=True)]
            convolution = nn.ConvTranspose2d(before, after, kernel, step, pad, output_padding=(lost[0], lost[1]))
            modules += [ACTIVATIONS[layers.activation](), convolution]
        self.layers = nn.Sequential(*modules)


class ResidualCNN(ResidualMLP):
    """The same blocks of 3 x 3 convolutions; channels last, `(B, H, W, in_dim) -> (B, H, W, out_dim)`."""

    @override
    def layer(self, before: int, after: int, last: bool = False) -> nn.Conv2d:
        return nn.Conv2d(before, after, 1) if last else nn.Conv2d(before, after, 3, padding=1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


def _channels_innermost(x: Tensor) -> Tensor:
    """Return the same tensor `(B, C, H, W)` in another order of memory, in which convolutions take less time."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _sizes(shape: Sequence[int], windows: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return height and width before the first convolution and after each."""
    height, width = shape[1:]
    sizes = [(height, width)]
    for kernel, step, pad in windows:
        if min(height, width) + 2 * pad < kernel:
            raise UserError(
                f"padding=False: nothing is left of an image of {shape[1]} x {shape[2]} pixels after "
                f"{len(sizes)} convolutions: set padding=True, smaller kernels or fewer layers"
            )
        height, width = ((side + 2 * pad - kernel) // step + 1 for side in (height, width))
        sizes.append((height, width))
    return sizes
