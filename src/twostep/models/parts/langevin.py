"""Langevin dynamics in a box: the sampler of unnormalised densities.

    y ← clamp(y - η clamp(∇E(y)) + σ ε),   ε ~ N(0, I)

With `η = σ²/2` and no clamp at work it samples `p(y) ∝ exp(-E(y))`, up to an error of order η; otherwise it is a
descent with noise, near `exp(-2η E / σ²)`.

Source: Bayesian Learning via Stochastic Gradient Langevin Dynamics (Welling & Teh, 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Langevin:
    """The sampler's settings; a call runs it.

    Args:
        step_size: η.
        sigma: std of the noise of each step.
        limits: lowest and highest value of every coordinate.
        gradient_limit: largest absolute value of a coordinate of the gradient; None: no limit.
    """

    step_size: float
    sigma: float
    limits: tuple[float, float]
    gradient_limit: float | None = None

    @torch.no_grad()
    def __call__(
        self,
        gradient: Callable[[Tensor], Tensor],
        start: Tensor,
        steps: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return where chains from `start` `(B, *)` are after some steps; `start` itself is left as it is.

        Args:
            gradient: maps points `(B, *)` to the gradients of their energies.
            start: first points of the chains.
            steps: number of steps.
            generator: of the noise; torch's own if it is None.
        """
        y, noise = start.clone(), torch.empty_like(start)
        for _ in range(steps):
            slope = gradient(y)
            if self.gradient_limit is not None:
                slope = slope.clamp(-self.gradient_limit, self.gradient_limit)
            y.sub_(slope, alpha=self.step_size)
            y.add_(noise.normal_(generator=generator), alpha=self.sigma).clamp_(*self.limits)
        return y
