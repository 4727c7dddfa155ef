"""A network of points and times, such as a velocity."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

FREQUENCIES = 4
MOST_FEATURES = 64  # of the time: each row has its own, so that as many as units would double the cost of a step
EPS = 1e-5  # of layer norms


class TimeFeatures(nn.Module):
    """Features of times and, if there are any, of conditions.

    Args:
        width: number of features.
        conditions: size K of a vector on which they also depend; 0: they do not. It joins them by a linear map without
            bias, zero at the start, so the vector of zeros stands for no condition.
    """

    frequencies: Tensor

    def __init__(self, width: int, conditions: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2 * FREQUENCIES, width), nn.Linear(width, width)
        self.register_buffer("frequencies", math.pi * torch.arange(1, FREQUENCIES + 1), persistent=False)
        self.condition = nn.Linear(conditions, width, bias=False) if conditions else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)

    def forward(self, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Map times `(B,)` or one `()`, in [0, 1], and conditions `(B or 1, K)` to `(B or 1, width)`."""
        angles = t.reshape(-1, 1) * self.frequencies
        h = self.last(silu(self.first(torch.cat([angles.cos(), angles.sin()], 1))))
        return silu(h if c is None or self.condition is None else h + self.condition(c))


class TimedBlock(nn.Module):
    """`h + W₂ silu(W₁ n(h))`, where n normalises h and then shifts and scales it by functions of the time."""

    def __init__(self, width: int, time: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(time, 2 * width)
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Map `(B, width)` and times' features `(B or 1, time)` to `(B, width)`."""
        shift, scale = self.modulation(time).chunk(2, 1)
        normed = layer_norm(h, h.shape[1:], eps=EPS) * (1 + scale) + shift
        return h + self.last(self.dropout(silu(self.first(normed))))


class TimedMLP(nn.Module):
    """Residual blocks between two linear layers, the last of which starts at zero.

    Source: Scalable Diffusion Models with Transformers (Peebles & Xie, 2023, arXiv 2212.09748), section 3.2, for how
    the time modulates a block.

    Args:
        dim: number of coordinates D.
        width: number of hidden units.
        blocks: number of residual blocks.
        dropout: share of hidden units that training leaves out.
        conditions: see `TimeFeatures`.
    """

    def __init__(self, dim: int, width: int, blocks: int, dropout: float = 0.0, conditions: int = 0) -> None:
        super().__init__()
        time = min(width, MOST_FEATURES)
        self.time = TimeFeatures(time, conditions)
        self.first, self.last = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList(TimedBlock(width, time, dropout) for _ in range(blocks))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Map times `(B,)` or one `()`, in [0, 1], points `(B, D)` and conditions `(B or 1, K)` to `(B, D)`."""
        time, h = self.time(t, c), self.first(y)
        for block in self.blocks:
            h = block(h, time)
        return self.last(layer_norm(h, h.shape[1:], eps=EPS))

    def with_trace(self, t: Tensor, y: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the values `(B, D)` at one time `()` and points `(B, D)`, and the traces of the Jacobians, `(B,)`.

        All points have one condition `(1, K)`, so that weights are scaled once.

        The columns C, `(B, D, width)`, of the Jacobian are pushed through the layers. These see h through its norm
        `n = (h - mean h) / s` alone, so h and C are kept without their means; the columns of n are `(C - n (n·C)) / s`,
        with the mean of products as the dot, and `W n` is known where they meet a weight W. The last block's columns
        are never needed, only the trace of the last layer after them. For evaluation: dropout is left out.
        """
        time = self.time(t, c)
        weight, bias = _centred(self.first)
        h, columns, last = linear(y, weight, bias), weight.T[None], None
        for block in cast(list[TimedBlock], list(self.blocks)):
            if last is not None:
                columns = columns + _times(*last)
            shift, scale = block.modulation(time).chunk(2, 1)
            first = block.first.weight * (1 + scale)
            n, s = _normed(h)
            rise = linear(n, first)
            a = rise + block.first(shift)
            gate = a.sigmoid()
            inner = _times(columns, first) - _dots(columns, n)[:, :, None] * rise[:, None]
            weight, bias = _centred(block.last)
            last = inner * (gate * (1 + a * (1 - gate)) / s)[:, None], weight
            h = h + linear(gate * a, weight, bias)
        n, s = _normed(h)
        value, W = linear(n, self.last.weight), self.last.weight
        trace = (columns * W).sum((1, 2)) - (_dots(columns, n) * value).sum(1)
        if last is not None:
            inner, weight = last
            trace = trace + inner.flatten(1) @ (W @ weight).flatten() - (_dots(inner, n @ weight) * value).sum(1)
        return value + self.last.bias, trace / s[:, 0]


def _centred(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer whose outputs are those of this one without their mean."""
    return layer.weight - layer.weight.mean(0), layer.bias - layer.bias.mean()


def _normed(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `layer_norm` makes of points `(B, width)` whose mean is 0, and by what it divides, `(B, 1)`."""
    s = (h.square().mean(1, keepdim=True) + EPS).sqrt()
    return h / s, s


def _times(C: Tensor, weight: Tensor) -> Tensor:
    """Return what a weight makes of columns `(B or 1, D, width)`, as one matrix product."""
    return linear(C.flatten(0, 1), weight).unflatten(0, C.shape[:2])


def _dots(C: Tensor, n: Tensor) -> Tensor:
    """Return the mean products of columns `(B or 1, D, width)` and points `(B, width)`, `(B, D)`."""
    return n @ C[0].T / n.shape[1] if len(C) == 1 else (C * n[:, None]).mean(2)
