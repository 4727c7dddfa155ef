"""Sliced Wasserstein distance: the root of the mean squared distance of two sets' projections on random directions.

    SW² = E_θ W₂²(θ·x, θ·y),   W₂² = ∫ (F⁻¹(u) - G⁻¹(u))² du

with F and G the distributions of the projections: an exact sum over sorted values, also of sets of different sizes.

The interval is that of the delta method: a row moves W₂² by the potential of the transport, `φ(x) = ∫ 2 (t - T(t)) dt`
up to x, T the transport; its variance, averaged over directions first, is added to that of the choice of directions.
Two samples of one law have a distance of order n^-½, which the interval does not take away.

Source: Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.metrics.samples.estimates import NORMAL, Estimate, check_features

DIRECTIONS = 256
AT_ONCE = 32


def sliced_wasserstein(first: Tensor, second: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> Estimate:
    """Return the sliced Wasserstein distance of features `(n, D)` and `(m, D)`, in units of the features.

    Memory grows with the rows, not with the number of directions.

    Raises:
        UserError: if the features can't be compared.
    """
    check_features(2, first=first, second=second)
    generator = torch.Generator().manual_seed(seed)
    plan = _Plan.of(len(first), len(second), first.device)
    squares: list[Tensor] = []
    moves = [torch.zeros(len(x), dtype=torch.float64, device=first.device) for x in (first, second)]
    thetas = torch.randn(directions, first.shape[1], generator=generator, dtype=torch.float64)
    thetas = (thetas / thetas.norm(dim=1, keepdim=True)).to(first)
    for some in thetas.split(AT_ONCE):
        (x, x_order), (y, y_order) = ((some @ z.T).double().sort(1) for z in (first, second))
        squares.append(((x[:, plan.i] - y[:, plan.j]).square() * plan.widths).sum(1))
        moves[0].index_add_(0, x_order.flatten(), _potentials(x, plan.carried(y, plan.i, plan.j, len(first))).flatten())
        moves[1].index_add_(
            0, y_order.flatten(), _potentials(y, plan.carried(x, plan.j, plan.i, len(second))).flatten()
        )
    every = torch.cat(squares)
    variance = sum(float((move / directions).var()) / len(move) for move in moves)
    choice = float(every.var()) / directions if directions > 1 and first.shape[1] > 1 else 0.0
    square, margin = float(every.mean()), NORMAL * math.sqrt(variance + choice)
    low, value, high = (math.sqrt(max(0.0, square + sign * margin)) for sign in (-1, 0, 1))
    method = f"delta method and the choice of {directions} directions; an interval at these n, bias included"
    return Estimate(value, low, high, (len(first), len(second)), method)


@dataclass(frozen=True)
class _Plan:
    """Which sorted values of two sets are matched, and what share of all each match has."""

    i: Tensor
    j: Tensor
    widths: Tensor

    @classmethod
    def of(cls, n: int, m: int, device: torch.device) -> _Plan:
        ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / nm
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        widths = (ends - starts).double() / (n * m)
        return cls((starts // m).to(device), (starts // n).to(device), widths.to(device))

    def carried(self, values: Tensor, to: Tensor, of: Tensor, n: int) -> Tensor:
        """Return the mean of what each of n sorted values is matched with, `(p, n)`."""
        matched = values[:, of] * self.widths * n
        return values.new_zeros(len(values), n).index_add_(1, to, matched)


def _potentials(x: Tensor, carried: Tensor) -> Tensor:
    """Integrate `2 (x - T(x))` along sorted values, `(p, n)`."""
    slopes = x - carried
    steps = (slopes[:, 1:] + slopes[:, :-1]) * x.diff(dim=1)
    return torch.cat([steps.new_zeros(len(x), 1), steps.cumsum(1)], 1)
