"""Activation functions by name, an affine map as a layer, a spectral norm, and a running mean beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

RECENT = 0.01  # share of a batch in running moments
TINY = 1e-5  # under variances

Activation = Literal["relu", "tanh", "swish"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "swish": nn.SiLU}


class Function(nn.Module):
    """A function `(B, *S) -> (B, *T)` as a layer."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.of(x)


class Affine(Function):
    """A function that is known to be affine."""


class Residual(nn.Module):
    """`h + body(h)`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """Map `(B, *)` to the same shape."""
        return self.skip(h) + self.body(h)

    def skip(self, h: Tensor) -> Tensor:
        """Return what the body's values are added to, a linear function of h."""
        return h


class SpectralNorm(nn.Module):
    """Divide a weight by an estimate of its largest singular value, `σ = ‖Wᵀu‖` with `u -> W Wᵀu / ‖W Wᵀu‖`.

    The power iteration moves only in `advance`, so that it takes as many steps on every rank.

    Source: Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018, arXiv 1802.05957).
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


class RunningMean(nn.Module):
    """An exponential moving average of a tensor over training steps, without the bias towards its start.

        m_t = Σ_i w_i x_i / Σ_i w_i,   w_i = s_i (1 - s_{i+1}) ... (1 - s_t)

    It lies in buffers, so it is saved with the weights; weights that were saved without it leave it at its start.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(()))
        self.register_load_state_dict_pre_hook(_start_at_zero)

    def update(self, value: Tensor, share: float) -> None:
        """Count one more step's value, with a share of the new mean s_i between 0 and 1."""
        self.total.lerp_(value.to(self.total), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)

    def mean(self, start: Tensor) -> Tensor:
        """Return the mean, or `start` before the first step."""
        return torch.where(self.weight > 0, self.total / self.weight, start)

    def with_next(self, value: Tensor, share: float) -> Tensor:
        """Return the mean that another value would make of it; nothing is counted."""
        return torch.lerp(self.total, value, share) / torch.lerp(self.weight, torch.ones_like(self.weight), share)


class Standardize(nn.Module):
    """Coordinates of mean 0 and variance 1 over the batches of the last training steps.

    A training step takes the moments of its own batch, `of_batch`; after it, `count` takes the step's points of all
    ranks into the running ones.

    Source: Batch Normalization (Ioffe & Szegedy, 2015, arXiv 1502.03167).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean, self.variance = RunningMean((dim,)), RunningMean((dim,))
        self._seen: Tensor | None = None  # none where a rank has no rows in a batch

    def forward(self, z: Tensor) -> Tensor:
        """Map `(B, dim)` to the same shape."""
        mean, variance = self.mean.mean(torch.zeros_like(z[0])), self.variance.mean(torch.ones_like(z[0]))
        return (z - mean) * (variance + TINY).rsqrt()

    def of_batch(self, z: Tensor) -> Tensor:
        """Map `(B, dim)` to the same shape, by its own moments."""
        z = z.float() if z.dtype == torch.bfloat16 else z
        self._seen = z.detach()
        return (z - z.mean(0)) * (z.var(0, correction=0) + TINY).rsqrt()

    def count(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Count the points of the last step, given what gathers the rows of all ranks."""
        points = gather(self.mean.total.new_zeros(0, *self.mean.total.shape) if self._seen is None else self._seen)
        self.mean.update(points.mean(0), RECENT)
        self.variance.update(points.var(0, correction=0), RECENT)
        self._seen = None


def _start_at_zero(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, buffer in module.named_buffers():
        state.setdefault(prefix + name, torch.zeros_like(buffer))
