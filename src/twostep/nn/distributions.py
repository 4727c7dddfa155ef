"""Closed forms of Gaussians that models share, in nats; sums run over all but the first axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from twostep.core.moments import gaussian_mixture

LOG_2PI = math.log(2 * math.pi)
COMPONENTS = (1, 4)
FEW = 10  # points for each coordinate: with fewer, covariances are diagonal


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Return `log N(z; 0, I)` of shape `(B,)`."""
    return normal_log_prob(z.square(), z.new_zeros(()))


def normal_log_prob(squared_error: Tensor, log_std: Tensor) -> Tensor:
    """Return `log N(x; m, diag(std²))`, `(B,)`, of `(x - m)²`, `(B, *)`, and stds that broadcast against it."""
    dim = math.prod(squared_error.shape[1:])
    if log_std.ndim == 0 or (log_std.ndim > 1 and log_std[0].numel() == 1):  # one, or one for each row
        log_std = log_std.flatten() if log_std.ndim else log_std
        scaled = (-2 * log_std).exp() * squared_error.flatten(1).sum(1)
        return -0.5 * scaled - dim * (log_std + 0.5 * LOG_2PI)
    return -(0.5 * (-2 * log_std).exp() * squared_error + log_std).flatten(1).sum(1) - 0.5 * dim * LOG_2PI


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return `KL(N(mean, diag(std²)) ‖ N(0, I))` of shape `(B,)`."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).flatten(1).sum(1)


def kl_to_prior(mean: Tensor, factor: Tensor, prior_std: float) -> Tensor:
    """Return `KL(N(mean, factor factorᵀ) ‖ N(0, prior_std² I))`, `(B,)`, for means `(B, d)`, factors `(*, d, d)`."""
    squares = mean.square().sum(1) + factor.square().sum((1, 2))
    scale = mean.new_tensor(prior_std).log()
    return 0.5 * (squares / prior_std**2 - mean.shape[1]) + mean.shape[1] * scale - log_det(factor)


def log_det(factor: Tensor) -> Tensor:
    """Return the log of the determinant of triangular matrices `(B, d, d)`, `(B,)`."""
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)


def mean_and_factor(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean `(d,)` of points `(n, d)` and a Cholesky factor `(d, d)` of their covariance.

    The covariance is diagonal where the points are few; a coordinate that does not vary has std 1.
    """
    x = points.double()
    variances = x.var(0)
    variances = torch.where(variances > 0, variances, 1.0)
    factor = torch.diag(variances.sqrt())
    if len(x) >= FEW * x.shape[1]:
        full, failed = torch.linalg.cholesky_ex(torch.cov(x.T).view(len(factor), -1) + 1e-6 * torch.diag(variances))
        factor = factor if failed else full
    return x.mean(0).to(points), factor.to(points)


def fitted_mixture(points: Tensor, seed: int) -> MixtureSameFamily:
    """Fit Gaussian mixtures to points `(n, d)`; of several numbers of components Bayes' criterion takes one."""
    full = len(points) >= FEW * points.shape[1] * max(COMPONENTS)
    weights, means, covariances = gaussian_mixture(points, COMPONENTS, seed, "full" if full else "diag")
    components = MultivariateNormal(means, covariances if full else torch.diag_embed(covariances))
    return MixtureSameFamily(Categorical(weights), components)
