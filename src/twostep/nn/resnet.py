"""Residual convolutions: an encoder that halves an image at each level, and its mirror.

A level folds each 2 x 2 pixels into channels, which a linear map takes to its own, and has residual blocks
`h + W₂ silu(n(W₁ silu(n(h))))` of 3 x 3 convolutions, n the group norm. An embedding is a vector, or the last level's
grid of few channels, flattened.

Sources: Deep Residual Learning for Image Recognition (He et al., 2016, arXiv 1512.03385); Group Normalization (Wu & He,
2018, arXiv 1803.08494); for the folding, Shi et al. (2016, arXiv 1609.05158).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from torch import nn
from torch.nn.functional import pad

from twostep.core.schema import UserError
from twostep.nn.layers import ACTIVATIONS, Activation, Affine, Residual

Grid = tuple[int, int, int]
"""Channels, height and width of an embedding that is a flattened grid."""

GROUPS = 8  # of channels at most, that share a mean and a variance


@dataclass(frozen=True)
class Levels:
    """Levels of a residual network: each one's channels, from the finest to the coarsest, and its blocks.

    `grid` is the shape of embeddings that are grids; None: they are vectors.
    """

    channels: Sequence[int]
    blocks: int = 1
    activation: Activation = "swish"
    grid: Grid | None = None

    def coarsest(self, shape: Sequence[int]) -> Grid:
        """Return the shape of the last level for images `(C, H, W)`, padded to whole pixels of it.

        Raises:
            UserError: if embeddings are to be grids of another size.
        """
        fold = 2 ** len(self.channels)
        height, width = (-(-side // fold) for side in shape[1:])
        if self.grid is not None and self.grid[1:] != (height, width):
            asked, image = ("x".join(map(str, sides)) for sides in (self.grid, shape[1:]))
            raise UserError(
                f"latent_shape={asked}: {len(self.channels)} levels of channels make of {image} pixels a grid of "
                f"{height} x {width}: set latent_shape={self.grid[0]}x{height}x{width}, or another number of channels"
            )
        return self.channels[-1], height, width

    def level(self, channels: int) -> Iterator[nn.Module]:
        """Yield the blocks of a level."""
        for _ in range(self.blocks):
            pair = ((*self.normed(channels), conv(channels, channels)) for _ in range(2))
            yield Residual(*chain.from_iterable(pair))

    def normed(self, channels: int) -> tuple[nn.Module, nn.Module]:
        """Return a group norm, without weights of its own, and the activation."""
        return group_norm(channels), ACTIVATIONS[self.activation]()


class ResidualEncoder(nn.Sequential):
    """From images to embeddings, `(B, C, H, W) -> (B, out_dim)`; of a grid `out_dim` is a multiple of its size."""

    def __init__(self, in_shape: Sequence[int], levels: Levels, out_dim: int) -> None:
        channels, height, width = levels.coarsest(in_shape)
        fold = 2 ** len(levels.channels)
        below, right = fold * height - in_shape[1], fold * width - in_shape[2]
        layers: list[nn.Module] = [Affine(lambda x: pad(x, (0, right, 0, below)))]
        for before, after in pairwise([in_shape[0], *levels.channels]):
            layers += [nn.PixelUnshuffle(2), conv(4 * before, after), *levels.level(after)]
        if levels.grid is None:
            last: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * height * width, out_dim)]
        else:
            last = [nn.Conv2d(channels, out_dim // (height * width), 1), nn.Flatten()]
        super().__init__(*layers, *levels.normed(channels), *last)


class ResidualDecoder(nn.Sequential):
    """The mirror of `ResidualEncoder`, `(B, in_dim) -> (B, C, H, W)`."""

    def __init__(self, in_dim: int, out_shape: Sequence[int], levels: Levels) -> None:
        start = levels.coarsest(out_shape)
        if levels.grid is None:
            layers: list[nn.Module] = [nn.Linear(in_dim, math.prod(start)), nn.Unflatten(1, start)]
        else:
            layers = [nn.Unflatten(1, levels.grid), conv(levels.grid[0], start[0])]
        for before, after in pairwise([*reversed(levels.channels), out_shape[0]]):
            layers += [*levels.level(before), *levels.normed(before), conv(before, 4 * after), nn.PixelShuffle(2)]
        super().__init__(*layers, Affine(lambda x: x[..., : out_shape[1], : out_shape[2]]))


def conv(before: int, after: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(before, after, 3, padding=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm without weights of its own, of `GROUPS` groups at most and four channels each at least."""
    return nn.GroupNorm(1 if channels % 4 else math.gcd(GROUPS, channels // 4), channels, affine=False)
