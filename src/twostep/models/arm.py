"""Autoregressive model: an LSTM over the coordinates that gives each a mixture of Gaussians.

    y = t(x),  h_t = LSTM(h_{t-1}, c_t),  c_t = y_{t-1} and neighbours in {y_1 ... y_{t-2}},  (w, μ, s) = linear(h_t)

    log p(x) = Σ_t log Σ_k softmax(w)_k N(y_t; μ_k, diag σ_k²) + log|det t'(x)|,   σ = softplus(s) + 1e-4

A vector is read coordinate by coordinate; an image pixel by pixel in raster order, with the channels of a pixel as the
coordinates of y_t, and the pixels above and to the left as neighbours: an LSTM alone must carry them through a whole
row. What is outside is 0. The floor under σ bounds each term, so that no constant pixel drives the likelihood to
infinity.

Where the defaults differ from the reference's (a higher rate, images whitened and dequantised, a context of 2), the
validation likelihood is better by benchmarks/defaults.py.

Sources: Generating Sequences With Recurrent Neural Networks (Graves, 2013, arXiv 1308.0850); RNADE (Uria et al., 2013,
arXiv 1306.0186); Generative Image Modeling Using Spatial LSTMs (Theis & Bethge, 2015, arXiv 1506.03478).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad, softplus
from typing_extensions import Unpack, override

from twostep.core.keys import STOPPING_METRIC, TEST_METRICS
from twostep.core.schema import DataSpec, NonNegativeInt, PositiveFloat, PositiveInt
from twostep.models.base import (
    MODELS,
    DataArguments,
    DensityEstimator,
    Likelihood,
    Objective,
    OneLossConfig,
    Preset,
    Role,
)
from twostep.nn.distributions import LOG_2PI

FLOOR = 1e-4
STEPS_AT_ONCE = 2**17  # of the LSTM in one evaluation: 0.5 GB of gates at hidden_size 256


def earlier(shape: tuple[int, ...], context: int) -> Tensor:
    """Return which steps each step of a point sees, `(T, K)`, the one before it last; T stands for none."""
    steps = math.prod(shape[-2:])
    before = torch.arange(-1, steps - 1) % (steps + 1)
    if len(shape) == 1 or context == 0:
        return before[:, None]
    numbers = pad(torch.arange(steps).view(shape[1:]), (context, context, context, 0), value=steps)
    windows = numbers.unfold(0, context + 1, 1).unfold(1, 2 * context + 1, 1).flatten(2).flatten(0, 1)
    return torch.cat([windows[:, : -context - 2], before[:, None]], 1)


class ARM(DensityEstimator):
    """LSTM and mixtures, fitted by maximum likelihood.

    Args:
        event_shape: shape `*S` of a data point, `(D,)` or `(C, H, W)`, which the transform must leave as it is.
        k_mixture, hidden_size, num_layers, context: as the keys of `ARMConfig`.
        data: see `Model`.
    """

    before: Tensor
    likelihood: Likelihood = "exact"

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        k_mixture: int = 10,
        hidden_size: int = 128,
        num_layers: int = 1,
        context: int = 2,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(event_shape, **data)
        self.components = k_mixture
        self.features = event_shape[0] if len(event_shape) == 3 else 1
        self.steps = math.prod(event_shape) // self.features
        self.register_buffer("before", earlier(self.event_shape, context), persistent=False)
        self.lstm = nn.LSTM(self.before.shape[1] * self.features, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, self.components * (1 + 2 * self.features))

    @override
    def log_density(self, x: Tensor) -> Tensor:
        parts = self.transform(x).split(max(1, STEPS_AT_ONCE // self.steps))
        return torch.cat([self.conditionals(y).sum(1) for y in parts]) + self.transform.log_abs_det_jacobian(x)

    @override
    @torch.no_grad()  # the choice of a component has no gradient
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        state: tuple[Tensor, Tensor] | None = None
        drawn = self.head.weight.new_zeros(self.steps + 1, n, self.features)
        for step in range(self.steps):
            hidden, state = self.lstm(self._seen(drawn, self.before[step : step + 1]), state)
            weights, mean, std = self._mixture(hidden[0])
            chosen = torch.multinomial(weights.softmax(1), 1, generator=generator)[:, :, None]
            chosen = chosen.expand(-1, -1, self.features)
            noise = self.draw(torch.randn, drawn[step].shape, generator)
            drawn[step] = mean.gather(1, chosen)[:, 0] + std.gather(1, chosen)[:, 0] * noise
        return self.clamp(self.transform.inverse(drawn[:-1].permute(1, 2, 0).reshape(-1, *self.event_shape)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("loss", self._loss, tuple(self.parameters())),)

    def conditionals(self, y: Tensor) -> Tensor:
        """Map what the transform gives, `(B, *S)`, to `log p(y_t | y_1 ... y_{t-1})` of shape `(B, T)`, in nats."""
        sequence = y.reshape(len(y), self.features, self.steps).permute(2, 0, 1)  # (T, B, C), as the LSTM reads
        before = self._seen(torch.cat([sequence, torch.zeros_like(sequence[:1])]), self.before)
        with torch.autocast(y.device.type, enabled=False):  # a state kept over many steps; some CPUs have no other LSTM
            hidden = self.lstm(before)[0]
        weights, mean, std = self._mixture(hidden)
        error = ((sequence[:, :, None] - mean) / std).square()
        terms = -(0.5 * error + std.log()).sum(-1) + weights
        total = terms.logsumexp(-1) - weights.logsumexp(-1)
        return total.T - 0.5 * self.features * LOG_2PI

    def _loss(self, x: Tensor) -> Tensor:
        return -self.conditionals(self.network_input(x)).sum(1).mean()

    def _seen(self, sequence: Tensor, rows: Tensor) -> Tensor:
        """Return what the LSTM sees at each step, `(t, B, K C)`: rows `(t, K)` of a sequence that ends with zeros."""
        return sequence[rows].transpose(1, 2).flatten(2)

    def _mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map hidden states `(*, H)` to logits `(*, K)`, means and stds `(*, K, C)`."""
        K, C = self.components, self.features
        weights, mean, raw = self.head(hidden).split([K, K * C, K * C], dim=-1)
        return weights, mean.unflatten(-1, (K, C)), softplus(raw).unflatten(-1, (K, C)) + FLOOR


