"""Energy-based model.

    p(y) ∝ exp(-E(y)),  y = t(x) in the box [low, high]^D

    min over E  of  mean E(y) - E(y⁻) + α (E(y)² + E(y⁻)²)

over data y and negatives y⁻: points that Langevin dynamics takes from a ring of earlier negatives, a few of them from
uniform noise, towards low energies. The gradient of the first two terms is that of maximum likelihood if the negatives
have the law of the model; the penalty keeps the energies near 0. `log_prob` lacks the constant -log Z, and tells of
the energy outside of the box too, where the model has no points.

Source: Implicit Generation and Generalization in Energy-Based Models (Du & Mordatch, 2019, arXiv 1903.08689).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from twostep.models.base import (
    MODELS,
    TEST_METRICS,
    DensityEstimator,
    Gather,
    Likelihood,
    Objective,
    OneLossConfig,
    Role,
)
from twostep.models.langevin import Langevin
from twostep.models.networks import Net
from twostep.nn.activations import Activation
from twostep.nn.energy import EnergyCNN, EnergyMLP, EnergyNet, SpectralNorm
from twostep.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt, UserError

# On vectors the step is half the noise's variance, so that chains sample exp(-E): the energy distance of samples to
# validation embeddings of Fashion-MNIST, each coordinate divided by its std, is 0.06, with the paper's noisy
# descent 0.42 (benchmarks/defaults.py).
MATCHED = {"ld_step_size": 0.00125, "ld_sigma": 0.05, "ld_grad_clamp": None, "ld_eps_new": 0.01, "loss_alpha": 0.001}


@MODELS.register("ebm")
class EBMConfig(OneLossConfig):
    """Keys of `ebm`."""

    roles: ClassVar[tuple[Role, ...]] = ("de",)
    summary: ClassVar[str] = "energy-based model, trained against Langevin samples"
    paper: ClassVar[str] = "Du & Mordatch, 2019, arXiv 1903.08689"

    name: Literal["ebm"] = "ebm"
    net: Net = Field("mlp", description="kind of energy")
    energy_func_hidden_dims: tuple[PositiveInt, ...] = Field((64, 32), description="hidden layers (mlp)")
    energy_func_hidden_channels: tuple[PositiveInt, ...] = Field(
        (64, 64, 32, 32), min_length=1, description="channels (cnn)"
    )
    energy_func_kernel_size: PositiveInt = Field(3, description="side of the kernel in pixels (cnn)")
    energy_func_stride: PositiveInt = Field(1, description="step of the kernel in pixels (cnn)")
    energy_func_activation: Activation = Field("swish", description="after each hidden layer")
    spectral_norm: bool = Field(False, description="divide each weight by its largest singular value")
    x_lims: tuple[float, float] = Field((-1.0, 1.0), description="box of the negatives, in units of the network")
    loss_alpha: NonNegativeFloat = Field(0.1, description="weight of the squared energies")
    max_length_buffer: PositiveInt = Field(8192, description="negatives that are kept to start from")
    ld_steps: PositiveInt = Field(60, description="Langevin steps, in training and in sampling")
    ld_step_size: PositiveFloat = Field(10.0, description="Langevin step: what a gradient is multiplied by")
    ld_eps_new: float = Field(0.05, ge=0, le=1, description="share of chains that start from uniform noise")
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

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Scale always; on pictures a larger, smooth network in the unit box, convolutions for colours."""
        if not spec.is_image:
            return {"scale_data": True, **MATCHED}
        return {
            "scale_data": True,
            "net": "cnn" if spec.shape[0] == 3 else "mlp",
            "energy_func_hidden_dims": (256, 128),
            "spectral_norm": True,
            "x_lims": (0.0, 1.0),
            "loss_alpha": 1.0,
            "lr": 3e-4,
        }

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Return the paper's Langevin dynamics: a noisy descent that is far from the law of the energy."""
        return {key: cls.model_fields[key].default for key in MATCHED if not spec.is_image}

    def is_flat(self) -> bool:
        """Whether the energy takes vectors."""
        return self.net == "mlp"

    def build(self, spec: DataSpec) -> EBM:
        """Return an `EBM` for data of this kind."""
        return EBM(self, spec)

    def build_energy(self, spec: DataSpec) -> EnergyNet:
        """Return the network of the energy.

        Raises:
            UserError: if a CNN is to see vectors.
        """
        if self.is_flat():
            return EnergyMLP(spec.dim, self.energy_func_hidden_dims, self.energy_func_activation)
        if not spec.is_image:
            raise UserError(f"a cnn needs pictures; {spec.name} has points of shape {spec.shape}: set net to mlp")
        return EnergyCNN(
            spec.shape,
            self.energy_func_hidden_channels,
            self.energy_func_kernel_size,
            self.energy_func_stride,
            self.energy_func_activation,
        )


