"""A small U-Net of grids and times, such as a velocity.

A level works on the grid, and a coarser one on half of its sides. A block is `h + W₂ silu(n'(W₁ silu(n(h))))` of 3 x 3
convolutions, n the group norm, and n' the same, then shifted and scaled by functions of the time.

Sources: U-Net (Ronneberger et al., 2015, arXiv 1505.04597); Diffusion Models Beat GANs on Image Synthesis (Dhariwal &
Nichol, 2021, arXiv 2105.05233), for how the time modulates a block.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from twostep.nn.resnet import Grid, conv, group_norm
from twostep.nn.velocity import TimeFeatures

FEWEST = 4  # pixels of a side that is halved


class TimedConvBlock(nn.Module):
    """A block as above, of `before` to `after` channels; where they differ, a linear map takes h to the latter."""

    def __init__(self, before: int, after: int, time: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([group_norm(before), group_norm(after)])
        self.first, self.last = conv(before, after), conv(after, after)
        self.modulation = nn.Linear(time, 2 * after)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Map `(B, before, H, W)` and times' features `(B or 1, time)` to `(B, after, H, W)`."""
        shift, scale = self.modulation(time)[:, :, None, None].chunk(2, 1)
        normed = self.norms[1](self.first(silu(self.norms[0](h)))) * (1 + scale) + shift
        return self.skip(h) + self.last(self.dropout(silu(normed)))


class Level(nn.Module):
    """Blocks, what a coarser level of twice the channels makes of their halved grid, and blocks of both."""

    def __init__(self, width: int, time: int, blocks: int, dropout: float, coarser: Level | None = None) -> None:
        super().__init__()
        self.coarser = coarser
        self.halve = None if coarser is None else nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        sizes = [[width] * (blocks + 1), [width if coarser is None else 3 * width, *[width] * blocks]]
        self.down, self.up = (
            nn.ModuleList(TimedConvBlock(*pair, time, dropout) for pair in pairwise(way)) for way in sizes
        )

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Map `(B, width, H, W)` and times' features `(B or 1, time)` to the same shape."""
        for block in self.down:
            h = block(h, time)
        if self.coarser is not None and self.halve is not None:
            h = torch.cat([h, interpolate(self.coarser(self.halve(h), time), size=h.shape[2:])], 1)
        for block in self.up:
            h = block(h, time)
        return h


class UNet(nn.Module):
    """Levels between two convolutions, the last of which starts at zero.

    Args:
        grid: channels, height and width, of any size, of which points are the flattened values.
        width: channels of the first level; a side of `FEWEST` pixels or more has a second.
        blocks: of a level, on the way down and on the way up each.
        dropout: share of hidden values that a training step leaves out.
        conditions: see `TimeFeatures`.
    """

    def __init__(self, grid: Grid, width: int, blocks: int = 1, dropout: float = 0.0, conditions: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.time = TimeFeatures(width, conditions)
        coarser = Level(2 * width, width, blocks, dropout) if min(grid[1:]) >= FEWEST else None
        self.first, self.levels = conv(grid[0], width), Level(width, width, blocks, dropout, coarser)
        self.norm, self.last = group_norm(width), conv(width, grid[0])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, t: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Map times `(B,)` or one `()`, flattened grids `(B, D)` and conditions `(B or 1, K)` to `(B, D)`."""
        h = self.levels(self.first(y.unflatten(1, self.grid)), self.time(t, c))
        return self.last(silu(self.norm(h))).flatten(1)
