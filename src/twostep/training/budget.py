"""How a budget of time is shared by the two steps: by what their steps cost, measured before training."""

from __future__ import annotations

import time
from copy import deepcopy

import torch
from torch import Tensor

from twostep.data.batches import Batches
from twostep.models.base import Model
from twostep.training.trainer import Trainer

STEPS = 4  # that are timed; the first one, which warms up, does not count
LEAST = 0.2  # share of each step: what is measured is not all that a step costs


def gae_share(gae: Trainer, de: Trainer, train: Batches) -> float:
    """Return the autoencoder's share of the time: of steps left times seconds a step, from 0.2 to 0.8."""
    rows = train.data[: train.batch_size].to(train.device, torch.get_default_dtype())
    latents = torch.randn(len(rows), *de.model.event_shape, generator=torch.Generator().manual_seed(0)).to(rows)
    if getattr(de.model, "labels", 0):
        latents = torch.cat([latents, torch.zeros_like(latents[:, :1])], 1)
    costs = [
        seconds_a_step(one.model, x) * max(1, one.total_steps(len(train)) - one.steps_done)
        for one, x in ((gae, rows), (de, latents))
    ]
    first, second = gae.engine.sum(torch.tensor(costs, dtype=torch.float64)).tolist()
    return min(max(first / (first + second), LEAST), 1 - LEAST)


def seconds_a_step(model: Model, x: Tensor) -> float:
    """Return how long losses and gradients of a batch take, measured on a copy of the model."""
    model = deepcopy(model).train()
    seconds: list[float] = []
    with torch.random.fork_rng():
        for _ in range(STEPS):
            began = time.monotonic()
            for one in model.objectives():
                loss = one.loss(x)
                loss.backward(inputs=one.parameters)
                float(loss.detach())  # waits for a GPU
            seconds.append(time.monotonic() - began)
    return min(seconds[1:])
