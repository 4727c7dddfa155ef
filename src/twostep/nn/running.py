"""Statistics of training steps that a model keeps beside its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """An exponential moving average of a tensor over training steps, without the bias towards its start.

        m_t = Σ_i w_i x_i / Σ_i w_i,   w_i = s_i (1 - s_{i+1}) ... (1 - s_t)

    It lies in buffers, so it is saved with the weights; weights that were saved without it leave it at its start.

    Args:
        shape: of the tensor.
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


def _start_at_zero(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, buffer in module.named_buffers():
        state.setdefault(prefix + name, torch.zeros_like(buffer))
