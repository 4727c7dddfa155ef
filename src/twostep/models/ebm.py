"""Energy-based model.

    p(y) ∝ exp(-E(y)),  y = t(x) in the box [low, high]^D,   E(y) = F(y)  or  F(y) - log N(y; 0, diag(spread²))

    min over F  of  mean E(y) - E(y⁻) + α (F(y)² + F(y⁻)²)

over data y and negatives y⁻: points that Langevin dynamics takes from a replay buffer of earlier negatives, or from
fresh starts, towards low energies. The gradient of the first two terms is that of maximum likelihood if the
negatives follow the model; the penalty keeps the network F near 0.

With a Gaussian base t maps to principal axes, and the base has the moments of the data there: F has to learn only how
the data differ from their Gaussian, from which fresh chains start (without a base: uniformly in the box).

Noise of std σ on the data (`denoising_sigma`) bounds the curvature of E by 1/σ², which a Langevin step must resolve.
The model is then one of noisy data, and a sample the mean of a clean point given a noisy one: `x + σ² ∇ log p(x)`.

Sources: Implicit Generation and Generalization in Energy-Based Models (Du & Mordatch, 2019, arXiv 1903.08689);
Neural Empirical Bayes (Saremi & Hyvärinen, 2019, arXiv 1903.02334) for the last formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, FiniteFloat, field_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Unpack, override

from twostep.core.keys import TEST_METRICS, Channels, PerLayer, Sizes
from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt
from twostep.models.base import (
    MODELS,
    DataArguments,
    DensityEstimator,
    Gather,
    Likelihood,
    Objective,
    OneLossConfig,
    Preset,
    Role,
    evaluating,
)
from twostep.models.parts.annealing import LogNormalizer, log_normalizer
from twostep.models.parts.langevin import Langevin, ReplayBuffer
from twostep.models.parts.networks import KERNEL, STRIDE, Net, NetworkConfig, unpadded
from twostep.nn.distributions import normal_log_prob
from twostep.nn.jacobian import input_gradient
from twostep.nn.layers import Activation, SpectralNorm
from twostep.nn.principal import Principal
from twostep.nn.transforms import Chain

PUBLISHED = Langevin(step_size=10.0, sigma=0.005, limits=(-1.0, 1.0), gradient_limit=0.03)

# A step is half the noise's variance, so that chains sample exp(-E); the buffer holds eight batches, so that no
# chain is much older than its energy; rates end at 0, where the chains catch up.
GAUSSIAN_BASE: dict[str, Any] = {
    "base": "gaussian",
    "x_lims": (-100.0, 100.0),
    "max_length_buffer": 1024,
    "ld_grad_clamp": None,
    "use_lr_scheduler": True,
}
VECTORS: dict[str, Any] = {
    "energy_func_hidden_dims": (128, 64),
    "loss_alpha": 0.001,
    "ld_steps": 40,
    "ld_step_size": 0.03,
    "ld_sigma": 0.06**0.5,
    "ld_eps_new": 0.5,
    "lr": 5e-4,
}
IMAGES: dict[str, Any] = {
    "energy_func_hidden_dims": (512, 256),
    "loss_alpha": 3e-4,
    "ld_steps": 12,
    "ld_step_size": 0.1,
    "ld_sigma": 0.2**0.5,
    "lr": 1e-3,
}
NOISE = 0.15  # std on images, as a share of their range
ROWS_TO_PASS = 400_000  # in training, in at least 40 epochs and at most 300


class EBM(DensityEstimator):
    """An energy fitted by contrastive divergence. The replay buffer is the same on all ranks, and is saved.

    Args:
        energy: F, maps what the transform gives, `(B, *T)`, to `(B, 1)` or `(B,)`.
        event_shape: shape `*S` of a data point.
        axes: the end of the transform, whose Gaussian exp(-F) is relative to; None: relative to 1.
        langevin: the sampler, whose limits are the box; None: the paper's, for data scaled to [-1, 1].
        ld_steps, ld_eps_new, loss_alpha, max_length_buffer: as the keys of `EBMConfig`.
        data: see `Model`.
    """

    likelihood: Likelihood = "unnormalised"

    def __init__(
        self,
        energy: nn.Module,
        event_shape: Sequence[int],
        *,
        axes: Principal | None = None,
        langevin: Langevin | None = None,
        ld_steps: int = 60,
        ld_eps_new: float = 0.05,
        loss_alpha: float = 0.1,
        max_length_buffer: int = 8192,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(event_shape, **data)
        self.net, self.langevin = energy, langevin or PUBLISHED
        self._axes = (axes,)  # a tuple hides the module, which is the transform's, from this one's state
        self.alpha, self.steps, self.fresh = loss_alpha, ld_steps, ld_eps_new
        chains_shape = self.transform(torch.zeros(1, *event_shape)).shape[1:]
        self.ring = ReplayBuffer(max_length_buffer, chains_shape)  # its name in checkpoints
        self._negatives: Tensor | None = None  # none where a rank has no rows in a batch

    @property
    def spread(self) -> Tensor | None:
        """Stds `(D,)` of the Gaussian base in the chains' space."""
        return None if self._axes[0] is None else self._axes[0].spread

    def energy(self, y: Tensor) -> Tensor:
        """Return the energies of points of the chains' space, `(B,)`."""
        return self._with_base(self._relative(y), y)

    @override
    def log_density(self, x: Tensor) -> Tensor:
        return -self.energy(self.transform(x)) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        x = self.transform.inverse(self._draw(n, generator))
        return self.clamp(x + self.noise.sigma**2 * self._score(x) if self.noise.sigma else x)

    def log_normalizer(self, chains: int = 1000, temperatures: int = 200, seed: int = 0) -> LogNormalizer:
        """Estimate `log ∫ exp(-E)` over the box of the chains, in nats, from below and from above."""
        with evaluating(self):
            samples = self._draw(2 * chains, torch.Generator(self.ring.rows.device).manual_seed(seed))
            return log_normalizer(self.boxed_energy, samples, temperatures, seed)

    def boxed_energy(self, y: Tensor) -> Tensor:
        """Return the energies of points of the chains' space, `(B,)`; infinite outside of the chains' box."""
        low, high = self.langevin.limits
        inside = ((y >= low) & (y <= high)).flatten(1).all(1)
        return torch.where(inside, self.energy(y), torch.inf)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("loss", self._loss, tuple(self.parameters()), after=self._after, unit="nats of energy"),)

    def _loss(self, x: Tensor) -> Tensor:
        negatives = self._draw(len(x))
        if self.training:
            self._negatives = negatives
        both = torch.cat([self.network_input(x), negatives])
        relative = self._relative(both)
        data, drawn = self._with_base(relative, both).chunk(2)
        return (data - drawn).mean() + 2 * self.alpha * relative.square().mean()

    def _after(self, gather: Gather) -> None:
        """Write this step's negatives of all ranks over the oldest rows of the buffer."""
        SpectralNorm.advance_all(self.net)
        self.ring.append(gather(self.ring.rows[:0] if self._negatives is None else self._negatives))
        self._negatives = None

    def _relative(self, y: Tensor) -> Tensor:
        """Return F, `(B,)`."""
        return self.net(y).reshape(len(y))

    def _with_base(self, relative: Tensor, y: Tensor) -> Tensor:
        """Return E, given F."""
        return relative if self.spread is None else relative - normal_log_prob(y.square(), self.spread.log())

    def _slope(self, y: Tensor) -> Tensor:
        """Return `∇E(y)`, of the shape of `y`, without a graph; no parameter gets a gradient."""
        slope = input_gradient(self.net, y.detach())
        return slope if self.spread is None else slope.addcdiv(y.detach(), self.spread.square())

    def _score(self, x: Tensor) -> Tensor:
        """Return `∇ log p(x)`, of the shape of `x`: the slope, brought back through the transform."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self.transform(x)
            fall = self.transform.log_abs_det_jacobian(x).sum() - (y * self._slope(y.detach())).sum()
            return torch.autograd.grad(fall, x)[0]

    def _draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        with parametrize.cached():
            return self.langevin(self._slope, self._starts(n, generator), self.steps, generator)

    def _starts(self, n: int, generator: torch.Generator | None) -> Tensor:
        fresh = self.ring.rows.new_empty(n, *self.ring.rows.shape[1:])
        if self.spread is None:
            fresh.uniform_(*self.langevin.limits, generator=generator)
        else:
            fresh.normal_(generator=generator).mul_(self.spread)
        return self.ring.mix(fresh, self.fresh, generator)


class EnergyOnPrincipalAxes(nn.Module):
    """An energy of images as one of their coordinates along principal axes, `(B, D) -> (B, 1)`.

    The network sees the image that the coordinates make up, without mean and with its stds shrunk as the axes' are.
    """

    def __init__(self, net: nn.Module, axes: Principal, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape
        self._axes = (axes,)  # hidden from this module's state, as in `EBM`

    def forward(self, y: Tensor) -> Tensor:
        """Return the energies `(B, 1)`."""
        return self.net((y @ self._axes[0].axes.T).unflatten(1, self.shape))


@MODELS.register("ebm")
class EBMConfig(NetworkConfig, OneLossConfig):
    """Keys of `ebm`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "energy-based model, trained against Langevin samples"
    paper: ClassVar[str] = "Du & Mordatch, 2019, arXiv 1903.08689"

    name: Literal["ebm"] = "ebm"
    net: Net = Field("mlp", description="kind of energy")
    energy_func_hidden_dims: Sizes = Field((64, 32), description="hidden layers (mlp)")
    energy_func_hidden_channels: Channels = Field((64, 64, 32, 32), description="channels (cnn)")
    energy_func_kernel_size: PerLayer = Field(3, description=KERNEL)
    energy_func_stride: PerLayer = Field(1, description=STRIDE)
    energy_func_activation: Activation = Field("swish", description="after each hidden layer")
    spectral_norm: bool = Field(False, description="divide each weight by its largest singular value")
    base: Literal["none", "gaussian"] = Field("none", description="what exp(-F) is relative to: 1 or a Gaussian")
    x_lims: tuple[FiniteFloat, FiniteFloat] = Field((-1.0, 1.0), description="box of the negatives, as transformed")
    loss_alpha: NonNegativeFloat = Field(0.1, description="weight of the squared energies")
    max_length_buffer: PositiveInt = Field(8192, description="negatives that are kept to start from")
    ld_steps: PositiveInt = Field(60, description="Langevin steps, in training and in sampling")
    ld_step_size: PositiveFloat = Field(10.0, description="Langevin step: what a gradient is multiplied by")
    ld_eps_new: NonNegativeFloat = Field(0.05, le=1, description="share of chains that start anew")
    ld_sigma: NonNegativeFloat = Field(0.005, description="std of a Langevin step's noise")
    ld_grad_clamp: PositiveFloat | None = Field(0.03, description="limit of a Langevin gradient's coordinates")
    max_grad_norm: PositiveFloat | None = Field(1.0, description="gradients are clipped to this norm; None: never")
    test_metrics: tuple[str, ...] = Field(("log_likelihood", "loss"), description=TEST_METRICS)

    @field_validator("x_lims")
    @classmethod
    def _limits_ascend(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("the first limit must be below the second")
        return value

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        coloured = spec.is_image and spec.shape[0] == 3  # whose convolutions are too slow for many steps
        if preset != "reference" and not coloured:
            values = {**GAUSSIAN_BASE, "max_epochs": min(300, max(40, ROWS_TO_PASS // spec.size))}
            noise = {"denoising_sigma": NOISE * (spec.high - spec.low)}
            return {**values, **IMAGES, **noise} if spec.is_image else {**values, **VECTORS}
        values = {"scale_data": True, "padding": preset != "reference" or not unpadded(spec)}
        if not spec.is_image:
            return values
        return {
            **values,
            "net": "cnn" if coloured else "mlp",
            "energy_func_hidden_dims": (256, 128),
            "spectral_norm": True,
            "x_lims": (-1.0 if spec.low < 0 else 0.0, 1.0),
            "loss_alpha": 1.0,
            "lr": 3e-4,
        }

    @override
    def is_flat(self) -> bool:
        return self.net == "mlp" or self.base == "gaussian"

    @override
    def build(self, spec: DataSpec) -> EBM:
        arguments = self.arguments(EBM, spec)
        net: nn.Module = self.build_network("energy_func", self.net, spec, 1)
        if self.base == "gaussian":
            # Images are whitened half of the way: noise makes their energy as steep along long axes as along short
            # ones, so whitened chains would need steps as small as the noise is along the longest.
            axes = Principal(spec.dim, power=0.5 if spec.is_image else 1.0)
            arguments |= {"axes": axes, "transform": Chain([*self.build_transform(spec, flat=True), axes])}
            net = EnergyOnPrincipalAxes(net, axes, spec.shape) if self.net == "cnn" else net
        if self.spectral_norm:
            SpectralNorm.on(net)
        langevin = Langevin(self.ld_step_size, self.ld_sigma, self.x_lims, self.ld_grad_clamp)
        return EBM(net, spec.shape, langevin=langevin, **arguments)
