"""Flow matching: a velocity that carries noise to data along straight lines on average.

    y = t(x),  u ~ N(0, I),  y_s = (1 - s) u + s y,  logit s ~ N(0, 1)

    min over v of E |v(s, y_s) - (y - u)|²,   v(s, y) = a(s) y + b(s) network(s, y)

The minimum is the conditional mean E[y - u | y_s], and the flow of dy/ds = v(s, y) carries N(0, I) at s = 0 to the
distribution of the data at s = 1. With a(s) = (2s - 1) / c(s)², b(s) = 1 / c(s) and c(s)² = s² + (1 - s)², a network
that is zero, as at the start, carries N(0, I) to itself, and has to learn what has variance 1 at any s.

    log p(x) = log N(y_0; 0, I) - ∫ div v(s, y_s) ds + log|det t'(x)|,   y_1 = y

The divergence is exact up to 128 dimensions (16 of a U-Net), above them Hutchinson's estimate (`nn/ode.py`).

Given a label, the network is v(s, y, label). It is trained without one on a tenth of the rows, so that samples may
follow

    v(s, y) + w (v(s, y, label) - v(s, y))

with a guidance w: 1 draws from the density itself, more from where it is highest relative to that of all labels.

The same network knows the score of the data with noise: y_s / s is y plus noise of std σ = (1 - s) / s, and by
Tweedie's formula the score of its density at y' is (E[y | y'] - y') / σ².

Sources: Flow Matching for Generative Modeling (Lipman et al., 2023, arXiv 2210.02747); Flow Straight and Fast (Liu et
al., 2023, arXiv 2209.03003); for the times, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis
(Esser et al., 2024, arXiv 2403.03206); Classifier-Free Diffusion Guidance (Ho & Salimans, 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.keys import EMA_DECAY, STOPPING_METRIC, TEST_METRICS
from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt, UserError
from twostep.models.base import (
    MODELS,
    DataArguments,
    Likelihood,
    Objective,
    OneLossConfig,
    Preset,
    Role,
)
from twostep.models.parts.conditional import ConditionalDensity, ConditionKeys
from twostep.nn import ode
from twostep.nn.distributions import standard_normal_log_prob
from twostep.nn.unet import UNet
from twostep.nn.velocity import TimedMLP

EXACT_DIM = 128  # up to which the divergence is exact
ROUGH_NODES = 4  # that show which labels a point can have
NEGLIGIBLE = 12.0  # nats: the error of so few nodes is up to 4 (benchmarks/conditional.py), and e^-8 below tolerance
EXACT_UNET = 16  # the same of a U-Net, which takes a pass for each coordinate
# defaults on spatial embeddings, whose log-densities take a CPU a minute for 1,000: a test leaves them out
UNET = {"net": "unet", "hidden_units": 32, "num_layers": 1, "probes": 1, "test_metrics": ("loss",)}
UNLABELLED = 0.1  # share of training rows whose label the network does not see
ENTRIES = 2**18  # of the tangents of one layer in one evaluation: what a cache holds


class FlowMatching(ConditionalDensity):
    """A velocity field whose flow carries noise to data.

    Args:
        network: maps times `(B,)` or one `()`, in [0, 1], and points `(B, D)` to `(B, D)`, also given labels as one-hot
            vectors `(B or 1, labels)` if there are any; a `TimedMLP` or any such module.
        event_shape: shape `*S` of a data point.
        steps: of the Runge-Kutta method from noise to a sample.
        tolerance: error of a log-density by the integration, in nats.
        probes: of Hutchinson's estimate, above `EXACT_DIM` dimensions (`EXACT_UNET` of a `UNet`).
        labels: number of labels on which the density is conditioned; 0: it is not.
        guidance: w of samples given labels; log-densities are those of w = 1.
        data: see `Model`; the transform must give vectors.
    """

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        steps: int = 10,
        tolerance: float = 0.01,
        probes: int = 8,
        labels: int = 0,
        guidance: float = 1.0,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(event_shape, labels, **data)
        self.guidance = guidance
        self.network, self.steps, self.tolerance, self.probes = network, steps, tolerance, probes
        largest = EXACT_UNET if isinstance(network, UNet) else EXACT_DIM
        self.likelihood: Likelihood = "exact" if self.dim <= largest else "estimate"

    def velocity(self, s: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the velocity at times `(B,)` or `()` of points `(B, D)`, in the coordinates of the transform.

        `c` are their labels as one-hot vectors, `(B or 1, labels)`; None: without label.
        """
        a, b = _coefficients(s.reshape(-1, 1))
        s = s.reshape(-1)
        return a * y + b * (self.network(s, y) if c is None else self.network(s, y, c))

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """Return the mean of the data given `x`, `(B, D)`, which is data with noise of std `sigma`.

        Both are in the coordinates of the transform, standard deviations where it whitens, as are those of `score`.
        """
        s = x.new_tensor(1 / (1 + sigma))
        return s * x + (1 - s) * self.velocity(s, s * x)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """Return the score of the density of data with noise of std `sigma` at `(B, D)`, `(B, D)`."""
        return (self.denoised(x, sigma) - x) / sigma**2

    @override
    def density_at(self, x: Tensor, y: int | None) -> Tensor:
        return self.estimate(x, y)[0]

    @override
    def log_densities(self, x: Tensor) -> Tensor:
        """Return log p(x | y) at points `(B, D)` for each label, `(B, labels)`.

        Those that a few nodes show to be less than `NEGLIGIBLE` below the highest, also by their shares of rows, are
        exact, the others -inf.
        """
        if self.likelihood != "exact":
            return super().log_densities(x)
        y, seen = self.transform(x).detach(), self.seen()
        rough = torch.cat([self.rough(part, seen) for part in y.split(self._rows_at_once)])
        near = _near(rough) | _near(rough + self.log_shares[seen])  # a rare label can be the best one
        found = x.new_full((len(x), self.labels), -torch.inf)
        for place, label in enumerate(seen):
            (rows,) = torch.where(near[:, place])
            if len(rows):
                found = found.index_put((rows, torch.full_like(rows, label)), self.density_at(x[rows], label))
        return found

    @torch.no_grad()
    def rough(self, y: Tensor, labels: Sequence[int]) -> Tensor:
        """Return what a few nodes give for the log-densities of points `(B, D)` given labels, `(B, len(labels))`."""
        found: list[Tensor] = []
        for label in labels:
            c = self.code(label, y)
            u, total, _ = ode.to_start(partial(self.velocity, c=c), self.with_divergence(None, c), y, ROUGH_NODES)
            found.append(standard_normal_log_prob(u) - total)
        return torch.stack(found, 1)

    @property
    def _rows_at_once(self) -> int:
        tangents = self.dim if self.likelihood == "exact" else self.probes
        return max(1, ENTRIES // (tangents * 256))

    def estimate(self, x: Tensor, label: int | None = None) -> tuple[Tensor, Tensor]:
        """Return log-densities at `(B, *S)`, `(B,)`, and their standard errors by the probes: 0 where they are exact.

        Probes are drawn from torch's generator; one alone has no standard error (NaN). With a label they are given it.
        """
        y = self.transform(x)
        c = None if label is None else self.code(label, y)
        probes, errors = self._probes(y), y.new_zeros(len(y))

        def of(rows: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
            parts = [within(part, nodes) for part in rows.split(self._rows_at_once)]
            return torch.cat([fine for fine, _ in parts]), torch.cat([rough for _, rough in parts])

        def within(rows: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
            both = self.with_divergence(None if probes is None else probes[:, rows], c)
            u, total, rough = ode.to_start(partial(self.velocity, c=c), both, y[rows], nodes)
            if probes is not None:
                errors[rows] = (total.detach().var(0, correction=0) / (len(total) - 1)).sqrt()
                total, rough = total.mean(0), rough.mean(0)
            start = standard_normal_log_prob(u)
            return start - total, start - rough

        log_prob = ode.until_exact(of, len(y), self.tolerance, y.device)
        return log_prob + self.transform.log_abs_det_jacobian(x), errors

    def with_divergence(self, probes: Tensor | None = None, c: Tensor | None = None) -> ode.WithDivergence:
        """Return the velocity with its divergence, or with Hutchinson's estimates of it by probes `(k, B, D)` of ±1.

        `c` is a label of all points, `(1, labels)`.
        """
        network = self.network
        if probes is not None or not isinstance(network, TimedMLP):
            return ode.with_divergence(partial(self.velocity, c=c), probes)

        def both(s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            (a, b), (value, trace) = _coefficients(s), network.with_trace(s, y, c)
            return a * y + b * value, a * self.dim + b * trace

        return both

    def guided(self, c: Tensor) -> ode.Velocity:
        """Return the velocity that samples given labels, one-hot vectors `(B or 1, labels)`, follow."""
        w = self.guidance

        def velocity(s: Tensor, y: Tensor) -> Tensor:
            if w in (0, 1):
                return self.velocity(s, y, c if w else None)
            free = self.velocity(s, y)
            return free + w * (self.velocity(s, y, c) - free)

        return velocity

    @override
    @torch.no_grad()
    def sample_given(self, n: int, generator: torch.Generator | None, y: Tensor | None) -> Tensor:
        u = self.draw(torch.randn, (n, self.dim), generator)
        times = torch.linspace(0, 1, self.steps + 1, device=u.device, dtype=u.dtype)
        velocity = self.velocity if y is None else self.guided(self.code(y, u))
        return self.clamp(self.transform.inverse(ode.integrate(velocity, u, times)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("loss", self._loss, tuple(self.parameters()), unit="squared velocity a coordinate"),)

    def _probes(self, y: Tensor) -> Tensor | None:
        if self.likelihood == "exact":
            return None
        signs = torch.rand(self.probes, *y.shape, device=y.device, dtype=y.dtype) < 0.5
        return torch.where(signs, y.new_ones(()), -y.new_ones(()))

    def _loss(self, rows: Tensor) -> Tensor:
        """Return the mean squared error a coordinate, one time in each of B equally probable parts."""
        x, c = rows, None
        if self.labels:
            x, labels = self.split(rows)
            seen = torch.rand(len(x), device=x.device) >= (UNLABELLED if self.training else 0.0)
            c = seen[:, None] * self.code(labels, x)
        y = self.network_input(x)
        u = torch.randn_like(y)
        parts = torch.arange(len(y), device=y.device, dtype=y.dtype)
        s = torch.special.ndtri((parts + torch.rand_like(parts)) / len(y)).sigmoid()[:, None]
        error = self.velocity(s[:, 0], (1 - s) * u + s * y, c) - (y - u)
        return error.square().mean()


def _near(logs: Tensor) -> Tensor:
    """Return which of logs `(B, K)` count beside the highest of each row; all where that is not a number."""
    return ~(logs <= logs.amax(1, keepdim=True) - NEGLIGIBLE)


def _coefficients(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return `a(s)` and `b(s)`."""
    square = s.square() + (1 - s).square()
    return (2 * s - 1) / square, square.rsqrt()


@MODELS.register("fm")
class FlowMatchingConfig(ConditionKeys, OneLossConfig):
    """Keys of `fm`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "flow matching: noise carried to data by an ordinary differential equation"
    paper: ClassVar[str] = "Lipman et al., 2023, arXiv 2210.02747"
    default_steps: ClassVar[int | None] = 5000

    name: Literal["fm"] = "fm"
    net: Literal["mlp", "unet"] = Field("mlp", description="kind of network; unet: of images and spatial embeddings")
    hidden_units: PositiveInt = Field(256, description="width of the network; channels of a unet's first level")
    num_layers: PositiveInt = Field(4, description="residual blocks of the network; of a unet, on each way of a level")
    dropout: NonNegativeFloat = Field(0.0, lt=1, description="share of hidden units that a training step leaves out")
    steps: PositiveInt = Field(10, description="Runge-Kutta steps from noise to a sample")
    tolerance: PositiveFloat = Field(0.01, description="error of a log-density of the integration, in nats")
    probes: PositiveInt = Field(8, description="of Hutchinson's estimate of the divergence, above 128 dimensions")
    guidance: NonNegativeFloat = Field(
        1.0, description="of samples given labels: 1 draws from their density, 2 clearer members of each label"
    )
    lr: PositiveFloat = Field(1e-3, description="learning rate")
    use_lr_scheduler: bool = Field(True, description="cosine decay of the rate to 0 over all steps")
    ema_decay: PositiveFloat | None = Field(0.999, lt=1, description=EMA_DECAY)
    early_stopping_metric: str | None = Field("loss", description=STOPPING_METRIC)
    test_metrics: tuple[str, ...] = Field(("log_likelihood", "loss"), description=TEST_METRICS)

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        values = {"whitening_transform": True, "dequantize": spec.is_image and spec.discrete}
        return values if spec.grid is None else {**values, **UNET}

    @override
    def is_flat(self) -> bool:
        return True

    @override
    def build(self, spec: DataSpec) -> FlowMatching:
        labels = self.labels(spec)
        size = self.hidden_units, self.num_layers, self.dropout, labels
        network = TimedMLP(spec.dim, *size) if self.net == "mlp" else UNet(grid_of(spec), *size)
        return FlowMatching(network, spec.shape, labels=labels, **self.arguments(FlowMatching, spec))


def grid_of(spec: DataSpec) -> tuple[int, int, int]:
    """Return the shape `(C, H, W)` of images or of spatial embeddings, or raise `UserError`."""
    shape = spec.shape if spec.grid is None else spec.grid
    if len(shape) != 3:
        raise UserError(f"net=unet needs images, or embeddings on a grid (key latent_shape); {spec.name}: use mlp")
    return shape[0], shape[1], shape[2]
