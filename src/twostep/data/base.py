"""The types of the data folder: what a loader returns, what is known by name, and the splits that a run uses."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor

from twostep.core.registry import Registry
from twostep.core.schema import DataSpec, Frozen
from twostep.data.batches import Rows, blocks


@dataclass(frozen=True)
class Source:
    """What a loader returns: decoded arrays in the order of the dataset.

    Args:
        train: `N x *S`, uint8 for integer-valued images, float32 otherwise.
        test: `M x *S`; None: `load_data` holds out a fifth of `train`.
        train_labels: `(N,)`, int64.
        test_labels: `(M,)`, int64.
        discrete: whether values are integers, each representing a bin of width 1.
        low: smallest possible value; None: the smallest value outside the test split.
        high: largest possible value; None: the largest value outside the test split.
    """

    train: Tensor
    test: Tensor | None = None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    discrete: bool = False
    low: float | None = None
    high: float | None = None


class NoKeys(Frozen):
    """Keys of a dataset without options."""


@dataclass(frozen=True)
class DatasetLoader(ABC):
    """A dataset known by name.

    Args:
        name: name of the dataset.
        shape: shape of one data point.
        description: one line about its content.
        files: one line about where its files are looked for.
        keys: config class whose keys `dataset_kwargs` may set.
    """

    name: str
    shape: tuple[int, ...]
    description: str
    files: str
    keys: type[Frozen] = field(default=NoKeys, kw_only=True)

    @abstractmethod
    def load(self, data_root: Path, options: Frozen) -> Source:
        """Read the dataset from `data_root`; `options` is an instance of `keys`.

        Raises:
            UserError: if files are missing, damaged or of the wrong content.
        """


DATASETS: Registry[DatasetLoader] = Registry("data set")


@dataclass(frozen=True)
class Splits:
    """A dataset split into training, validation and test rows, each in the order of the dataset.

    Splits of datasets above `cache.LARGE` bytes are `LazyRows`, which return tensors when indexed.

    Args:
        spec: facts about the data; `spec.size` is the number of training rows.
        train: `N x *S`.
        valid: `V x *S`, or None without a validation split.
        test: `M x *S`.
        train_labels: `(N,)`, int64, or None for unlabelled data.
        valid_labels: `(V,)`, int64, or None.
        test_labels: `(M,)`, int64, or None.
    """

    spec: DataSpec
    train: Rows
    valid: Rows | None
    test: Rows
    train_labels: Tensor | None = None
    valid_labels: Tensor | None = None
    test_labels: Tensor | None = None

    def digest(self) -> str:
        """Return a SHA-256 of all rows of all splits."""
        digest = hashlib.sha256()
        for rows in (self.train, self.valid, self.test):
            if rows is not None:
                digest.update(str((tuple(rows.shape), rows.dtype)).encode())
                for block in blocks(rows):
                    digest.update(block.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def hold_out(count: int, parts: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Split `count` rows at random: return the sorted indices of the kept rows and of the held-out 1/`parts`."""
    order = torch.randperm(count, generator=generator)
    held = max(1, count // parts)
    return order[held:].sort().values, order[:held].sort().values
