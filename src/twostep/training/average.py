"""An exponential moving average of a model's parameters over training steps.

    a_n = d_n a_{n-1} + (1 - d_n) w_n,   d_n = min(decay, (1 + n) / (10 + n))

The decay grows, so that the first weights, which are random, are soon forgotten.

Source: Acceleration of Stochastic Approximation by Averaging (Polyak & Juditsky, 1992).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of the parameters of a model; with a decay of None there is none, and nothing happens.

    Args:
        model: whose parameters are averaged, from their present values on.
        decay: largest d_n, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.model, self.decay = model, decay
        self.restart()

    def restart(self) -> None:
        """Begin anew at the present parameters."""
        parameters = dict(self.model.named_parameters()) if self.decay is not None else {}
        self.values = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Count the parameters after step n, from 0 on."""
        if self.decay is None:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self.model.named_parameters())
        for name, value in self.values.items():
            value.lerp_(parameters[name], weight)

    @contextmanager
    def applied(self) -> Generator[None]:
        """Let the model have the averages as its parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take averages that were saved; without any, begin anew."""
        self.restart()
        for name, value in self.values.items():
            if name in tensors:
                value.copy_(tensors[name])

    def _swap(self) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in self.values.items():
            self.values[name], parameters[name].data = parameters[name].data, value
