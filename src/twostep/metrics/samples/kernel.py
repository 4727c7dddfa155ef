"""Squared maximum mean discrepancy between two sets of features, unbiased; KID is the one with a cubic kernel.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)

estimated by means over pairs of different rows; its mean is 0 if the distributions are equal, and it can be negative.
With `h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)` it is, except for the pairs i = j of the last
mean, a U-statistic of the pairs (x_i, y_i), with variance

    4 (n - 2) / (n (n - 1)) ζ₁ + 2 / (n (n - 1)) ζ₂,   ζ₁ = Var E[h | i],   ζ₂ = Var h

(Hoeffding). Both terms are estimated without bias; the first vanishes if the distributions are equal.

    KID    k(x, y) = (x·y / D + 1)³           MMD    k(x, y) = exp(-‖x - y‖² / 2σ²), σ the median distance between rows

Sources: A Kernel Two-Sample Test (Gretton et al., 2012); Demystifying MMD GANs (Bińkowski et al., 2018, arXiv
1801.01401).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from twostep.core.estimate import NORMAL
from twostep.core.seeds import derive
from twostep.metrics.samples.checks import SampleEstimate, permutation

BLOCK = 1024
MEDIAN_ROWS = 500


def kid(data: Tensor, samples: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> SampleEstimate:
    """Return the kernel inception distance of features `(n, D)` and `(m, D)`: the mean over random subsets of each set.

    The interval includes the variance of the U-statistic of `min(n, m)` pairs, averaged over the subsets, and that of
    the choice of subsets. Subsets are no larger than the smaller set; if one holds all rows, it is the only one.
    """
    n = min(len(data), len(samples))
    size = min(subset_size, n)
    count = 1 if size == max(len(data), len(samples)) else subsets

    def cubic(x: Tensor, y: Tensor) -> Tensor:
        base = (x @ y.T).double() / x.shape[1] + 1
        return base * base * base

    found: list[tuple[float, float, float]] = []
    for i in range(count):
        x, y = _some(data, size, derive(seed, "data", i)), _some(samples, size, derive(seed, "samples", i))
        found.append(_discrepancy(x, y, cubic))
    values, first, second = torch.tensor(found, dtype=torch.float64).T
    variance = _variance(n, float(first.mean()), float(second.mean()))
    choice = float(values.var()) / count if count > 1 else 0.0
    method = f"variance of the U-statistic and of the choice; subsets: {count} of {size:,} rows"
    margin = NORMAL * math.sqrt(variance + choice)
    return SampleEstimate.symmetric(float(values.mean()), margin, (len(data), len(samples)), method)


def mmd(data: Tensor, samples: Tensor, seed: int = 0) -> SampleEstimate:
    """Return the squared discrepancy of features `(n, D)` and `(m, D)` with a Gaussian kernel.

    Its width is the median distance between rows. The larger set is cut to the size of the smaller one.
    """
    n = min(len(data), len(samples))
    centre = data.mean(0)
    x, y = _some(data, n, derive(seed, "data")) - centre, _some(samples, n, derive(seed, "samples")) - centre
    rows = torch.cat([x[:MEDIAN_ROWS], y[:MEDIAN_ROWS]]).double()
    distances = torch.cdist(rows, rows)[*torch.triu_indices(len(rows), len(rows), 1)]
    apart = distances[distances > 0]
    width = float(apart.median()) if len(apart) else 1.0

    def gaussian(x: Tensor, y: Tensor) -> Tensor:
        squares = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).double()
        return squares.clamp_(min=0).div_(-2 * width**2).exp_()

    value, first, second = _discrepancy(x, y, gaussian)
    margin = NORMAL * math.sqrt(_variance(n, first, second))
    method = f"variance of the U-statistic; Gaussian kernel of width {width:.4g}"
    return SampleEstimate.symmetric(value, margin, (n, n), method)


def _discrepancy(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float, float]:
    """Return unbiased estimates of MMD², ζ₁ and ζ₂.

    They are sums over pairs of blocks; those above the diagonal count twice, for their mirror images.
    """
    n = len(x)
    within = across = squares = 0.0
    rows = torch.zeros(n, dtype=torch.float64, device=x.device)
    for i in range(0, n, BLOCK):
        for j in range(i, n, BLOCK):
            a, b = slice(i, i + BLOCK), slice(j, j + BLOCK)
            weight = 1 if i == j else 2
            same = kernel(x[a], x[b]) + kernel(y[a], y[b])
            mixed = kernel(x[a], y[b]) + kernel(x[b], y[a]).T
            across += weight * float(mixed.sum()) / 2
            h = same - mixed
            if i == j:
                same.fill_diagonal_(0)
                h.fill_diagonal_(0)
            within += weight * float(same.sum())
            squares += weight * float(h.square().sum())
            rows[a] += h.sum(1)
            if i != j:
                rows[b] += h.sum(0)
    row_squares = float(rows.square().sum())
    one_in_common = (row_squares - squares) / (n * (n - 1) * (n - 2))
    none = (float(rows.sum()) ** 2 - 4 * row_squares + 2 * squares) / (n * (n - 1) * (n - 2) * (n - 3))
    return within / (n * (n - 1)) - 2 * across / n**2, one_in_common - none, squares / (n * (n - 1)) - none


def _variance(n: int, first: float, second: float) -> float:
    return (4 * (n - 2) * max(first, 0.0) + 2 * max(second, 0.0)) / (n * (n - 1))


def _some(features: Tensor, size: int, seed: int) -> Tensor:
    return features if size == len(features) else features[permutation(len(features), seed, features.device)[:size]]
