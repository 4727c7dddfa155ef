"""Invertible maps between data space and the space a network works in, each with its Jacobian.

A density p_Y fitted to y = t(x) is the density `log p_X(x) = log p_Y(t(x)) + log|det dt/dx|` of x. Every exact or
bounding `log_prob` of a model adds that last term, so densities are always those of the data as they were given.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from twostep.core.schema import DataSpec, Frozen, NonNegativeFloat, UserError

DEVIATION_FLOOR = 0.01
LOGIT_MARGIN = 0.05
LARGEST_FRACTION = 1 - 2**-16  # a larger one would round 255 up into the next bin in float32


class DataTransform(nn.Module, ABC):
    """An invertible map on batches whose statistics, if it has any, lie in buffers.

    Shapes: `forward: (B, *S) -> (B, *T)`, `inverse: (B, *T) -> (B, *S)`, `log_abs_det_jacobian: (B, *S) -> (B,)`.
    `affine` says whether the Jacobian is the same everywhere.
    """

    affine: bool = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map data to the network's space."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Map back to data space."""

    @abstractmethod
    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return log|det| of the map's Jacobian at each point, in nats, of shape `(B,)`."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take the statistics from batches of data; maps without statistics have nothing to do."""


class Flatten(DataTransform):
    """Lay a point of any shape out as a vector."""

    affine = True

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, *shape)` to `(B, D)`."""
        return x.flatten(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Map `(B, D)` to `(B, *shape)`."""
        return y.unflatten(1, self.shape)

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return zeros: nothing is stretched."""
        return x.new_zeros(len(x))


class Scale(DataTransform):
    """Divide by the largest absolute value of the training data, of dequantised integers the end of its bin."""

    affine = True
    scale: Tensor

    def __init__(self, dequantized: bool = False) -> None:
        super().__init__()
        self.dequantized = dequantized
        self.register_buffer("scale", torch.ones(()))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take the largest absolute value; data that are all zero keep their scale."""
        largest = max(float(x.abs().max()) for x in batches)
        if self.dequantized:
            largest = math.floor(largest) + 1.0
        self.scale.fill_(largest if largest > 0 else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map to [-1, 1]."""
        return x / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Map back to the data's range."""
        return y * self.scale

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return `-D log m`."""
        return (-math.prod(x.shape[1:]) * self.scale.log()).expand(len(x))


class Whiten(DataTransform):
    """Shift and scale every feature to mean 0 and variance 1: `y = (x - mean) / std`.

    A feature's std is at least 1 % of its own largest deviation from the mean, so that no training value lies beyond
    100; a constant feature takes the root mean square of the other features' stds (1 if all are constant).
    """

    affine = True
    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("std", torch.ones(*shape))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and std of every feature in one pass, in float64."""
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(mean)
        low, high = torch.full_like(mean, math.inf), torch.full_like(mean, -math.inf)
        for batch in batches:
            x = batch.double()
            low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
            total = count + len(x)
            shift = x.mean(0) - mean
            squares += ((x - x.mean(0)) ** 2).sum(0) + shift**2 * (count * len(x) / total)
            mean += shift * (len(x) / total)
            count = total
        std = (squares / count).sqrt()
        varies = high > low
        typical = (std[varies] ** 2).mean().sqrt() if varies.any() else std.new_ones(())
        std = torch.maximum(std, DEVIATION_FLOOR * torch.maximum(high - mean, mean - low))
        self.mean.copy_(mean)
        self.std.copy_(torch.where(varies, std, typical))

    def forward(self, x: Tensor) -> Tensor:
        """Map to zero mean and unit variance."""
        return (x - self.mean) / self.std

    def inverse(self, y: Tensor) -> Tensor:
        """Map back to the data's mean and scale."""
        return y * self.std + self.mean

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return `-sum log std`."""
        return (-self.std.log().sum()).expand(len(x))


class Logit(DataTransform):
    """Open the unit interval: `y = logit(a + (1 - 2a) x)` with a = 0.05, finite at 0 and at 1.

    Points beyond the widened interval (-a, 1 - a) / (1 - 2a) have density 0: they are mapped to its ends, with
    log|det| = -inf.

    Source: Density estimation using Real NVP (Dinh et al., 2017, arXiv 1605.08803), section 4.1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [0, 1] to a bounded part of the line."""
        return torch.logit(_inside(LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * x))

    def inverse(self, y: Tensor) -> Tensor:
        """Map the line to (0, 1), widened by the margin."""
        return (torch.sigmoid(y) - LOGIT_MARGIN) / (1 - 2 * LOGIT_MARGIN)

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return `sum log (1 - 2a) - log p - log (1 - p)` with `p = a + (1 - 2a) x`."""
        p = LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * x
        inside = _inside(p)
        log_slope = math.log(1 - 2 * LOGIT_MARGIN) - inside.log() - torch.log1p(-inside)
        return torch.where((p > 0) & (p < 1), log_slope, -torch.inf).flatten(1).sum(1)


class Chain(DataTransform):
    """Transforms one after another; each is fitted to what those before it make of the data."""

    def __init__(self, transforms: Iterable[DataTransform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(transforms)
        self.affine = all(part.affine for part in self)

    def __iter__(self) -> Iterator[DataTransform]:
        return iter(cast("list[DataTransform]", list(self.parts)))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the parts in order, with one pass over `batches` (which can be iterated over again) for each."""
        for count, part in enumerate(self):
            part.fit(MappedBatches(Chain(list(self)[:count]), batches))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all parts."""
        for part in self:
            x = part(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Undo all parts, last first."""
        for part in reversed(list(self)):
            y = part.inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Sum the parts' log-determinants."""
        total = x.new_zeros(len(x))
        for part in self:
            total = total + part.log_abs_det_jacobian(x)
            x = part(x)
        return total


def _inside(p: Tensor) -> Tensor:
    eps = torch.finfo(p.dtype).eps
    return p.clamp(eps, 1 - eps)


@dataclass(frozen=True)
class MappedBatches:
    """Batches with a function applied to them, each time that they are iterated over."""

    function: Callable[[Tensor], Tensor]
    batches: Iterable[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.function, self.batches)


class Noise(nn.Module):
    """Noise that is put on data before a model sees them; a shift, so its Jacobian is 1 once it is drawn.

    Uniform noise on [0, 1) dequantises integers: the mean log-density is then a lower bound on their log-probability
    (A note on the evaluation of generative models, Theis et al., 2016, arXiv 1511.01844). Gaussian noise of std
    `sigma`, in units of the data, is added in training only.
    """

    def __init__(self, dequantize: bool = False, sigma: float = 0.0) -> None:
        super().__init__()
        self.dequantizes = dequantize
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Draw what a training step sees, from torch's generator."""
        x = self.dequantize(x)
        return x + self.sigma * torch.randn_like(x) if self.sigma > 0 else x

    def dequantize(self, x: Tensor) -> Tensor:
        """Add the uniform noise alone, to integers; values inside of a bin stay."""
        if not self.dequantizes:
            return x
        u = torch.rand_like(x).clamp(max=LARGEST_FRACTION)
        return torch.where(x == x.floor(), x + u, x)


class TransformKeys(Frozen):
    """How data are transformed before a network sees them."""

    flatten: bool | None = Field(None, description="follows from the network; may be set only to agree with it")
    denoising_sigma: NonNegativeFloat = Field(0.0, description="std of Gaussian noise on training data, in data units")
    dequantize: bool = Field(False, description="add uniform noise on [0, 1) to integers")
    scale_data: bool = Field(False, description="divide by the largest absolute value of the training data")
    whitening_transform: bool = Field(False, description="mean 0 and std 1 for every feature, after all the others")
    logit_transform: bool = Field(False, description="map [0, 1] to the real line by a logit, after scaling")
    clamp_samples: bool = Field(False, description="clamp samples to the range of the training data")

    @field_validator("denoising_sigma", mode="before")
    @classmethod
    def _none_is_no_noise(cls, value: Any) -> Any:
        return 0.0 if value is None else value

    def build_transform(self, spec: DataSpec, flat: bool) -> Chain:
        """Return the map from data to what a network sees, vectors if it is `flat`; not fitted yet."""
        if spec.is_image and self.flatten not in (None, flat):
            shape = "vectors" if flat else "images of shape (C, H, W)"
            raise UserError(f"flatten={self.flatten}: the network takes {shape}; leave the key out")
        if self.dequantize and not spec.discrete:
            raise UserError(f"dequantize=True: {spec.name} does not hold integers; leave the key out")
        if self.logit_transform and (wrong := self._beyond_unit_interval(spec)):
            raise UserError(f"logit_transform=True needs data between 0 and 1: {wrong}")
        shape = (spec.dim,) if flat else spec.shape
        steps: list[DataTransform] = [Flatten(spec.shape)] if flat else []
        if self.scale_data:
            steps.append(Scale(dequantized=self.dequantize))
        if self.logit_transform:
            steps.append(Logit())
        if self.whitening_transform:
            steps.append(Whiten(shape))
        return Chain(steps)

    def _beyond_unit_interval(self, spec: DataSpec) -> str:
        if spec.low < 0:
            return f"{spec.name} has values down to {spec.low:g}; leave the key out"
        if self.denoising_sigma:
            return "noise goes beyond; set denoising_sigma=0"
        if spec.high > 1 and not self.scale_data:
            return f"{spec.name} has values up to {spec.high:g}; set scale_data=True"
        return ""
