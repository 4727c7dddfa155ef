"""Gaussians that have the moments of an encoder's draws: one at each point, or one shape for all points."""

from __future__ import annotations

import torch
from torch import Tensor


def moments(draws: Tensor, prior_sigma: float, pooled: bool = False) -> tuple[Tensor, Tensor]:
    """Return the mean `(B, d)` of draws `(B, m, d)` and a Cholesky factor `(B, d, d)` of their covariance.

    Pooled, the covariance about the points' means is the mean over all points, so that a few draws of each suffice;
    its factor is `(1, d, d)`. Every variance grows by a thousandth, which keeps the correlations regular in single
    precision, and by a millionth of the prior's, which is what is left of a law that has collapsed to a point.
    """
    mean = draws.mean(1)
    centred = draws - mean[:, None]
    rows = centred.flatten(0, 1)[None] if pooled else centred
    covariance = rows.mT @ rows / (rows.shape[1] * (1 - 1 / draws.shape[1]))
    jitter = 1e-3 * covariance.diagonal(dim1=1, dim2=2) + 1e-6 * prior_sigma**2
    return mean, torch.linalg.cholesky(covariance + torch.diag_embed(jitter))


def log_det(factor: Tensor) -> Tensor:
    """Return half the log-determinant of the covariance with this factor `(B, d, d)`, of shape `(B,)`."""
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)


def kl_to_prior(mean: Tensor, factor: Tensor, prior_sigma: float) -> Tensor:
    """Return `KL(N(mean, factor factorᵀ) ‖ N(0, prior_sigma² I))` of shape `(B,)`, for means `(B, d)`."""
    squares = mean.square().sum(1) + factor.square().sum((1, 2))
    scale = mean.new_tensor(prior_sigma).log()
    return 0.5 * (squares / prior_sigma**2 - mean.shape[1]) + mean.shape[1] * scale - log_det(factor)
