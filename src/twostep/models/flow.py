"""Normalising flow of rational-quadratic coupling splines.

    y = t(x),  h_0 = y,  h_i = W_i S_i(P_i h_{i-1}),  u = h_L ~ N(0, I)

    log p(x) = log N(u; 0, I) + Σ_i (log|det W_i| + Σ_j log S_ij') + log|det t'(x)|

The layers h_i are those of `coupling`: over all coordinates of a vector (`simple_nsf`), or over the channels of a
image at several resolutions (`multiscale`), or those of `autoregressive`.

Source: Neural Spline Flows (Durkan et al., 2019, arXiv 1906.04032).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.keys import TEST_METRICS
from twostep.core.schema import DataSpec, PositiveFloat, PositiveInt, UserError
from twostep.models.base import (
    MODELS,
    DataArguments,
    Likelihood,
    Objective,
    OneLossConfig,
    Preset,
    Role,
)
from twostep.models.parts.autoregressive import autoregressive_layers
from twostep.models.parts.conditional import ConditionalDensity, ConditionKeys
from twostep.models.parts.coupling import Couplings, Multiscale, vector_layers
from twostep.models.parts.networks import image_shape
from twostep.nn.distributions import standard_normal_log_prob

PLAIN = {"transform": "simple_nsf", "hidden_units": 128, "lr": 5e-4}  # of images


class Flow(ConditionalDensity):
    """Invertible layers, such as coupling splines between linear maps, fitted by maximum likelihood.

    Args:
        layers: map what the transform gives, `(B, *T)`, to noise `(B, D)` and the log-determinant `(B,)`, and have an
            `inverse` from noise; a `Stack`, a `Multiscale` or any such module. Both are also given labels as one-hot
            vectors `(B, labels)` if there are any.
        event_shape: shape `*S` of a data point.
        labels: number of labels on which the density is conditioned; 0: it is not.
        data: see `Model`.
    """

    likelihood: Likelihood = "exact"

    def __init__(
        self, layers: nn.Module, event_shape: Sequence[int], labels: int = 0, **data: Unpack[DataArguments]
    ) -> None:
        super().__init__(event_shape, labels, **data)
        self.layers: Any = layers

    @override
    def density_at(self, x: Tensor, y: int | None) -> Tensor:
        c = () if y is None else (self.code(y, x).expand(len(x), -1),)
        return self._log_prob(self.transform(x), *c) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample_given(self, n: int, generator: torch.Generator | None, y: Tensor | None) -> Tensor:
        u = self.draw(torch.randn, (n, self.dim), generator)
        c = () if y is None else (self.code(y, u),)
        return self.clamp(self.transform.inverse(self.layers.inverse(u, *c)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("loss", self._loss, tuple(self.parameters())),)

    def _loss(self, rows: Tensor) -> Tensor:
        if not self.labels:
            return -self._log_prob(self.network_input(rows)).mean()
        x, labels = self.split(rows)
        return -self._log_prob(self.network_input(x), self.code(labels, x)).mean()

    def _log_prob(self, y: Tensor, *c: Tensor) -> Tensor:
        u, log_det = self.layers(y, *c)
        return standard_normal_log_prob(u) + log_det


@MODELS.register("flow")
class FlowConfig(ConditionKeys, OneLossConfig):
    """Keys of `flow`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "normalising flow of coupling splines"
    paper: ClassVar[str] = "Durkan et al., 2019, arXiv 1906.04032"

    name: Literal["flow"] = "flow"
    transform: Literal["simple_nsf", "multiscale", "maf", "nsf"] = Field(
        "simple_nsf",
        description="layers: coupling splines over vectors, or over images at several resolutions (multiscale); "
        "autoregressive affine maps (maf) or splines (nsf), which take a pass for each coordinate to sample",
    )
    hidden_units: PositiveInt = Field(64, description="width of the networks that compute the splines")
    num_layers: PositiveInt = Field(4, description="layers of coupling and mixing")
    num_blocks_per_layer: PositiveInt = Field(3, description="residual blocks of each of those networks")
    num_bins: PositiveInt = Field(8, description="bins of a spline")
    tail_bound: PositiveFloat = Field(3.0, description="splines act on [-tail_bound, tail_bound]")
    linear_bias: bool = Field(False, description="whether the linear maps between splines have a bias")
    test_metrics: tuple[str, ...] = Field(("log_likelihood", "loss"), description=TEST_METRICS)

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        # Wider splines, averaged weights, a decaying rate and early stopping fit embeddings better, several resolutions
        # images (benchmarks/densities.py, benchmarks/defaults.py, benchmarks/digits_density.py).
        stopping = {"whitening_transform": True, "early_stopping_metric": "loss", "max_bad_valid_epochs": 30}
        if preset == "reference":
            layers = {"tail_bound": 1.0, "linear_bias": True}
            return {**layers, **stopping, **PLAIN} if spec.is_image else {**layers, "whitening_transform": True}
        if not spec.is_image:
            return {**stopping, "lr": 2e-3, "use_lr_scheduler": True, "ema_decay": 0.999}
        stopping["dequantize"] = spec.discrete
        if any(side % 2 for side in spec.shape[1:]):
            return {**stopping, **PLAIN}
        return {**stopping, "transform": "multiscale", "hidden_units": 32, "lr": 2e-3, "use_lr_scheduler": True}

    @override
    def is_flat(self) -> bool:
        return self.transform != "multiscale"

    @override
    def build(self, spec: DataSpec) -> Flow:
        labels = self.labels(spec)
        keys = self.model_dump(include=set(Couplings.__dataclass_fields__))
        couplings = Couplings(**keys, conditions=labels)
        data = self.data_arguments(spec)
        if self.transform in ("maf", "nsf"):
            return Flow(autoregressive_layers(self.transform, spec.dim, couplings), spec.shape, labels, **data)
        if self.is_flat():
            return Flow(vector_layers(spec.dim, couplings), spec.shape, labels, **data)
        if not spec.is_image or spec.shape[1] % 2 or spec.shape[2] % 2:
            raise UserError(
                f"transform=multiscale needs images of even height and width; {spec.name} has points of shape "
                f"{spec.shape}: leave the key out"
            )
        return Flow(Multiscale(image_shape(spec), couplings), spec.shape, **data)
