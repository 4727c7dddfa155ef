"""Normalising flow of rational-quadratic coupling splines.

    y = t(x),  h_0 = y,  h_i = W_i S_i(P_i h_{i-1}),  u = h_L ~ N(0, I)

    log p(x) = log N(u; 0, I) + Σ_i (log|det W_i| + Σ_j log S_ij') + log|det t'(x)|

S_i leaves the first half of the coordinates as they are, and moves each of the others by a monotone spline whose bins
and slopes a residual network computes from the first half; outside of `[-tail_bound, tail_bound]` it is the identity.
P_i is a fixed random permutation in every other layer, and a reversal in those between, so that two layers move every
coordinate. W_i = L_i U_i. In one dimension a spline's parameters are free numbers.

Source: Neural Spline Flows (Durkan et al., 2019, arXiv 1906.04032).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from twostep.distributions import standard_normal_log_prob
from twostep.models.base import MODELS, TEST_METRICS, DensityEstimator, Likelihood, ModelConfig, Objective, Role
from twostep.nn.mlp import ResidualMLP
from twostep.schema import DataSpec, PositiveFloat, PositiveInt


@MODELS.register("flow")
class FlowConfig(ModelConfig):
    """Keys of `flow`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "Normalising flow of coupling splines (Durkan et al., 2019): an exact density"

    name: Literal["flow"] = "flow"
    transform: Literal["simple_nsf"] = Field("simple_nsf", description="kind of layers")
    hidden_units: PositiveInt = Field(64, description="width of the networks that compute the splines")
    num_layers: PositiveInt = Field(4, description="layers of coupling and mixing")
    num_blocks_per_layer: PositiveInt = Field(3, description="residual blocks of each of those networks")
    num_bins: PositiveInt = Field(8, description="bins of a spline")
    tail_bound: PositiveFloat = Field(1.0, description="splines act on [-tail_bound, tail_bound]")
    test_metrics: tuple[str, ...] = Field(("log_likelihood", "loss"), description=TEST_METRICS)

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Whiten and stop early always; on pictures a wider network, a lower rate, and whole numbers spread."""
        # A VAE's 20-d embeddings of digits: validation loss 11.5 at its best, 13.7 after all 100 epochs.
        always = {"whitening_transform": True, "early_stopping_metric": "loss", "max_bad_valid_epochs": 30}
        if not spec.is_image:
            return always
        return {**always, "dequantize": spec.discrete, "hidden_units": 128, "lr": 5e-4}

    def is_flat(self) -> bool:
        """Whether the layers take vectors: always."""
        return True

    def build(self, spec: DataSpec) -> Flow:
        """Return a `Flow` for data of this kind."""
        return Flow(self, spec)


class Flow(DensityEstimator):
    """Coupling splines between linear maps, fitted by maximum likelihood."""

    likelihood: ClassVar[Likelihood] = "exact"

    def __init__(self, config: FlowConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.dim = spec.dim
        self.layers = nn.ModuleList(FlowLayer(config, _order(layer, spec.dim)) for layer in range(config.num_layers))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact log-density, of shape `(B,)`, in nats."""
        return self._log_prob(self.transform(x)) + self.transform.log_abs_det_jacobian(x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points by sending Gaussian noise through the inverse flow."""
        like = next(self.parameters())
        h = torch.randn(n, self.dim, generator=generator, device=like.device, dtype=like.dtype)
        for layer in reversed(self.layers):
            h = layer.inverse(h)  # type: ignore[operator]
        return self.clamp(self.transform.inverse(h))

    def objectives(self) -> tuple[Objective, ...]:
        """Return the one loss: the negative log-density of the network's input, in nats a point."""
        return (Objective("loss", self._loss, tuple(self.parameters())),)

    def _loss(self, x: Tensor) -> Tensor:
        return -self._log_prob(self.network_input(x)).mean()

    def _log_prob(self, y: Tensor) -> Tensor:
        log_det = y.new_zeros(len(y))
        for layer in self.layers:
            y, step = layer(y)
            log_det = log_det + step
        return standard_normal_log_prob(y) + log_det


class FlowLayer(nn.Module):
    """Permutation, coupling spline and LU linear map; `(B, D) -> (B, D)` with its log-determinant `(B,)`."""

    order: Tensor
    restore: Tensor

    def __init__(self, config: FlowConfig, order: Tensor) -> None:
        super().__init__()
        dim = len(order)
        self.kept = dim // 2
        self.bins, self.bound = config.num_bins, config.tail_bound
        moved = dim - self.kept
        self.register_buffer("order", order)
        self.register_buffer("restore", order.argsort())
        self.lower_upper = nn.Parameter(torch.eye(dim))
        out_dim = moved * (3 * self.bins - 1)
        if self.kept:
            self.conditioner = ResidualMLP(self.kept, config.hidden_units, out_dim, config.num_blocks_per_layer)
        else:
            self.free = nn.Parameter(torch.zeros(1, out_dim))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Take one layer towards the noise."""
        h = h[:, self.order]
        kept, moved = h[:, : self.kept], h[:, self.kept :]
        moved, log_slope = self._spline(kept).call_and_ladj(moved)
        lower, upper = self._factors()
        mixed = torch.cat([kept, moved], 1) @ upper.T @ lower.T
        return mixed, log_slope.sum(1) + lower.diagonal().abs().log().sum()

    def inverse(self, h: Tensor) -> Tensor:
        """Take one layer towards the data."""
        lower, upper = self._factors()
        h = torch.linalg.solve_triangular(lower, h.T, upper=False)
        h = torch.linalg.solve_triangular(upper, h, upper=True, unitriangular=True).T
        kept, moved = h[:, : self.kept], h[:, self.kept :]
        moved = cast(Tensor, self._spline(kept).inv(moved))
        return torch.cat([kept, moved], 1)[:, self.restore]

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return L, lower triangular, and U, upper triangular with ones on its diagonal, of the map `L U`."""
        lower = self.lower_upper.tril()
        upper = self.lower_upper.triu(1) + torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return lower, upper

    def _spline(self, kept: Tensor) -> MonotonicRQSTransform:
        raw = self.conditioner(kept) if self.kept else self.free.expand(len(kept), -1)
        widths, heights, slopes = raw.unflatten(1, (-1, 3 * self.bins - 1)).split(
            [self.bins, self.bins, self.bins - 1], dim=-1
        )
        return MonotonicRQSTransform(widths, heights, slopes, bound=self.bound)


def _order(layer: int, dim: int) -> Tensor:
    return torch.arange(dim).flip(0) if layer % 2 else torch.randperm(dim)
