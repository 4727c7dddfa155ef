"""Sliced Wasserstein distance: the root mean squared distance between the projections of two sets on random directions.

    SW² = E_θ W₂²(θ·x, θ·y),   W₂² = ∫ (F⁻¹(u) - G⁻¹(u))² du

with F and G the distribution functions of the projections: an exact sum over sorted values, for sets of any sizes.

The interval is that of the delta method: the influence of a row on W₂² is the transport potential,
`φ(x) = ∫ 2 (t - T(t)) dt` up to x, with T the transport map; the variance of its mean over directions is added to that
of the choice of directions. Two samples of one distribution have a distance of order n^-½, which is not subtracted.

Source: Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twostep.core.estimate import NORMAL
from twostep.metrics.samples.checks import SampleEstimate

DIRECTIONS = 256
AT_ONCE = 32


def sliced_wasserstein(first: Tensor, second: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> SampleEstimate:
    """Return the sliced Wasserstein distance of features `(n, D)` and `(m, D)`, in units of the features.

    Memory grows with the number of rows, not of directions.
    """
    n, m, device = len(first), len(second), first.device
    # the optimal transport matches the sorted values i[p] and j[p] with mass widths[p]
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / nm
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    widths = ((ends - starts).double() / (n * m)).to(device)
    i, j = (starts // m).to(device), (starts // n).to(device)
    squares: list[Tensor] = []
    influences = [torch.zeros(size, dtype=torch.float64, device=device) for size in (n, m)]
    generator = torch.Generator().manual_seed(seed)
    thetas = torch.randn(directions, first.shape[1], generator=generator, dtype=torch.float64)
    thetas = (thetas / thetas.norm(dim=1, keepdim=True)).to(first)
    for some in thetas.split(AT_ONCE):
        (x, x_order), (y, y_order) = ((some @ z.T).double().sort(1) for z in (first, second))
        squares.append(((x[:, i] - y[:, j]).square() * widths).sum(1))
        for influence, order, potentials in (
            (influences[0], x_order, _potentials(x, i, y[:, j] * widths)),
            (influences[1], y_order, _potentials(y, j, x[:, i] * widths)),
        ):
            influence.index_add_(0, order.flatten(), potentials.flatten())
    every = torch.cat(squares)
    variance = sum(float((influence / directions).var()) / len(influence) for influence in influences)
    choice = float(every.var()) / directions if directions > 1 and first.shape[1] > 1 else 0.0
    square, margin = float(every.mean()), NORMAL * math.sqrt(variance + choice)
    low, value, high = (math.sqrt(max(0.0, square + sign * margin)) for sign in (-1, 0, 1))
    method = f"delta method and the choice of {directions} directions; at these n, bias included"
    return SampleEstimate(value, low, high, (n, m), method)


def _potentials(x: Tensor, matched: Tensor, masses: Tensor) -> Tensor:
    """Integrate `2 (x - T(x))` along sorted values `(p, n)`; T(x) is the mean of what each is matched with."""
    slopes = x - torch.zeros_like(x).index_add_(1, matched, masses * x.shape[1])
    steps = (slopes[:, 1:] + slopes[:, :-1]) * x.diff(dim=1)
    return torch.cat([steps.new_zeros(len(x), 1), steps.cumsum(1)], 1)
