"""Activation functions by name, an affine map as a layer, and a spectral norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Activation = Literal["relu", "tanh", "swish"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "swish": nn.SiLU}


class Affine(nn.Module):
    """A map `(B, *S) -> (B, *T)` that is known to be affine."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map."""
        return self.of(x)


class SpectralNorm(nn.Module):
    """Divide a weight by an estimate of its largest singular value, `σ = ‖Wᵀu‖` with `u -> W Wᵀu / ‖W Wᵀu‖`.

    The power iteration moves only in `advance`, so that it takes as many steps on every rank.

    Source: Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018, arXiv 1802.05957).

    Args:
        weight: `(out, *)`; the axes after the first count as one.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", torch.randn(len(weight)))
        self.advance(weight, 15)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with largest singular value 1."""
        return weight / (self.u @ weight.flatten(1)).norm()

    @torch.no_grad()
    def advance(self, weight: Tensor, iterations: int = 1) -> None:
        """Take steps of the power iteration."""
        W = weight.flatten(1)
        for _ in range(iterations):
            u = W @ (self.u @ W)
            self.u.copy_(u / u.norm())

    @classmethod
    def on(cls, net: nn.Module) -> None:
        """Put a norm on every weight of a network."""
        for layer in list(net.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                parametrize.register_parametrization(layer, "weight", cls(layer.weight))

    @classmethod
    def advance_all(cls, net: nn.Module) -> None:
        """Take one step of the power iteration of every norm in a network."""
        for part in net.modules():
            if isinstance(part, parametrize.ParametrizationList):
                cast(SpectralNorm, part[0]).advance(part.original)
