"""Optimisers by name, the cosine schedule, and optimiser state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from twostep.models.base import OptimizerConfig


def build_optimizer(kind: str, parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimiser, in its fused form where torch has one."""
    if kind == "adam":
        return torch.optim.Adam(parameters, config.lr, fused=True)
    if kind == "sgd":
        return torch.optim.SGD(parameters, config.lr, fused=True)
    assert kind == "rmsprop"
    return torch.optim.RMSprop(parameters, config.lr, foreach=True)


def cosine(config: OptimizerConfig, done: float) -> float:
    """Return the rate after a share `done` of all steps: a half cosine from `lr` to 0, or `lr` throughout."""
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if config.use_scheduler else config.lr


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a norm of `max_norm` if they have a larger one; return the norm that they had."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm(grads)
    found = norm.item()
    if found > max_norm:
        clip_grads_with_norm_(parameters, max_norm, norm)
    return found


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return moments and step counts as `index.key -> tensor`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items() if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