class EBM(DensityEstimator):
    """An energy fitted by contrastive divergence. The ring of negatives is the same on all ranks, and is saved."""

    likelihood: ClassVar[Likelihood] = "unnormalised"

    replay: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, config: EBMConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.net = config.build_energy(spec)
        if config.spectral_norm:
            SpectralNorm.on(cast(nn.Module, self.net))
        self.alpha, self.steps, self.fresh = config.loss_alpha, config.ld_steps, config.ld_eps_new
        self.langevin = Langevin(config.ld_step_size, config.ld_sigma, config.x_lims, config.ld_grad_clamp)
        shape = (spec.dim,) if config.is_flat() else spec.shape
        self.register_buffer("replay", torch.zeros(config.max_length_buffer, *shape))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self._negatives: Tensor | None = None  # none where a rank has no rows in a batch

    def energy(self, y: Tensor) -> Tensor:
        """Return the energies of points of the network's space, `(B,)`."""
        return self.net(y).squeeze(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density in data space but for a constant, of shape `(B,)`, in nats."""
        return -self.energy(self.transform(x)) + self.transform.log_abs_det_jacobian(x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points as training draws its negatives: Langevin chains go on from the ring."""
        return self.clamp(self.transform.inverse(self._draw(n, generator)))

    def objectives(self) -> tuple[Objective, ...]:
        """Return the one loss: energy of data less energy of negatives, and the penalty."""
        return (Objective("loss", self._loss, tuple(self.parameters()), after=self._after, unit="nats of energy"),)

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        negatives = self._draw(len(y))
        if self.training:
            self._negatives = negatives
        energies = self.energy(torch.cat([y, negatives]))
        data, drawn = energies.chunk(2)
        return (data - drawn + self.alpha * (data.square() + drawn.square())).mean()

    def _after(self, gather: Gather) -> None:
        """Write this step's negatives of all ranks over the oldest rows of the ring."""
        SpectralNorm.advance_all(cast(nn.Module, self.net))
        size = len(self.replay)
        rows = gather(self.replay[:0] if self._negatives is None else self._negatives)[-size:]
        self._negatives = None
        places = (self.position + torch.arange(len(rows), device=rows.device)) % size
        self.replay[places] = rows
        self.position.copy_((self.position + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))

    def _draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        with parametrize.cached():
            return self.langevin(self.net.gradient, self._starts(n, generator), self.steps, generator)

    def _starts(self, n: int, generator: torch.Generator | None) -> Tensor:
        ring, (low, high) = self.replay, self.langevin.limits
        uniform = torch.rand(n, *ring.shape[1:], generator=generator, device=ring.device, dtype=ring.dtype)
        uniform = low + (high - low) * uniform
        filled = int(self.filled)
        if not filled:
            return uniform
        rows = torch.randint(filled, (n,), generator=generator, device=ring.device)
        fresh = torch.rand(n, generator=generator, device=ring.device) < self.fresh
        return torch.where(fresh.view(-1, *(1 for _ in ring.shape[1:])), uniform, ring[rows])
