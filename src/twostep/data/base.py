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
from twostep.core.table import TableSchema
from twostep.data.batches import Rows, blocks


@dataclass(frozen=True)
class Source:
    """What a loader returns: `train` and `test`, `(N, *S)` and `(M, *S)`, in the order of the dataset.

    They are uint8 for integer-valued images (`discrete`: each integer represents a bin of width 1) and float32
    otherwise. Without `test`, `load_data` holds out a fifth of `train`. Labels are `(N,)` and `(M,)`, int64, -1 where
    one is missing; `label_names` has the name of each, or is empty where they are numbers. `low` and `high` are the
    smallest and the largest possible value; None: those of the rows outside the test split. `columns` are those of a
    table, whose rows are codes, NaN where a value is missing (see `core.table`).
    """

    train: Tensor
    test: Tensor | None = None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    discrete: bool = False
    low: float | None = None
    high: float | None = None
    columns: TableSchema | None = None


class NoKeys(Frozen):
    """Keys of a dataset without options."""


@dataclass(frozen=True)
class DatasetLoader(ABC):
    """A dataset known by name, with the shape of a data point, one line about its content, and one about its files.

    `keys` is the config class whose keys `dataset_kwargs` may set.
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


DATASETS: Registry[DatasetLoader] = Registry("dataset", "data_sets")


@dataclass(frozen=True)
class Splits:
    """A dataset split into training, validation and test rows, `(N, *S)` each, in the order of the dataset.

    Labels are int64 and `(N,)`, and number those of `spec`; `spec.size` is the number of training rows. Splits of
    datasets above `cache.LARGE` bytes are `LazyRows`, which return tensors when indexed.
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


def hold_out(count: int, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Split `count` rows at random: return the sorted indices of kept rows and of a held-out share, at least one."""
    order = torch.randperm(count, generator=generator)
    held = max(1, int(count * share))
    return order[held:].sort().values, order[:held].sort().values