@MODELS.register("arm")
class ARMConfig(OneLossConfig):
    """Keys of `arm`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "autoregressive LSTM with mixtures of Gaussians"
    paper: ClassVar[str] = "Graves, 2013, arXiv 1308.0850"

    name: Literal["arm"] = "arm"
    k_mixture: PositiveInt = Field(10, description="Gaussians in the mixture of each step")
    hidden_size: PositiveInt = Field(128, description="width of the LSTM")
    num_layers: PositiveInt = Field(1, description="layers of the LSTM")
    context: NonNegativeInt = Field(2, description="rows above and pixels beside that a pixel sees; 0: the last one")
    lr: PositiveFloat = Field(3e-3, description="learning rate")
    use_lr_scheduler: bool = Field(True, description="cosine decay of the rate to 0 over all steps")
    early_stopping_metric: str | None = Field("loss", description=STOPPING_METRIC)
    test_metrics: tuple[str, ...] = Field(("log_likelihood", "loss"), description=TEST_METRICS)

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        layers = {"hidden_size": 256, "num_layers": 2} if spec.is_image else {}
        if preset != "reference":
            return {**layers, "whitening_transform": True, "dequantize": spec.is_image and spec.discrete}
        if spec.is_image:
            return {**layers, "lr": 1e-3, "scale_data": True, "context": 0}
        return {"lr": 1e-3, "whitening_transform": True}

    @override
    def is_flat(self) -> bool:
        return False

    @override
    def build(self, spec: DataSpec) -> ARM:
        return ARM(spec.shape, **self.arguments(ARM, spec))
