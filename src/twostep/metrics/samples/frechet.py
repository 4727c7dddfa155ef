"""Fréchet distance between Gaussians with the moments of two sets of features.

    FD = ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½

With `Σ₁ = S Sᵀ` the last trace is that of `M^½`, where `M = Sᵀ Σ₂ S` is symmetric: its eigenvalues are real, no root of
a matrix is taken, and S may have fewer columns than rows, so singular covariances need no help.

The interval is that of the delta method. The influence of a row x of the first set on FD is

    2 (μ₁ - μ₂)·(x - μ₁) + ‖x - μ₁‖² - ‖M^¼ S⁻¹ (x - μ₁)‖² - its mean

(the derivative with respect to Σ₁ is 1 - T, T being the optimal transport between the Gaussians), that of a row y of
the second set has `‖M^-¼ Sᵀ (y - μ₂)‖²` instead; the variance of FD is that of the influences over n. The bias remains:
for two samples of one distribution FD is about 0.54 D²/n at D << n; `fd_infinity` extrapolates it away.

Sources: The Fréchet Distance between Multivariate Normal Distributions (Dowson and Landau, 1982); GANs Trained by a Two
Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017, arXiv 1706.08500); Effectively
Unbiased FID and Inception Score and Where to Find Them (Chong and Forsyth, 2020, arXiv 1911.07023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twostep.core.estimate import NORMAL
from twostep.core.moments import BLOCK, Moments
from twostep.metrics.samples.checks import SampleEstimate, check_features, permutation

CUTS = (1, 2, 3, 4)
"""Numbers of subsets that `fd_infinity` divides the sets into."""


def distance(first: Moments, second: Moments) -> float:
    """Return the Fréchet distance of two Gaussians, in squared units of the features."""
    S = _root(first.covariance)
    eigenvalues = torch.linalg.eigvalsh(_between(S, second.covariance))
    return _distance(first, second, eigenvalues)


def frechet(first: Tensor, second: Tensor) -> SampleEstimate:
    """Return the Fréchet distance of two sets of features `(n, D)` and `(m, D)`, in squared units of the features.

    Memory grows with D², not with the number of rows.

    Raises:
        UserError: if the features can't be compared.
    """
    check_features(2, first=first, second=second)
    one, two = Moments.of(first), Moments.of(second)
    S = _root(one.covariance)
    eigenvalues, axes = torch.linalg.eigh(_between(S, two.covariance))
    roots = torch.where(eigenvalues > _negligible(eigenvalues), eigenvalues, 0)[:, None] ** 0.25
    to_first = roots * _after_inverse(axes.T, S)
    to_second = torch.where(roots > 0, 1 / roots, 0) * (axes.T @ S.T)
    variance = _variance(first, one.mean, two.mean, to_first) + _variance(second, two.mean, one.mean, to_second)
    return SampleEstimate.symmetric(
        _distance(one, two, eigenvalues),
        NORMAL * math.sqrt(variance),
        (len(first), len(second)),
        "delta method; of the distance at these n, bias included",
    )


def fd_infinity(first: Tensor, second: Tensor, seed: int = 0) -> SampleEstimate:
    """Return the Fréchet distance extrapolated to infinitely many rows; it can be negative for equal distributions.

    Both sets are divided at random into k disjoint subsets each, k = 1, 2, 3, 4; the mean distance of the subsets is
    linear in k to first order (in 1/n, as in the source), and is extrapolated to k = 0. As every k uses all rows, the
    interval has the width of that of `frechet`. For a linear relation, subsets need several times more rows than D.

    Raises:
        UserError: if the features can't be compared, or have fewer than 8 rows.
    """
    check_features(2 * CUTS[-1], first=first, second=second)
    one, two = (permutation(len(x), seed, x.device) for x in (first, second))
    means = [_mean_over_subsets(first, second, one, two, cuts) for cuts in CUTS]
    full = frechet(first, second)
    method = "delta method; of the distance without bias"
    return SampleEstimate.symmetric(_at_zero(CUTS, means), full.margin, full.n, method)


def _mean_over_subsets(first: Tensor, second: Tensor, order: Tensor, other: Tensor, cuts: int) -> float:
    pairs = zip(order.tensor_split(cuts), other.tensor_split(cuts), strict=True)
    return sum(distance(_moments(first, a), _moments(second, b)) for a, b in pairs) / cuts


def _moments(features: Tensor, rows: Tensor) -> Moments:
    return Moments.of_blocks(features[block] for block in rows.split(BLOCK))


def _at_zero(x: tuple[int, ...], y: list[float]) -> float:
    """Return the value at 0 of the least-squares line through the points."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * b for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return mean_y - slope * mean_x


def _distance(first: Moments, second: Moments, eigenvalues: Tensor) -> float:
    kept = torch.where(eigenvalues > _negligible(eigenvalues), eigenvalues, 0)
    traces = first.covariance.trace() + second.covariance.trace() - 2 * kept.sqrt().sum()
    return max(0.0, float((first.mean - second.mean).square().sum() + traces))


def _root(covariance: Tensor) -> Tensor:
    """Return S with `S Sᵀ` the covariance: triangular, or with as many columns as its rank if it is singular."""
    S, info = torch.linalg.cholesky_ex(covariance)
    pivots = S.diagonal().square()
    if not int(info) and bool(pivots.min() > len(S) * torch.finfo(S.dtype).eps * pivots.max()):
        return S
    eigenvalues, axes = torch.linalg.eigh(covariance)
    kept = eigenvalues > _negligible(eigenvalues)
    return axes[:, kept] * eigenvalues[kept].sqrt()


def _between(S: Tensor, covariance: Tensor) -> Tensor:
    M = S.T @ covariance @ S
    return (M + M.T) / 2


def _negligible(eigenvalues: Tensor) -> float:
    """Return a bound on the rounding errors of eigenvalues that are 0."""
    return len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * float(eigenvalues.max()) if len(eigenvalues) else 0.0


def _after_inverse(A: Tensor, S: Tensor) -> Tensor:
    """Return `A S⁻¹` for a result of `_root`, with the left inverse if S has orthogonal columns."""
    if S.shape[0] == S.shape[1]:
        return torch.linalg.solve_triangular(S, A, upper=False, left=False)
    return A @ (S / S.square().sum(0)).T


def _variance(rows: Tensor, mean: Tensor, other: Tensor, to: Tensor) -> float:
    """Return the variance of the mean influence of rows."""
    influences = [_influences(block, mean, other, to) for block in rows.split(BLOCK)]
    return float(torch.cat(influences).var()) / len(rows)


def _influences(block: Tensor, mean: Tensor, other: Tensor, to: Tensor) -> Tensor:
    x = block.double() - mean
    return 2 * x @ (mean - other) + x.square().sum(1) - (x @ to.T).square().sum(1)
