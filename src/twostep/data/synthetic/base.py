"""Data sets that are made: each is a law that can be drawn from, with its true log-density."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from twostep.core.machine import memory
from twostep.core.registry import Registry
from twostep.core.schema import Frozen, NonNegativeFloat, NonNegativeInt, PositiveInt, UserError
from twostep.core.seeds import derive
from twostep.data.base import DATASETS, DatasetLoader, Source

Measure = Literal["Lebesgue", "arc length", "area", "volume"]

DRAWING_BYTES = 20  # for each coordinate of a point: in double precision, turned, and in single precision
ON_MANIFOLD = 1e-3  # float32 rounds a point off its manifold by less, so long as coordinates stay below 10,000
AMBIENT = "put into R^D by a fixed random isometry; None: the smallest D there is"


class SyntheticDistribution(Frozen, ABC):
    """A law on R^D, often on a manifold in it: x = Q y + noise, where Q is a random isometry R^m -> R^D.

    A set says what y is: how to draw it (`draw`), its density on its manifold in R^m (`density`) and, where the
    manifold is not all of R^m, the manifold's nearest point (`nearest`). Where it knows the density of y + noise it
    gives that too (`blurred`). All is computed in float64.
    """

    name: ClassVar[str]
    noise_reason: ClassVar[str] = "the density of the noisy points has no closed form"

    n: PositiveInt = Field(10_000, description="training points; the test split has a fifth of that")
    seed: NonNegativeInt = Field(0, description="of the points and the isometry; the run's own seed changes neither")
    noise: NonNegativeFloat = Field(0.0, description="std of Gaussian noise on every coordinate of R^D")
    ambient_dim: PositiveInt | None = Field(None, description=AMBIENT)

    @property
    @abstractmethod
    def intrinsic_dim(self) -> int:
        """Dimension of the manifold that points lie on before noise is added."""

    @property
    def own_dim(self) -> int:
        """Number m of coordinates before the isometry."""
        return 2

    @property
    def dim(self) -> int:
        """Number D of coordinates of a point."""
        return self.ambient_dim or self.own_dim

    @property
    def measure(self) -> Measure:
        """What the density refers to: Lebesgue measure of R^D, or length, area or volume on the manifold."""
        if self.noise > 0 or self.intrinsic_dim == self.dim:
            return "Lebesgue"
        return cast(Measure, {1: "arc length", 2: "area"}.get(self.intrinsic_dim, "volume"))

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n, D)` points."""
        x = self.draw(n, generator) @ self._isometry.T
        if self.noise > 0:
            x = x + self.noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at points `(n, D)` in nats, with respect to `measure`, of shape `(n,)`.

        Without noise it is `-inf` farther than `ON_MANIFOLD` from the manifold.

        Raises:
            UserError: if there is noise and the density of the noisy points is not known.
        """
        y = x.double() @ self._isometry
        beside = (x.double() - y @ self._isometry.T).square().sum(1)
        if self.noise > 0:
            directions = self.dim - self.own_dim
            outside = beside / (2 * self.noise**2) + directions * math.log(self.noise * math.sqrt(2 * math.pi))
            return self.blurred(y) - outside
        on = self.nearest(y)
        off = beside + (y - on).square().sum(1)
        return torch.where(off <= ON_MANIFOLD**2, self.density(on), -torch.inf)

    def project(self, x: Tensor) -> Tensor | None:
        """Return the points `(n, D)` of the manifold that are nearest to `x`; None where it is all of R^D."""
        if self.intrinsic_dim == self.dim:
            return None
        return self.nearest(x.double() @ self._isometry) @ self._isometry.T

    @abstractmethod
    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw `(n, m)` points of the manifold, without noise."""

    @abstractmethod
    def density(self, y: Tensor) -> Tensor:
        """Return the log-density on the manifold at points `(n, m)` of it, in nats, of shape `(n,)`."""

    def nearest(self, y: Tensor) -> Tensor:
        """Return the points of the manifold that are nearest to `y`, both `(n, m)`."""
        return y

    def blurred(self, y: Tensor) -> Tensor:
        """Return the log-density of point plus noise in R^m at `(n, m)`, in nats, of shape `(n,)`.

        Raises:
            UserError: if it is not known.
        """
        raise UserError(f"{self.name}: no log-density with noise={self.noise:g}: {self.noise_reason}; set noise=0")

    @cached_property
    def _isometry(self) -> Tensor:
        if self.dim == self.own_dim:
            return torch.eye(self.dim, dtype=torch.double)
        generator = torch.Generator().manual_seed(derive(self.seed, "isometry"))
        return torch.linalg.qr(torch.randn(self.dim, self.own_dim, generator=generator, dtype=torch.double)).Q

    @model_validator(mode="after")
    def _room_enough(self) -> Self:
        if self.dim < self.own_dim:
            raise ValueError(f"ambient_dim={self.ambient_dim} is too small: it needs {self.own_dim} or more")
        return self


SYNTHETIC: Registry[type[SyntheticDistribution]] = Registry("synthetic set")


def distribution(name: str, kwargs: Mapping[str, Any] | None = None) -> SyntheticDistribution:
    """Return the law of the data set `name` with these keys (a run's `dataset_kwargs`).

    Raises:
        UserError: for a name that is none of a synthetic set, an unknown key or a value out of range.
    """
    return SYNTHETIC[name].parse(kwargs or {}, name)


@dataclass(frozen=True)
class SyntheticLoader(DatasetLoader):
    """The data set that is drawn from a law."""

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Draw `n` training points and a fifth of that for test, float32, by the law's own seed."""
        drawn = cast(SyntheticDistribution, options)
        needed = DRAWING_BYTES * drawn.n * max(drawn.dim, drawn.own_dim) + 8 * drawn.dim**2
        if needed > memory():
            raise UserError(
                f"{self.name}: n={drawn.n} points of {drawn.dim} coordinates take {needed / 1e9:,.0f} GB, and this "
                f"machine has {memory() / 1e9:,.0f} GB: take fewer"
            )

        def part(name: str, n: int) -> Tensor:
            return drawn.sample(n, torch.Generator().manual_seed(derive(drawn.seed, name))).float()

        return Source(part("train", drawn.n), part("test", max(1, drawn.n // 5)))


def synthetic(name: str, description: str) -> Callable[[type[SyntheticDistribution]], type[SyntheticDistribution]]:
    """Return a decorator that files a law among the synthetic sets and the data sets."""

    def file(kind: type[SyntheticDistribution]) -> type[SyntheticDistribution]:
        kind.name = name
        SYNTHETIC.register(name)(kind)
        loader = SyntheticLoader(
            name, (kind.parse({}, name).dim,), description, f"made; for its keys: twostep datasets {name}", keys=kind
        )
        DATASETS.register(name)(loader)
        return kind

    return file
