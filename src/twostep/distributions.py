"""The few closed forms that models share, in nats; sums run over all but the first axis."""

from __future__ import annotations

import math

from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Return `log N(z; 0, I)` of shape `(B,)`."""
    return normal_log_prob(z.square(), z.new_zeros(()))


def normal_log_prob(squared_error: Tensor, log_std: Tensor) -> Tensor:
    """Return `log N(x; m, diag(std²))` of shape `(B,)`.

    Args:
        squared_error: `(x - m)²`, of shape `(B, *)`.
        log_std: log of the std, of any shape that broadcasts against it.
    """
    dim = math.prod(squared_error.shape[1:])
    if log_std.ndim == 0:
        scaled = (-2 * log_std).exp() * squared_error.flatten(1).sum(1)
        return -0.5 * scaled - dim * (log_std + 0.5 * LOG_2PI)
    return -(0.5 * (-2 * log_std).exp() * squared_error + log_std).flatten(1).sum(1) - 0.5 * dim * LOG_2PI


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return `KL(N(mean, diag(std²)) ‖ N(0, I))` of shape `(B,)`."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).flatten(1).sum(1)
