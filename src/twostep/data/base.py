"""Data sets by name or by file, cut into training, validation and test rows."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Generator, Tensor

from twostep.core.registry import Registry
from twostep.core.schema import DataSpec, Frozen, UserError
from twostep.data.files import hub
from twostep.data.files.arrays import is_file_name, read_arrays
from twostep.data.files.images import PictureKeys, read_pictures
from twostep.data.own_rows import pictures_at
from twostep.data.rows import Points, chunks, part


@dataclass(frozen=True)
class Source:
    """What a loader returns: decoded arrays in the data set's own order.

    Args:
        train: `N x *S`, uint8 for pictures of whole numbers, float32 otherwise.
        test: `M x *S`; None: `load_data` cuts a fifth of `train` by the run's seed.
        train_labels: `N`, int64.
        test_labels: `M`, int64.
        discrete: whether values are whole numbers, each standing for a bin of width 1.
        low: smallest value that a point can have; None: the smallest one that is not a test row's.
        high: largest value that a point can have; None: the largest one that is not a test row's.
    """

    train: Tensor
    test: Tensor | None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    discrete: bool = False
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_pictures(cls, arrays: Mapping[str, Tensor]) -> Self:
        """Return the source of pictures that `read_pictures` gave."""
        parts = (arrays.get(key) for key in ("test", "train_labels", "test_labels"))
        return cls(arrays["train"], *parts, discrete=True, low=0.0, high=255.0)


class NoKeys(Frozen):
    """The keys of a data set that has none."""


@dataclass(frozen=True)
class DatasetLoader(ABC):
    """One data set that is known by name.

    Args:
        name: the name it is asked for by.
        shape: shape of one point.
        description: one line about what it shows.
        files: where its files are looked for, one line.
        keys: the config whose keys `dataset_kwargs` may set.
    """

    name: str
    shape: tuple[int, ...]
    description: str
    files: str
    keys: type[Frozen] = field(default=NoKeys, kw_only=True)

    @abstractmethod
    def load(self, data_root: Path, options: Frozen) -> Source:
        """Read the data set, looking for its files in `data_root`; `options` are of the type `keys`.

        Raises:
            UserError: if files are missing, damaged or hold something else.
        """


DATASETS: Registry[DatasetLoader] = Registry("data set")


@dataclass(frozen=True)
class Splits:
    """A data set as a run sees it; rows of each split are in the data set's order.

    A split of data above `cache.LARGE` bytes is no tensor but `Rows` of one, which give tensors when they are indexed.

    Args:
        spec: facts about the data; `spec.size` counts the rows of `train`.
        train: `N x *S`.
        valid: `V x *S`, or None where no validation split was asked for.
        test: `M x *S`.
        train_labels: `N`, int64, or None for data without labels.
        valid_labels: `V`, int64, or None.
        test_labels: `M`, int64, or None.
    """

    spec: DataSpec
    train: Points
    valid: Points | None
    test: Points
    train_labels: Tensor | None = None
    valid_labels: Tensor | None = None
    test_labels: Tensor | None = None

    def digest(self) -> str:
        """Return a SHA-256 of all rows of all splits."""
        digest = hashlib.sha256()
        for rows in (self.train, self.valid, self.test):
            if rows is not None:
                digest.update(str((tuple(rows.shape), rows.dtype)).encode())
                for chunk in chunks(rows):
                    digest.update(chunk.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def located(name: str) -> str:
    """Return the absolute path of a file or folder, or the name of a data set as it is."""
    return str(Path(name).absolute()) if is_own(name) else name


def default_data_root() -> Path:
    """Return the folder of data sets: `TWOSTEP_DATA`, or `data` in the current folder."""
    return Path(os.environ.get("TWOSTEP_DATA") or "data")


def load_data(
    name: str,
    *,
    data_root: Path | None = None,
    seed: int = 0,
    make_valid: bool = True,
    kwargs: Mapping[str, Any] | None = None,
) -> Splits:
    """Load a data set and cut it.

    Args:
        name: a name in `DATASETS`, the path of a file (`.npy`, `.npz`, `.csv`, `.parquet`) or of a folder of
            pictures, or else `owner/name` of a set of pictures on the hub.
        data_root: the folder that holds one folder per data set; None: `default_data_root()`.
        seed: the run's seed: it alone decides which rows the validation split (a tenth of the training rows) gets,
            and the test split (a fifth) of data that comes in one piece.
        make_valid: whether to cut a validation split.
        kwargs: keys of this data set (`dataset_kwargs`).

    Raises:
        UserError: for an unknown name or key, missing, damaged or unsuitable files, or too few rows.
    """
    source = _read(name, data_root or default_data_root(), kwargs or {})
    generator = torch.Generator().manual_seed(seed)
    train, train_labels = source.train, source.train_labels
    test, test_labels = source.test, source.test_labels
    valid, valid_labels = None, None
    if test is None:
        kept, held = cut(len(train), 5, generator)
        train, test = part(train, kept), part(train, held)
        train_labels, test_labels = _take(train_labels, kept), _take(train_labels, held)
    known = train
    if make_valid:
        kept, held = cut(len(train), 10, generator)
        train, valid = part(train, kept), part(train, held)
        train_labels, valid_labels = _take(train_labels, kept), _take(train_labels, held)
    _require_rows(name, train, valid, test)
    spec = DataSpec(
        name=name,
        shape=tuple(train.shape[1:]),
        size=len(train),
        low=min(float(rows.min()) for rows in chunks(known)) if source.low is None else source.low,
        high=max(float(rows.max()) for rows in chunks(known)) if source.high is None else source.high,
        discrete=source.discrete,
    )
    return Splits(spec, train, valid, test, train_labels, valid_labels, test_labels)


def cut(count: int, parts: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of the rows to keep and of one part in `parts`, at least one row, to hold out."""
    order = torch.randperm(count, generator=generator)
    held = max(1, count // parts)
    return order[held:].sort().values, order[:held].sort().values


def _read(name: str, data_root: Path, kwargs: Mapping[str, Any]) -> Source:
    if is_own(name):
        return own_source(Path(name), kwargs)
    if name in DATASETS or "/" not in name:
        loader = DATASETS[name]
        return loader.load(data_root, _options(loader.keys, kwargs, name))
    if not hub.is_id(name):
        raise UserError(f"{name}: no such file or folder")
    size = _options(PictureKeys, kwargs, name).image_size
    return Source.of_pictures(read_pictures(name, hub.Hub(name, f"{name}: no such file or folder,"), size=size))


def own_source(path: Path, kwargs: Mapping[str, Any]) -> Source:
    """Read a user's own file or folder; `kwargs` are its keys.

    Raises:
        UserError: if it is missing, damaged or unsuitable, or for a key that it does not have.
    """
    pictures = pictures_at(path)
    if pictures is not None:
        size = _options(PictureKeys, kwargs, str(path)).image_size
        return Source.of_pictures(read_pictures(str(path.resolve()), pictures, size=size))
    _options(NoKeys, kwargs, str(path))
    train, test, discrete = read_arrays(path)
    low, high = (0.0, 255.0) if discrete else (None, None)
    return Source(train, test, discrete=discrete, low=low, high=high)


Keys = TypeVar("Keys", bound=Frozen)


def _options(keys: type[Keys], kwargs: Mapping[str, Any], name: str) -> Keys:
    if kwargs and not keys.model_fields:
        raise UserError(f"dataset_kwargs: {name} has no keys, and these were given: {', '.join(map(str, kwargs))}")
    return keys.parse(kwargs, name)


def takes_image_size(name: str) -> bool:
    """Whether a data set has the key `image_size`, to which its images are brought.

    Raises:
        UserError: for a path where nothing is, or an unknown name.
    """
    if is_own(name):
        return pictures_at(Path(name)) is not None
    if name in DATASETS or "/" not in name:
        return "image_size" in DATASETS[name].keys.model_fields
    return hub.is_id(name)


def is_own(name: str) -> bool:
    """Whether a name stands for a user's own file or folder."""
    return is_file_name(name) or (name not in DATASETS and Path(name).exists())


def _take(labels: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if labels is None else labels[rows]


def _require_rows(name: str, train: Points, valid: Points | None, test: Points) -> None:
    if len(train) < 2 or len(test) < 1:
        validation = "" if valid is None else f"{len(valid)} for validation, "
        raise UserError(
            f"{name}: too few rows: {len(train)} for training, {validation}{len(test)} for test; "
            "give enough for 2, 1 and 1"
        )
