"""Densities that may be conditioned on a label y: p(x | y), of which p(x) is the mixture.

    log p(x) = log Σ_y p(y) p(x | y),   p(y) the share of y among the training rows

Training rows of such a density, `(B, D + 1)`, have the number of their label as their last coordinate, so that loops,
batches and losses need not know of labels. Points that are given to `log_prob`, and samples, are `(B, D)`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import one_hot
from typing_extensions import Unpack, override

from twostep.core.schema import DataSpec, Frozen, UserError
from twostep.models.base import UNCONDITIONAL, DataArguments, DensityEstimator, Objective
from twostep.nn.transforms import MappedBatches


class ConditionalDensity(DensityEstimator):
    """A density of points, given a label if it has any.

    Args:
        event_shape: shape `*S` of a data point, `(D,)` with labels.
        labels: their number; 0: the density is unconditional.
        data: see `Model`.
    """

    log_shares: Tensor

    def __init__(self, event_shape: Sequence[int], labels: int = 0, **data: Unpack[DataArguments]) -> None:
        super().__init__(event_shape, **data)
        self.labels = labels
        if labels:
            assert len(self.event_shape) == 1, "points with labels are vectors"
            self.register_buffer("log_shares", torch.full((labels,), -math.log(labels)))

    @abstractmethod
    def density_at(self, x: Tensor, y: int | None) -> Tensor:
        """Return the log-density at points `(B, *S)`, `(B,)`, given one label, None where there are none."""

    @abstractmethod
    def sample_given(self, n: int, generator: torch.Generator | None, y: Tensor | None) -> Tensor:
        """Draw `(n, *S)` points given labels `(n,)`, None where there are none."""

    @override
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        if self.labels:
            counts = sum(torch.bincount(self.split(rows)[1], minlength=self.labels) for rows in batches)
            assert isinstance(counts, Tensor)
            self.log_shares = (counts / counts.sum()).log().to(self.log_shares)
        super().fit_transform(MappedBatches(self.points, batches))

    @override
    def log_density(self, x: Tensor) -> Tensor:
        if not self.labels:
            return self.density_at(x, None)
        return (self.log_densities(x) + self.log_shares).logsumexp(1)

    @override
    def log_density_given(self, x: Tensor, y: Tensor | int) -> Tensor:
        labels, found = self._checked(y, len(x)).to(x.device), x.new_zeros(len(x))
        for label in labels.unique().tolist():
            (rows,) = torch.where(labels == label)
            found = found.index_put((rows,), self.density_at(x[rows], label))
        return found

    def log_densities(self, x: Tensor) -> Tensor:
        """Return log p(x | y) at points `(B, D)` for each label, `(B, labels)`; -inf for those without training rows.

        A density that takes long may leave out labels, as -inf, whose share in that of a point is negligible.
        """
        none, seen = x.new_full((len(x),), -torch.inf), self.seen()
        return torch.stack([self.density_at(x, y) if y in seen else none for y in range(self.labels)], 1)

    def best_label(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return max_y log p(x | y) at points `(B, D)`, `(B,)`, and the numbers of these labels, `(B,)`."""
        highest, numbers = self.log_densities(x).max(1)
        return highest, numbers

    @override
    def sample(self, n: int, generator: torch.Generator | None = None, y: Tensor | int | None = None) -> Tensor:
        """Draw `(n, *S)` points in data space, given labels `(n,)` or one for all; None: labels by their shares.

        Raises:
            UserError: for labels of a density without such, or labels that it does not know.
        """
        if y is not None:
            return self.sample_given(n, generator, self._checked(y, n))
        if not self.labels:
            return self.sample_given(n, generator, None)
        return self.sample_given(n, generator, torch.multinomial(self.log_shares.exp(), n, True, generator=generator))

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points of training rows `(B, D + 1)`, and their labels `(B,)`."""
        return rows[:, :-1], rows[:, -1].long()

    def points(self, rows: Tensor) -> Tensor:
        """Return the points of rows, with labels or without."""
        return rows[:, : self.dim] if self.labels else rows

    def code(self, y: Tensor | int, like: Tensor) -> Tensor:
        """Return labels `(B,)` as vectors for a network, `(B, labels)`; of one label `(1, labels)`."""
        return one_hot(torch.as_tensor(y, device=like.device).reshape(-1), self.labels).to(like.dtype)

    def seen(self) -> list[int]:
        """Return the labels that training rows had."""
        return [y for y, share in enumerate(self.log_shares.tolist()) if math.isfinite(share)]

    def _checked(self, y: Tensor | int, n: int) -> Tensor:
        """Return labels as integers `(n,)`."""
        if not self.labels:
            raise UserError(UNCONDITIONAL)
        labels = torch.as_tensor(y, device=self.log_shares.device)
        if labels.shape not in ((), (n,)):
            raise UserError(f"labels of shape {tuple(labels.shape)}: give one, or one for each of {n} points")
        seen = self.seen()
        unknown = [one for one in labels.unique().tolist() if one not in seen]
        if unknown:
            raise UserError(f"label {unknown[0]}: no training row has it; labels are numbers from 0 to {max(seen)}")
        return labels.long().expand(n)


class _View(DensityEstimator):
    """Another density of a conditional one, with the same weights."""

    def __init__(self, model: ConditionalDensity) -> None:
        super().__init__(
            model.event_shape, transform=model.transform, noise=model.noise, sample_range=model.sample_range
        )
        self.model, self.likelihood = model, model.likelihood

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.model.sample(n, generator)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return self.model.objectives()


class GivenLabels(_View):
    """log p(x | y) of points whose labels, `(B,)` or one for all, are given beforehand."""

    def __init__(self, model: ConditionalDensity, y: Tensor | int) -> None:
        super().__init__(model)
        self.y = y

    @override
    def log_density(self, x: Tensor) -> Tensor:
        return self.model.log_density_given(x, self.y)


class OfBestLabel(_View):
    """max_y log p(x | y), by which a point is unusual where it is so for every label. Its integral is not 1."""

    @override
    def log_density(self, x: Tensor) -> Tensor:
        return self.model.best_label(x)[0]


def given(density: DensityEstimator, y: Tensor | int) -> DensityEstimator:
    """Return the density of points given labels, `(B,)` or one for all.

    Raises:
        UserError: if it is not conditioned on labels.
    """
    if not isinstance(density, ConditionalDensity):
        raise UserError(UNCONDITIONAL)
    return GivenLabels(density, y)


def without_labels(model: nn.Module, rows: Tensor) -> Tensor:
    """Return rows as a model's `log_prob` takes them: without the labels of a conditional density's training rows."""
    return model.points(rows) if isinstance(model, ConditionalDensity) else rows


class ConditionKeys(Frozen):
    """The key of a density that may be conditioned."""

    condition: Literal["label"] | None = Field(
        None, description="label: fit a density for each label of the data, p(x | y), of which p(x) is the mixture"
    )

    @field_validator("condition", mode="before")
    @classmethod
    def _no_columns(cls, value: Any) -> Any:
        if value not in (None, "label"):
            raise ValueError("write label, for those of images or of a table's target_column; columns can't be given")
        return value

    def labels(self, spec: DataSpec) -> int:
        """Return the number of labels on which a density of data is conditioned; 0: it is not.

        Raises:
            UserError: for data without labels, or points that are no vectors.
        """
        if self.condition is None:
            return 0
        if len(spec.shape) != 1:
            raise UserError(
                f"condition=label: takes embeddings or rows of numbers, and {spec.name} has points of shape "
                f"{spec.shape}: train an autoencoder first (--gae-model)"
            )
        if not spec.labels:
            raise UserError(
                f"condition=label: {spec.name.removeprefix('embeddings of ')} has no labels, or more than 1,000: give "
                "images in a folder for each, or a table with its key target_column"
            )
        return len(spec.labels)
