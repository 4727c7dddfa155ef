"""Langevin dynamics in a box: the sampler of unnormalised densities.

    y ← clamp(y - η clamp(∇E(y)) + σ ε),   ε ~ N(0, I)

With `η = σ²/2` and no clamp at work it samples `p(y) ∝ exp(-E(y))`, up to an error of order η; otherwise it is a
descent with noise, near `exp(-2η E / σ²)`.

Source: Bayesian Learning via Stochastic Gradient Langevin Dynamics (Welling & Teh, 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
        self, gradient: Callable[[Tensor], Tensor], start: Tensor, steps: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return where chains from `start` `(B, *)`, which is left as it is, are after so many steps.

        `gradient` maps points `(B, *)` to the gradients of their energies.
        """
        y, noise = start.clone(), torch.empty_like(start)
        for _ in range(steps):
            slope = gradient(y)
            if self.gradient_limit is not None:
                slope = slope.clamp(-self.gradient_limit, self.gradient_limit)
            y.sub_(slope, alpha=self.step_size)
            y.add_(noise.normal_(generator=generator), alpha=self.sigma).clamp_(*self.limits)
        return y


class ReplayBuffer(nn.Module):
    """The last rows `(*shape)` that were appended, at most `size` of them; in buffers, so it is saved."""

    rows: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, *shape))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def append(self, rows: Tensor) -> None:
        """Write rows `(n, *shape)` over the oldest ones."""
        size = len(self.rows)
        rows = rows[-size:]
        places = (self.position + torch.arange(len(rows), device=rows.device)) % size
        self.rows[places] = rows
        self.position.copy_((self.position + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))

    def mix(self, fresh: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
        """Return fresh points `(n, *shape)`, all but a share of them replaced by rows drawn from the buffer."""
        filled = int(self.filled)
        if not filled:
            return fresh
        at = torch.randint(filled, (len(fresh),), generator=generator, device=fresh.device)
        new = torch.rand(len(fresh), generator=generator, device=fresh.device) < share
        return torch.where(new.view(-1, *(1 for _ in fresh.shape[1:])), fresh, self.rows[at])
