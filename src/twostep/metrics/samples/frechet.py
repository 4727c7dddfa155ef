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
from statistics import linear_regression

import torch
from torch import Tensor

from twostep.core.estimate import NORMAL
from twostep.core.moments import BLOCK, Moments
from twostep.metrics.samples.checks import SampleEstimate, permutation

CUTS = (1, 2, 3, 4)  # numbers of subsets that `fd_infinity` divides the sets into


def distance(first: Moments, second: Moments) -> float:
    """Return the Fréchet distance of two Gaussians, in squared units of the features."""
    return _distance(first, second, torch.linalg.eigvalsh(_matrices(first, second)[1]))


def frechet(first: Tensor, second: Tensor) -> SampleEstimate:
    """Return the Fréchet distance of two sets of features `(n, D)` and `(m, D)`, in squared units of the features.

    Memory grows with D², not with the number of rows.
    """
    one, two = Moments.of(first), Moments.of(second)
    S, M = _matrices(one, two)
    eigenvalues, axes = _eigh(M)
    roots = _above_rounding(eigenvalues)[:, None] ** 0.25
    if S.shape[0] == S.shape[1]:
        inverted = torch.linalg.solve_triangular(S, axes.T, upper=False, left=False)
    else:
        inverted = axes.T @ (S / S.square().sum(0)).T  # by the left inverse of orthogonal columns
    to_second = torch.where(roots > 0, 1 / roots, 0) * (axes.T @ S.T)

    def variance(rows: Tensor, mean: Tensor, other: Tensor, to: Tensor) -> float:
        influences: list[Tensor] = []
        for block in rows.split(BLOCK):
            x = block.double() - mean
            influences.append(2 * x @ (mean - other) + x.square().sum(1) - (x @ to.T).square().sum(1))
        return float(torch.cat(influences).var()) / len(rows)

    margin = NORMAL * math.sqrt(
        variance(first, one.mean, two.mean, roots * inverted) + variance(second, two.mean, one.mean, to_second)
    )
    method = "delta method; of the distance at these n, bias included"
    return SampleEstimate.symmetric(_distance(one, two, eigenvalues), margin, (len(first), len(second)), method)


def fd_infinity(first: Tensor, second: Tensor, seed: int = 0) -> SampleEstimate:
    """Return the Fréchet distance extrapolated to infinitely many rows; it can be negative for equal distributions.

    Both sets are divided at random into k disjoint subsets each, k = 1, 2, 3, 4; the mean distance of the subsets is
    linear in k to first order (in 1/n, as in the source), and is extrapolated to k = 0. As every k uses all rows, the
    interval has the width of that of `frechet`. For a linear relation, subsets need several times more rows than D.
    """
    one, two = (permutation(len(x), seed, x.device) for x in (first, second))
    means: list[float] = []
    for cuts in CUTS:
        pairs = zip(one.tensor_split(cuts), two.tensor_split(cuts), strict=True)
        means.append(sum(distance(Moments.of(first[a]), Moments.of(second[b])) for a, b in pairs) / cuts)
    at_zero = linear_regression(CUTS, means).intercept
    full = frechet(first, second)
    return SampleEstimate.symmetric(at_zero, full.margin, full.n, "delta method; of the distance without bias")


def _distance(first: Moments, second: Moments, eigenvalues: Tensor) -> float:
    trace = _above_rounding(eigenvalues).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace() - 2 * trace
    return max(0.0, float((first.mean - second.mean).square().sum() + traces))


def _matrices(first: Moments, second: Moments) -> tuple[Tensor, Tensor]:
    """Return S, which is triangular, or has as many columns as the covariance's rank if that is singular, and M."""
    root, info = torch.linalg.cholesky_ex(first.covariance)
    pivots = root.diagonal().square()
    if int(info) or bool(pivots.min() <= len(root) * torch.finfo(root.dtype).eps * pivots.max()):
        eigenvalues, axes = _eigh(first.covariance)
        kept = _above_rounding(eigenvalues) > 0
        root = axes[:, kept] * eigenvalues[kept].sqrt()
    M = root.T @ second.covariance @ root
    return root, (M + M.T) / 2


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors; where many are equal, which may not converge, after a shift by rounding."""
    try:
        return torch.linalg.eigh(matrix)
    except RuntimeError:  # torch.linalg.LinAlgError
        jitter = torch.finfo(matrix.dtype).eps * matrix.diagonal().abs().max() * torch.linspace(0, 1, len(matrix))
        return torch.linalg.eigh(matrix + jitter.to(matrix).diag())


def _above_rounding(eigenvalues: Tensor) -> Tensor:
    """Return the eigenvalues, with those that may be 0 but for rounding set to 0."""
    if not len(eigenvalues):
        return eigenvalues
    bound = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * float(eigenvalues.max())
    return torch.where(eigenvalues > bound, eigenvalues, 0)
