"""A network of points and times, such as a velocity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

FREQUENCIES = 4


class TimedBlock(nn.Module):
    """`h + W₂ silu(W₁ n(h))`, where n normalises h and then shifts and scales it by functions of the time."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Map `(B, width)` and times' features `(B or 1, width)` to `(B, width)`."""
        shift, scale = self.modulation(time).chunk(2, 1)
        normed = layer_norm(h, h.shape[1:]) * (1 + scale) + shift
        return h + self.last(self.dropout(silu(self.first(normed))))


class TimedMLP(nn.Module):
    """Residual blocks between two linear layers, the last of which starts at zero.

    Source: Scalable Diffusion Models with Transformers (Peebles & Xie, 2023, arXiv 2212.09748), section 3.2, for how
    the time modulates a block.
    """

    frequencies: Tensor

    def __init__(self, dim: int, width: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * torch.arange(1, FREQUENCIES + 1), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.first, self.last = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList(TimedBlock(width, dropout) for _ in range(blocks))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map times `(B,)` or one `()`, in [0, 1], and points `(B, D)` to `(B, D)`."""
        angles = t.reshape(-1, 1) * self.frequencies
        time = self.time(torch.cat([angles.cos(), angles.sin()], 1))
        h = self.first(y)
        for block in self.blocks:
            h = block(h, time)
        return self.last(layer_norm(h, h.shape[1:]))
