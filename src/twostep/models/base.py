"""The contracts of all models: what an autoencoder and a density promise, and what a config offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, Self, TypedDict, final, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from twostep.core.keys import EvaluationKeys, FitKeys, resolve_fid
from twostep.core.registry import Registry
from twostep.core.schema import DataSpec, Frozen, PositiveFloat, UserError
from twostep.core.table import TableSchema
from twostep.nn import jacobian
from twostep.nn.transforms import Chain, DataTransform, MappedBatches, Noise, TransformKeys

Role = Literal["gae", "de"]
Preset = Literal["twostep", "reference"]
Likelihood = Literal["exact", "bound", "estimate", "unnormalised"]
Gather = Callable[[Tensor], Tensor]

ERROR = "l2_reconstruction_error"
UNCONDITIONAL = "the density is not conditioned on labels: fit one with condition=label"

MODELS: Registry[type[ModelConfig]] = Registry("model")


@dataclass(frozen=True)
class Objective:
    """One loss and the parameters that it moves.

    Args:
        name: of the loss, in logs.
        loss: maps a batch `(B, *S)` of data to a scalar.
        parameters: what the loss's optimiser steps on; gradients reach nothing else.
        every: the step is taken on every n-th batch.
        after: called on every rank after the optimiser's step (weight clamping, a replay buffer); it is given a
            function that gathers the rows of a tensor from all ranks, so that what it keeps is the same on each.
        unit: of the loss.
    """

    name: str
    loss: Callable[[Tensor], Tensor]
    parameters: tuple[nn.Parameter, ...]
    every: int = 1
    after: Callable[[Gather], None] | None = None
    unit: str = "nats of the transformed data"


class DataArguments(TypedDict, total=False):
    """Keyword arguments of every model, see `Model`: how it sees its data."""

    transform: DataTransform | None
    noise: Noise | None
    sample_range: tuple[float, float] | None


class Model(nn.Module, ABC):
    """A network, and the transform between data space and its own.

    Args:
        event_shape: shape `*S` of a data point.
        transform: invertible map from data to what the networks see, fitted by `fit_transform`; None: the identity.
        noise: what training adds to the data before the transform; None: nothing.
        sample_range: lowest and highest value, to which samples are clamped; None: not at all.

    `columns` are those of a table whose coded rows a model takes; None: it takes arrays.
    """

    columns: TableSchema | None = None

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        transform: DataTransform | None = None,
        noise: Noise | None = None,
        sample_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.transform: DataTransform = Chain([]) if transform is None else transform
        self.noise = Noise() if noise is None else noise
        self.sample_range = sample_range

    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """Return the losses to minimise, in the order in which a training step takes them.

        A density without any is fitted by `fit_transform`, all at once.
        """

    @property
    def dim(self) -> int:
        """Number of coordinates D of a data point."""
        return math.prod(self.event_shape)

    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        """Take the transform's statistics from training data; called once, before the first step."""
        self.transform.fit(MappedBatches(self.noise, batches))

    def network_input(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to what the network is trained on: noise, then the transform."""
        return self.transform(self.noise(x))

    def draw(self, source: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Return draws of `torch.randn` or `torch.rand`, where the weights are."""
        like = tensor_of(self)
        return source(shape, generator=generator, device=like.device, dtype=like.dtype)

    def clamp(self, x: Tensor) -> Tensor:
        """Clamp samples to `sample_range`, if there is one."""
        return x if self.sample_range is None else x.clamp(*self.sample_range)


def tensor_of(model: nn.Module) -> Tensor:
    """Return a parameter of a model, or a buffer of one without any: device and dtype are those of the model."""
    return next(one for one in chain(model.parameters(), model.buffers()) if one.is_floating_point())


class GeneralizedAutoencoder(Model):
    """A model with an encoder f: R^D -> R^d and a decoder g: R^d -> R^D that reconstructs data near a manifold.

    `prior_std` is the σ of the Gaussian N(0, σ² I) that training pulls the distribution of each single point's
    embedding towards, as a variational autoencoder does; None where there is none. An encoder alone does not decode
    (`decodes`), and `no_volume` says why a model has no log-volume; it is empty where it has one.
    """

    latent_dim: int
    prior_std: float | None = None
    decodes: bool = True
    no_volume: str = ""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to embeddings `(B, d)`; the same point always has the same embedding."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Map embeddings `(B, d)` to data space `(B, *S)`; never clamped, so that its Jacobian is right."""

    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map draws of embeddings `(B, d)` to data space `(B, *S)`: decoded, or drawn where rows have a likelihood."""
        return self.decode(z)

    def latents(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what a density of embeddings is fitted to, `(B, d)`: embeddings, or draws of their distribution."""
        return self.encode(x)

    def density_with(self, prior: DensityEstimator, x: Tensor) -> Tensor:
        """Return the log-density of points `(B, *S)`, `(B,)`, in nats, given the density of their embeddings."""
        z = self.encode(x)
        return prior.log_prob(z) - self.log_volume(z)

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """Return `‖x - g(f(x))‖²` of shape `(B,)`, in squared units of the data."""
        return (x - self.decode(self.encode(x))).square().flatten(1).sum(1)

    def decoder_parts(self) -> tuple[jacobian.Map, jacobian.Map]:
        """Return two maps that are `decode` one after the other, the second affine; few inputs of it save time."""
        return self.decode, nn.Identity()

    def log_volume(self, z: Tensor) -> Tensor:
        """Return `½ log det JᵀJ` of the decoder at `z`, of shape `(B,)`, in nats; `-inf` where J is singular."""
        if self.no_volume:
            raise UserError(f"no log-volume, and no density in data space: {self.no_volume}")
        return jacobian.log_volume(*self.decoder_parts(), z)


@runtime_checkable
class Sampler(Protocol):
    """A model that draws points in data space."""

    event_shape: tuple[int, ...]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points in data space."""
        ...


class DensityEstimator(Model):
    """A model with a density in data space; `likelihood` says of which kind its log-densities are.

    `draws` of the noise of dequantisation are averaged in `log_prob`; more tighten the bound. `labels` is the number of
    labels on which a density is conditioned, 0 where it is not (see `models.parts.conditional`).
    """

    likelihood: Likelihood
    draws: int = 1
    labels: int = 0

    @final
    def log_prob(self, x: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Return the log-density of points `(B, *S)` in data space, of shape `(B,)`, in nats, of the kind `likelihood`.

        A model of dequantised data (`noise.dequantizes`) dequantises integers first, by a uniform draw from torch's
        generator, as in training; a point that already lies inside of a bin stays where it is.

        Args:
            x: the points.
            y: numbers of their labels, `(B,)` or one for all: log p(x | y) of a conditional density; None: log p(x).

        Raises:
            UserError: for labels of a density without such, or labels that it does not know.
        """

        def log_density(x: Tensor) -> Tensor:
            return self.log_density(x) if y is None else self.log_density_given(x, y)

        if self.draws == 1:
            return log_density(self.noise.dequantize(x))
        log_densities = [log_density(self.noise.dequantize(x)) for _ in range(self.draws)]
        return torch.stack(log_densities).logsumexp(0) - math.log(self.draws)

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-density at points `(B, *S)`, of shape `(B,)`, in nats, without dequantising them."""

    def log_density_given(self, x: Tensor, y: Tensor | int) -> Tensor:
        """Return what `log_density` does, of a conditional density, given labels `(B,)` or one for all points."""
        raise UserError(UNCONDITIONAL)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points in data space."""


@contextmanager
def evaluating(*models: nn.Module) -> Generator[None]:
    """Evaluate without gradients and in eval mode; each module's mode is put back afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters of one objective are optimised."""

    lr: float
    use_scheduler: bool


class _NameKeys(Frozen):
    name: Any  # each model narrows it to the literal of its name
    preset: Preset = Field("twostep", description="defaults: the better ones found here, or those of the paper's code")


class ModelConfig(EvaluationKeys, FitKeys, TransformKeys, _NameKeys, ABC):
    """Keys that every model has: its name, how it sees its data, how it is trained, how it is evaluated.

    A model's own config adds its fields and answers `is_flat`, `build` and, where they depend on the data, `defaults`.
    `summary` says in a line what the model is, `paper` where it comes from, and `rates` which key holds the learning
    rate of each objective; `use_<that key>_scheduler` is the key of its schedule.
    """

    roles: ClassVar[tuple[Role, ...]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    rates: ClassVar[dict[str, str]]
    default_steps: ClassVar[int | None] = 8000  # of training, unless the preset is the reference's; None: by epochs
    adjustable: ClassVar[frozenset[str]] = frozenset(
        {"valid_metrics", "test_metrics", "metric_kwargs", "max_bad_valid_epochs", "max_steps"}
    )

    @classmethod
    def for_data(cls, spec: DataSpec, role: Role, **overrides: Any) -> Self:
        """Return the config with its defaults for this data and role, and the user's overrides on top."""
        names = cls.aliases()
        given = {names.get(key, key): value for key, value in overrides.items()}
        preset = given.get("preset", "twostep")
        defaults = cls.defaults(spec, role, preset)
        if preset != "reference" and "max_epochs" not in defaults:
            defaults = {"max_steps": cls.default_steps, **defaults}
        return resolve_fid(cls.parse({**defaults, **given}, str(cls.model_fields["name"].default)), spec.is_image)

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        """Return the values that differ from the fields' defaults for this data, role and preset."""
        return {}

    @abstractmethod
    def build(self, spec: DataSpec) -> Model:
        """Return the model, with fresh weights from torch's generator; keys that contradict the data: `UserError`."""

    @abstractmethod
    def is_flat(self) -> bool:
        """Whether the network sees a point as a vector."""

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """Return the optimiser of each objective, by the objective's name."""
        return {
            name: OptimizerConfig(getattr(self, rate), getattr(self, f"use_{rate}_scheduler"))
            for name, rate in self.rates.items()
        }

    def arguments(self, model: type[Model], spec: DataSpec) -> dict[str, Any]:
        """Return a model's arguments that have the names of keys, and those that say how it sees its data."""
        names = {name for kind in model.__mro__ for name in signature(kind.__init__).parameters}
        keys = {key: getattr(self, key) for key in type(self).model_fields if key in names}
        return {**keys, **self.data_arguments(spec)}

    def data_arguments(self, spec: DataSpec) -> DataArguments:
        """Return the arguments of a model's constructor that say how it sees its data."""
        return {
            "transform": self.build_transform(spec, self.is_flat()),
            "noise": Noise(self.dequantize, self.denoising_sigma),
            "sample_range": (spec.low, spec.high) if self.clamp_samples else None,
        }


class OneLossConfig(ModelConfig):
    """Keys of a model that has one loss, named `loss`."""

    rates: ClassVar[dict[str, str]] = {"loss": "lr"}

    lr: PositiveFloat = Field(1e-3, description="learning rate")
    use_lr_scheduler: bool = Field(False, description="cosine decay of the rate to 0 over all steps")
