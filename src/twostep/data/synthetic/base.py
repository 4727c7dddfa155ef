"""Synthetic datasets: distributions with a sampler and a known log-density, often supported on a manifold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.machine import memory
from twostep.core.registry import Registry
from twostep.core.schema import Frozen, NonNegativeFloat, NonNegativeInt, PositiveInt, UserError
from twostep.core.seeds import derive
from twostep.data.base import DATASETS, DatasetLoader, Source

Measure = Literal["Lebesgue", "arc length", "area", "volume"]

BYTES_PER_COORDINATE = 20  # in double precision, rotated, and in single precision
TOLERANCE = 1e-3  # distance to the manifold that float32 rounding can cause for coordinates below 10,000


class SyntheticDistribution(Frozen, ABC):
    """A distribution on R^D, often on a manifold: x = Q y + noise, with Q a random isometry R^m -> R^D.

    A subclass defines the distribution of y: its dimensions (`fixed_dims`, or `dims` if keys set them), how to sample
    it (`draw`), its log-density on its manifold in R^m (`log_density`), the nearest point of the manifold unless that
    is all of R^m (`nearest`), and the log-density of y + noise if it is known (`noisy_log_density`). All computations
    are in float64.
    """

    name: ClassVar[str]
    fixed_dims: ClassVar[tuple[int, int]] = (2, 2)

    n: PositiveInt = Field(10_000, description="number of training points; the test split has a fifth of that")
    seed: NonNegativeInt = Field(0, description="seed of the points and the isometry, independent of the run's seed")
    noise: NonNegativeFloat = Field(0.0, description="std of Gaussian noise added to every coordinate of R^D")
    ambient_dim: PositiveInt | None = Field(
        None, description="dimension D of the space, into which a random isometry maps; None: the smallest"
    )

    @property
    def dims(self) -> tuple[int, int]:
        """Dimension of the manifold, and number m of coordinates before the isometry."""
        return self.fixed_dims

    @property
    def intrinsic_dim(self) -> int:
        """Dimension of the manifold that points lie on before noise is added."""
        return self.dims[0]

    @property
    def native_dim(self) -> int:
        """Number m of coordinates before the isometry."""
        return self.dims[1]

    @property
    def dim(self) -> int:
        """Number D of coordinates of a point."""
        return self.ambient_dim or self.native_dim

    @property
    def measure(self) -> Measure:
        """Reference measure of the density: Lebesgue measure of R^D, or length, area or volume on the manifold."""
        if self.noise > 0 or self.intrinsic_dim == self.dim:
            return "Lebesgue"
        return cast(Measure, {1: "arc length", 2: "area"}.get(self.intrinsic_dim, "volume"))

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n, D)` points."""
        x = self.draw(n, generator) @ self.isometry.T
        if self.noise > 0:
            x = x + self.noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at points `(n, D)` in nats, with respect to `measure`, of shape `(n,)`.

        Without noise it is `-inf` at points farther than `TOLERANCE` from the manifold.

        Raises:
            UserError: if there is noise and the density of the noisy points is unknown.
        """
        y = x.double() @ self.isometry
        residual = (x.double() - y @ self.isometry.T).square().sum(1)
        if self.noise > 0:
            directions = self.dim - self.native_dim
            outside = residual / (2 * self.noise**2) + directions * math.log(self.noise * math.sqrt(2 * math.pi))
            return self.noisy_log_density(y) - outside
        on = self.nearest(y)
        off = residual + (y - on).square().sum(1)
        return torch.where(off <= TOLERANCE**2, self.log_density(on), -torch.inf)

    @abstractmethod
    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n, m)` points of the manifold, without noise."""

    @abstractmethod
    def log_density(self, y: Tensor) -> Tensor:
        """Return the log-density on the manifold at its points `(n, m)`, in nats, of shape `(n,)`."""

    def nearest(self, y: Tensor) -> Tensor:
        """Return the points of the manifold nearest to `y`, both `(n, m)`."""
        return y

    def noisy_log_density(self, y: Tensor) -> Tensor:
        """Return the log-density of point plus noise in R^m at `(n, m)`, in nats, of shape `(n,)`, if it is known."""
        fault = f"no log-density with noise={self.noise:g}: the density of the noisy points has no closed form"
        raise UserError(f"{self.name}: {fault}; set noise=0")

    @cached_property
    def isometry(self) -> Tensor:
        """The isometry Q, `(D, m)`."""
        if self.dim == self.native_dim:
            return torch.eye(self.dim, dtype=torch.double)
        generator = torch.Generator().manual_seed(derive(self.seed, "isometry"))
        return torch.linalg.qr(torch.randn(self.dim, self.native_dim, generator=generator, dtype=torch.double)).Q

    @model_validator(mode="after")
    def _check_ambient_dim(self) -> Self:
        if self.dim < self.native_dim:
            raise ValueError(f"ambient_dim={self.ambient_dim} is too small: at least {self.native_dim} is needed")
        return self


SYNTHETIC: Registry[type[SyntheticDistribution]] = Registry("synthetic set")

S = TypeVar("S", bound=SyntheticDistribution)


def distribution(name: str, kwargs: Mapping[str, Any] | None = None) -> SyntheticDistribution:
    """Return the distribution of a synthetic dataset with the given keys (a run's `dataset_kwargs`).

    Raises:
        UserError: if the dataset is not synthetic, for an unknown key or a value out of range.
    """
    return SYNTHETIC[name].parse(kwargs or {}, name)


@dataclass(frozen=True)
class SyntheticLoader(DatasetLoader):
    """A dataset drawn from a synthetic distribution."""

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        drawn = cast(SyntheticDistribution, options)
        needed = BYTES_PER_COORDINATE * drawn.n * max(drawn.dim, drawn.native_dim) + 8 * drawn.dim**2
        if needed > memory():
            raise UserError(
                f"{self.name}: n={drawn.n} points of {drawn.dim} coordinates take {needed / 1e9:,.0f} GB, but this "
                f"machine has {memory() / 1e9:,.0f} GB: use fewer"
            )
        seeds = (derive(drawn.seed, split) for split in ("train", "test"))
        train, test = (torch.Generator().manual_seed(seed) for seed in seeds)
        return Source(drawn.sample(drawn.n, train).float(), drawn.sample(max(1, drawn.n // 5), test).float())


def synthetic(name: str, description: str) -> Callable[[type[S]], type[S]]:
    """Return a decorator that registers a distribution among the synthetic datasets, with one line about it."""

    def register(kind: type[S]) -> type[S]:
        kind.name = name
        SYNTHETIC.register(name)(kind)
        shape = (kind.parse({}, name).dim,)
        loader = SyntheticLoader(name, shape, description, f"synthetic; keys: twostep datasets {name}", keys=kind)
        DATASETS.register(name)(loader)
        return kind

    return register
