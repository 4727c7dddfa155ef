"""Importance sampling of integrals over R^d of densities in many dimensions, with a fitted proposal distribution.

    ∫ f = E_q[w],   w = f / q,   q a mixture of Student's t

with standard error `std(w) / √n` and effective sample size `(Σ w)² / Σ w²`. The tails of q are heavier than those of a
Gaussian, so that w is bounded unless those of f are heavier still. A mode of f far from the fitted points and the draws
of q is missed unnoticed.

Source: Monte Carlo theory, methods and examples (Owen, 2013), chapter 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.moments import gaussian_mixture
from twostep.metrics.density_check.quadrature import Integral

FREEDOM = 10.0  # degrees of freedom
COMPONENTS = (1, 10)
REGULARISATION = 1e-4  # added to the variances, relative to those of the points
CHUNK = 2**12


@dataclass(frozen=True)
class StudentMixture:
    """A mixture of multivariate Student's t, with Cholesky factors `(K, d, d)` of the scale matrices, in float64."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def fit(cls, points: Tensor, seed: int) -> StudentMixture:
        """Fit Gaussian mixtures to half of the points `(N, d)`, and choose by the likelihood of the other half."""
        mean, std = points.double().mean(0), points.double().std(0)
        std = torch.where(std > 0, std, 1.0)
        unit = (points.double() - mean) / std
        counts = [count for count in COMPONENTS if count * 10 <= len(unit)]
        others = unit[1::2].numpy()
        weights, means, covariances = gaussian_mixture(
            unit[::2], counts, seed, score=lambda mixture: mixture.score(others), reg_covar=REGULARISATION
        )
        return cls(weights, mean + std * means, std[:, None] * torch.linalg.cholesky(covariances))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `(n, d)` points."""
        of = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        squares = torch.randn(n, int(FREEDOM), dtype=torch.float64, generator=generator).square().sum(1, keepdim=True)
        scaled = (self.factors[of] @ noise[:, :, None]).squeeze(2)
        return self.means[of] + scaled * (FREEDOM / squares).sqrt()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at `(n, d)`, of shape `(n,)`."""
        dim = x.shape[1]
        away = torch.linalg.solve_triangular(self.factors, (x - self.means[:, None]).mT, upper=False)
        constant = math.lgamma((FREEDOM + dim) / 2) - math.lgamma(FREEDOM / 2) - dim / 2 * math.log(FREEDOM * math.pi)
        log_scale = self.weights.log() - self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        tails = (FREEDOM + dim) / 2 * torch.log1p(away.square().sum(1) / FREEDOM)
        return (constant + log_scale[:, None] - tails).logsumexp(0)


def integrate(f: Callable[[Tensor], Tensor], points: Tensor, n: int, seed: int) -> Integral:
    """Return the integral over R^d of a function as in `quadrature` by n draws of a proposal, fitted to the points."""
    proposal = StudentMixture.fit(points, seed)
    draws = proposal.sample(n, torch.Generator().manual_seed(seed))
    w = torch.cat([f(block) / proposal.log_prob(block).exp() for block in draws.split(CHUNK)])
    squares = float(w.square().sum())
    effective = float(w.sum()) ** 2 / squares if squares else 0.0
    return Integral(float(w.mean()), float(w.std()) / math.sqrt(n), n, effective)
