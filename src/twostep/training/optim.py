"""Optimiser steps on the objectives of a model, the cosine schedule, and optimiser state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from twostep.models.base import Objective, OptimizerConfig
from twostep.training.engine import Engine

Check = Callable[[str, float], None]
"""Raises an error if a value, given its name, is not finite."""


def build_optimizer(kind: str, parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimiser, in its fused form where torch has one."""
    if kind == "rmsprop":
        return torch.optim.RMSprop(parameters, config.lr, foreach=True)
    return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[kind](parameters, config.lr, fused=True)


def cosine(config: OptimizerConfig, done: float) -> float:
    """Return the rate after a share `done` of all steps: a half cosine from `lr` to 0, or `lr` throughout."""
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if config.use_scheduler else config.lr


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a norm of `max_norm` if it is larger; return their norm before."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm(grads)
    found = norm.item()
    if found > max_norm:
        clip_grads_with_norm_(parameters, max_norm, norm)
    return found


class Stepper:
    """Takes the steps of a model's objectives, each with an optimiser of its own kind and rate, by its name.

    Gradients are clipped to `max_norm`; None: never.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        kind: str,
        rates: Mapping[str, OptimizerConfig],
        max_norm: float | None,
        engine: Engine,
    ) -> None:
        self.objectives, self.rates, self.max_norm, self.engine = objectives, rates, max_norm, engine
        self.optimizers = {one.name: build_optimizer(kind, one.parameters, rates[one.name]) for one in objectives}

    @property
    def decays(self) -> bool:
        """Whether a rate has a schedule."""
        return any(self.rates[one.name].use_scheduler for one in self.objectives)

    def step(self, x: Tensor, number: int, done: float, weight: float, check: Check) -> dict[str, Tensor]:
        """Take one step for each objective that is due; return the detached losses, means over all ranks.

        `number` of the step decides what is due, the share `done` of all steps the rates. `x` are this rank's rows, if
        it has any, and `weight` their share in the batch. Each loss and gradient norm is checked.
        """
        losses: dict[str, Tensor] = {}
        for objective in self.objectives:
            if number % objective.every:
                continue
            optimizer = self.optimizers[objective.name]
            set_rate(optimizer, cosine(self.rates[objective.name], done))
            optimizer.zero_grad(set_to_none=True)
            loss = x.new_zeros(())
            if len(x):
                with self.engine.autocast():
                    loss = objective.loss(x)
                loss.backward(inputs=objective.parameters)
            loss = self.engine.reduce_gradients(objective.parameters, loss.detach().float(), weight)
            check(objective.name, loss.item())
            check(f"gradient norm of the {objective.name}", clip(objective.parameters, self.max_norm or math.inf))
            optimizer.step()
            if objective.after is not None:
                objective.after(self.engine.gather)
            losses[objective.name] = loss
        return losses

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimisers' moments and step counts as `objective.index.key -> tensor`."""
        return {
            f"{name}.{index}.{key}": value
            for name, optimizer in self.optimizers.items()
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
            if value is not None
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what `tensors` returned."""
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for place, tensor in tensors.items():
                if place.startswith(f"{name}."):
                    index, key = place.removeprefix(f"{name}.").split(".", 1)
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
