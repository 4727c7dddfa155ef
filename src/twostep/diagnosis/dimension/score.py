"""The intrinsic dimension around a point, from the score of a flow-matching model of the data.

Let p_σ be the density of the data with noise of std σ, and m(x) = x + σ² ∇log p_σ(x) the mean of the data given what
noise made of them. Near a manifold of d dimensions p_σ(x) ~ σ^(d - D), so

    d = D + ∂ log p_σ(x) / ∂ log σ = tr m'(x) + |m(x) - x|² / σ²          (FLIPD)

Noise across the manifold can be removed, noise along it can't, so the squared error that is left is

    d = E |m(x + σ ε) - x|² / σ²,   ε ~ N(0, I)                           (denoising loss)

Both hold at points of the manifold, for σ above the noise of the data and below the scale on which it bends; and as
far as the network knows the score, which takes more training at a small σ.

Sources: A Geometric View of Data Complexity (Kamkari et al., 2024, arXiv 2406.03537); A Connection Between Score
Matching and Local Intrinsic Dimension (Yeats et al., 2025, arXiv 2510.12975).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.models.base import evaluating
from twostep.models.fm import FlowMatching

ROWS = 100  # points whose Jacobians are held at once


@dataclass(frozen=True)
class ScoreDimension:
    """The dimension around each point by two estimates, `(B,)`, and the standard error of the second over draws."""

    flipd: Tensor
    denoising: Tensor
    standard_errors: Tensor


@torch.no_grad()
def score_dimension(
    model: FlowMatching, x: Tensor, sigma: float = 0.1, draws: int = 64, seed: int = 0
) -> ScoreDimension:
    """Estimate the intrinsic dimension around points `(B, *S)`, given a model that was fitted to such data.

    Args:
        model: trained, on rows of the same data.
        x: points of the data.
        sigma: scale at which the dimension is meant, in units of the model's transform: standard deviations of the
            data, where it standardises.
        draws: of noise at each point, for the denoising loss.
        seed: of that noise.

    Raises:
        UserError: for a scale that is not positive, or fewer than two draws.
    """
    if not sigma > 0 or draws < 2:
        raise UserError(f"sigma={sigma}, draws={draws}: give a positive scale and two draws or more")
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    with evaluating(model):
        for y in model.transform(x).split(ROWS):
            mean, trace = _denoised(model, y, sigma)
            flipd = trace + (mean - y).square().sum(1) / sigma**2
            noise = torch.randn(draws, *y.shape, generator=generator).to(y)
            left = torch.stack([model.denoised(y + sigma * one, sigma) - y for one in noise]).square().sum(2) / sigma**2
            found.append(torch.stack([flipd, left.mean(0), left.std(0) / draws**0.5]))
    return ScoreDimension(*torch.cat(found, 1))


def _denoised(model: FlowMatching, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return m at points `(B, D)`, and the trace of its Jacobian, `(B,)`."""
    s = y.new_tensor(1 / (1 + sigma))
    velocity, divergence = model.with_divergence()(s, s * y)
    return s * y + (1 - s) * velocity, s * model.dim + (1 - s) * s * divergence
