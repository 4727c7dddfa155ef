"""Gaussians that have the moments of an implicit distribution's draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twostep.nn.distributions import standard_normal_log_prob


def moments(draws: Tensor, prior_std: float) -> tuple[Tensor, Tensor]:
    """Return the mean `(B, d)` of draws `(B, m, d)` and a Cholesky factor `(B, d, d)` of their covariance."""
    mean = draws.mean(1)
    centred = draws - mean[:, None]
    return mean, cholesky(centred.mT @ centred / (draws.shape[1] - 1), prior_std)


def cholesky(covariance: Tensor, prior_std: float) -> Tensor:
    """Return a Cholesky factor of covariances `(*, d, d)`, NaN for those that are not finite.

    Every variance grows by a thousandth, which keeps the correlations regular in single precision, and by a millionth
    of the prior's, which is what is left of a distribution that has collapsed to a point.
    """
    with torch.autocast(covariance.device.type, enabled=False):  # CUDA has no cholesky in half precision
        covariance = covariance.to(torch.promote_types(covariance.dtype, torch.float32))
        jitter = 1e-3 * covariance.diagonal(dim1=-2, dim2=-1) + 1e-6 * prior_std**2
        factor, failed = torch.linalg.cholesky_ex(covariance + torch.diag_embed(jitter))
    return factor.masked_fill(failed.bool()[..., None, None], torch.nan)


def kl_to_prior(mean: Tensor, factor: Tensor, prior_std: float) -> Tensor:
    """Return `KL(N(mean, factor factorᵀ) ‖ N(0, prior_std² I))` of shape `(B,)`, for means `(B, d)`."""
    squares = mean.square().sum(1) + factor.square().sum((1, 2))
    scale = mean.new_tensor(prior_std).log()
    return 0.5 * (squares / prior_std**2 - mean.shape[1]) + mean.shape[1] * scale - _log_det(factor)


def log_weights(log_joint: Callable[[Tensor], Tensor], proposal: tuple[Tensor, Tensor], k: int) -> Tensor:
    """Return `log p(y, z_i) / N(z_i; mean, factor factorᵀ)` of k draws of the proposal at each point, `(k, B)`.

    Args:
        log_joint: maps latents `(B, d)` to `log p(y, z)`.
        proposal: means `(B, d)` and Cholesky factors `(B, d, d)`.
        k: number of draws at each point.
    """
    mean, factor = proposal
    weights: list[Tensor] = []
    for _ in range(k):
        noise = torch.randn_like(mean)
        z = mean + (factor @ noise[:, :, None]).squeeze(2)
        weights.append(log_joint(z) - standard_normal_log_prob(noise) + _log_det(factor))
    return torch.stack(weights)


def _log_det(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)
