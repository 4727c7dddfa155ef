"""Maps of single columns: a smooth monotone one of numbers to normal scores, and the shares of levels.

A column of numbers x is mapped by a monotone rational-quadratic spline whose knots are quantiles of the training rows
and their normal scores, `G(x_p) = Φ⁻¹(p)`, and which is linear beyond the extremes. Of a column of levels the shares
P_k of training rows are kept, half a row added to each, so that a level that never occurred is not impossible.

Source of the spline: Neural Spline Flows (Durkan et al., 2019, arXiv 1906.04032).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

KNOTS = 33
ROWS_A_KNOT = 8
TAILS = (0.002, 0.01)
CLOSEST = 1e-4  # of the range between the 1 % and the 99 % quantile: nearer knots are one
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def log_normal(y: Tensor) -> Tensor:
    """Return log φ(y), of the shape of y."""
    return -0.5 * y.square() - LOG_SQRT_2PI


def normal_quantile(u: Tensor) -> Tensor:
    """Return Φ⁻¹(u), finite at 0 and 1; computed in double precision."""
    return torch.special.ndtri(u.double().clamp(1e-15, 1 - 1e-15))


class Splines(nn.Module):
    """A monotone map of each of C columns, `(B, C) -> (B, C)`, fitted to quantiles; the identity before."""

    x: Tensor
    y: Tensor
    slope: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        line = torch.linspace(-1, 1, KNOTS + 2 * len(TAILS) + 2).double().repeat(columns, 1)
        self.register_buffer("x", line)
        self.register_buffer("y", line.clone())
        self.register_buffer("slope", torch.ones_like(line))

    def fit(self, column: int, values: Tensor) -> None:
        """Take the knots of a column from its values `(n,)`; one without two different ones is only shifted."""
        values = values.double().sort().values
        if len(values) == 0:
            return
        low, high = values[0], values[-1]
        if not high > low:
            self.x[column] = self.y[column] + low
            return
        n = len(values)
        inner = (torch.arange(count := max(2, min(KNOTS, n // ROWS_A_KNOT))).double() + 0.5) / count
        ends = torch.tensor([0.5 / n, *(t for t in TAILS if t * n > 4)]).double()
        p = torch.cat([ends, inner, 1 - ends]).unique()
        at = torch.quantile(values, ((p * n - 0.5) / max(n - 1, 1)).clamp(0, 1))
        spread = torch.quantile(values, torch.tensor([0.01, 0.99]).double()).diff().clamp(min=float(high - low) * 1e-3)
        keep: list[int] = [0]
        for knot in range(1, len(p)):
            if at[knot] - at[keep[-1]] > CLOSEST * spread:
                keep.append(knot)
        if len(keep) < 2:
            keep = [0, len(p) - 1]
        x, y = at[keep], normal_quantile(p[keep])
        secant = y.diff() / x.diff()
        inside = 2 * secant[:-1] * secant[1:] / (secant[:-1] + secant[1:])  # harmonic: never steeper than twice either
        slope = torch.cat([secant[:1], inside, secant[-1:]])
        missing = self.x.shape[1] - len(x)  # knots that all columns have in one tensor, but this one does not need
        beyond = torch.arange(1, missing + 1).double() / secant[-1]
        self.x[column] = torch.cat([x, x[-1] + beyond])
        self.y[column] = torch.cat([y, y[-1] + beyond * secant[-1]])
        self.slope[column] = torch.cat([slope, secant[-1].expand(missing)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return normal scores and log-slopes, `(B, C)` each."""
        x = x.double()
        k = torch.searchsorted(self.x, x.T.contiguous()).T.clamp(1, self.x.shape[1] - 1) - 1
        x0, x1, y0, y1, d0, d1 = self._ends(k)
        width, height = x1 - x0, y1 - y0
        s, share = height / width, ((x - x0) / width)
        t = share.clamp(0, 1)
        within = s + (d0 + d1 - 2 * s) * t * (1 - t)
        y = y0 + height * (s * t.square() + d0 * t * (1 - t)) / within
        log_slope = (
            2 * s.log() + (d1 * t.square() + 2 * s * t * (1 - t) + d0 * (1 - t).square()).log() - 2 * within.log()
        )
        end = torch.where(share < 0, d0, d1)
        outside = (share < 0) | (share > 1)
        y = torch.where(outside, y + end * (share - t) * width, y)
        return y, torch.where(outside, end.log(), log_slope)

    def inverse(self, y: Tensor) -> Tensor:
        """Return the numbers with these normal scores."""
        y = y.double()
        k = torch.searchsorted(self.y, y.detach().T.contiguous()).T.clamp(1, self.y.shape[1] - 1) - 1
        x0, x1, y0, y1, d0, d1 = self._ends(k)
        width, height = x1 - x0, y1 - y0
        s = height / width
        inside = y.clamp(y0, y1)
        rise, bend = inside - y0, d0 + d1 - 2 * s
        a, b, c = height * (s - d0) + rise * bend, height * d0 - rise * bend, -s * rise
        root = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        x = x0 + root * width
        return x + torch.where(y < y0, (y - y0) / d0, torch.where(y > y1, (y - y1) / d1, 0.0))

    def _ends(self, k: Tensor) -> tuple[Tensor, ...]:
        """Return both ends of the pieces `(B, C)`: their x, y and slopes."""
        return tuple(table.gather(1, (k + one).T).T for table in (self.x, self.y, self.slope) for one in (0, 1))


class Shares(nn.Module):
    """The shares of levels of each of C columns, with K_c levels each, and their sums.

    `edge[c, k]` is the share of the levels before the k-th.
    """

    edge: Tensor

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.levels = levels
        most = max(levels, default=1)
        counts = torch.tensor(levels).double()[:, None]
        self.register_buffer("edge", (torch.arange(most + 1).double() / counts).clamp(max=1.0))

    def fit(self, column: int, codes: Tensor) -> None:
        """Take the shares of a column from its codes `(n,)`, integers."""
        number = self.levels[column]
        counts = torch.bincount(codes.long(), minlength=number).double() + 0.5
        self.edge[column, 1 : number + 1] = (counts / counts.sum()).cumsum(0)
        self.edge[column, number:] = 1.0

    def ends(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share before each level of `(B, C)`, integers, and its own."""
        low = self.edge.gather(1, codes.T).T
        return low, self.edge.gather(1, codes.T + 1).T - low

    def at(self, u: Tensor) -> Tensor:
        """Return the level whose interval has each number of `(B, C)` in [0, 1]."""
        found = torch.searchsorted(self.edge, u.double().T.contiguous(), right=True).T - 1
        last = torch.tensor(self.levels, device=u.device) - 1
        return torch.minimum(found.clamp(min=0), last)
