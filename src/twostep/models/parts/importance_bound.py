"""Densities of latents that are summed over: what models with a bound on log p share.

    log p(x) = log E[w],   w = p(x, z) / q(z | x),  z ~ q
    log p(x) >= E log (1/k) Σ_i w_i,   the nearer the larger k is

Source: Importance Weighted Autoencoders (Burda et al., 2016, arXiv 1509.00519).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from twostep.models.base import DensityEstimator, Likelihood


class ImportanceBound(DensityEstimator):
    """A density that is known by the importance weights of latents."""

    likelihood: ClassVar[Likelihood] = "bound"

    @abstractmethod
    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """Return log w in data space of k draws at each point of `(B, *S)`, of shape `(k, B)`, in nats."""


def bound(log_weights: Tensor) -> Tensor:
    """Return `log (1/k) Σ_i w_i` of shape `(B,)`, for the logs `(k, B)`."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))
