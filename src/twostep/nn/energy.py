"""Networks that compute an energy and its gradient in the input, and the spectral norm that keeps them smooth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from twostep.nn.layers import Activation
from twostep.nn.mlp import MLP

BLOCK = 256  # points whose activations are held at once

aten: Any = torch.ops.aten
# from dE/d(output) to dE/d(input) of an activation, given its input and its output
BACKWARD: dict[Activation, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda g, a, h: aten.threshold_backward(g, a, 0),
    "tanh": lambda g, a, h: aten.tanh_backward(g, h),
    "swish": lambda g, a, h: aten.silu_backward(g, a),
}


@runtime_checkable
class KnowsGradient(Protocol):
    """An energy that computes its gradient in the input by itself."""

    def gradient(self, y: Tensor) -> Tensor:
        """Return dE/dy, of the shape of `y`, without a graph; no parameter gets a gradient."""
        ...


def input_gradient(energy: nn.Module, y: Tensor) -> Tensor:
    """Return dE/dy, of the shape of `y` `(B, *)`, without a graph: the energy's own, or by autograd in blocks."""
    if isinstance(energy, KnowsGradient):
        return energy.gradient(y)
    return torch.cat([_by_autograd(energy, block) for block in y.split(BLOCK)])


@torch.enable_grad()
def _by_autograd(energy: nn.Module, y: Tensor) -> Tensor:
    y = y.detach().requires_grad_()
    return torch.autograd.grad(energy(y).sum(), y)[0]


class EnergyMLP(MLP):
    """A fully connected energy, `(B, in_dim) -> (B, 1)`; its gradient is written out, which is twice as fast.

    Args:
        in_dim: size of a point.
        hidden_dims: sizes of the hidden layers.
        activation: name of the activation.
    """

    def __init__(self, in_dim: int, hidden_dims: Sequence[int], activation: Activation) -> None:
        super().__init__(in_dim, hidden_dims, 1, activation)
        self.activation: Activation = activation

    @torch.no_grad()
    def gradient(self, y: Tensor) -> Tensor:
        """Return `dE/dy = W₁ᵀ a₁' W₂ᵀ a₂' ... w`, of shape `(B, in_dim)`."""
        *layers, last = self
        passed: list[tuple[Tensor, Tensor, Tensor]] = []
        h = y
        for linear, activation in zip(layers[::2], layers[1::2], strict=True):
            a = linear(h)
            h = activation(a)
            passed.append((cast(Tensor, linear.weight), a, h))
        g = cast(Tensor, last.weight).detach().to(h.dtype).expand(len(y), -1)
        for weight, a, h in reversed(passed):
            g = BACKWARD[self.activation](g, a, h) @ weight
        return g


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
