"""Load datasets by name, file, folder or Hugging Face id, and split them into training, validation and test rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from twostep.core.schema import DataSpec, Frozen, UserError
from twostep.core.table import TableSchema
from twostep.data.base import DATASETS, NoKeys, Source, Splits, hold_out
from twostep.data.batches import Rows, blocks, subsample, take
from twostep.data.files.arrays import ENDINGS, read_array, read_arrays
from twostep.data.files.images import ImageKeys, Size, read_images
from twostep.data.files.parquet import holds_structs
from twostep.data.files.sources import HUB_ID, ImageSource, from_folder, from_hub, from_parquet
from twostep.data.table.keys import TableKeys
from twostep.data.table.read import is_table, read_frame, source_of, table_rows, table_source
from twostep.nn.table import TableFeatures

MAX_TRAINING_ROWS = 20_000
MAX_LABELS = 1000
TEST_FRACTION = 0.2
VALID_FRACTION = 0.1
TEXT_KEYS = ("sep", "decimal", "encoding", "missing")

logger = logging.getLogger("twostep")

Keys = TypeVar("Keys", bound=Frozen)


def is_path(name: str) -> bool:
    """Return whether a dataset name is the path of the user's own file or folder."""
    return (
        Path(name).suffix.lower() in ENDINGS or is_table(Path(name)) or (name not in DATASETS and Path(name).exists())
    )


def located(name: str) -> str:
    """Return the absolute path of a file or folder; names of datasets are returned unchanged."""
    return str(Path(name).absolute()) if is_path(name) else name


def default_data_root() -> Path:
    """Return the folder of datasets: `$TWOSTEP_DATA`, or `data` in the current folder."""
    return Path(os.environ.get("TWOSTEP_DATA") or "data")


def load_data(
    name: str,
    *,
    data_root: Path | None = None,
    seed: int = 0,
    make_valid: bool = True,
    valid_fraction: float = VALID_FRACTION,
    kwargs: Mapping[str, Any] | None = None,
) -> Splits:
    """Load a dataset and split it.

    Args:
        name: a name in `DATASETS`, the path of a file (`.npy`, `.npz`, `.csv`, `.parquet`) or of a folder of images, or
            else `owner/name` of an image dataset on the Hugging Face hub.
        data_root: folder with one subfolder per dataset; None: `default_data_root()`.
        seed: seed of the validation split, and of the test split (a fifth) of data without one.
        make_valid: whether to hold out a validation split.
        valid_fraction: share of the training rows in the validation split.
        kwargs: keys of the dataset (`dataset_kwargs`).

    Raises:
        UserError: for an unknown name or key, missing, damaged or unsuitable files, or too few rows.
    """
    source = _read(name, data_root or default_data_root(), kwargs or {})
    return split_source(source, name, seed, valid_fraction if make_valid else 0.0)


def split_frame(
    frame: Any,
    *,
    name: str = "the table",
    seed: int = 0,
    valid_fraction: float = VALID_FRACTION,
    kwargs: Mapping[str, Any] | None = None,
) -> Splits:
    """Split a table in memory, a frame of pandas, polars or arrow, as `load_data` does a file.

    Args:
        frame: the table.
        name: what messages and the facts about the data call it.
        seed, valid_fraction: as for `split_source`.
        kwargs: keys of a table (`twostep.data.table.keys.TableKeys`).

    Raises:
        UserError: with everything that is wrong with it, by column, or for too few rows.
    """
    return split_source(source_of(frame, _options(TableKeys, kwargs or {}, name), name), name, seed, valid_fraction)


def split_source(source: Source, name: str, seed: int = 0, valid_fraction: float = VALID_FRACTION) -> Splits:
    """Split what a loader returned, as `load_data` does; `valid_fraction=0` holds out no validation rows.

    Raises:
        UserError: for too few rows.
    """
    generator = torch.Generator().manual_seed(seed)
    source, names = numbered(source)
    if source.test is None:
        known, test = _cut(source.train, source.train_labels, TEST_FRACTION, generator)
    else:
        known, test = (source.train, source.train_labels), (source.test, source.test_labels)
    train, valid = _cut(*known, valid_fraction, generator) if valid_fraction else (known, (None, None))
    if len(train[0]) < 2 or len(test[0]) < 1:
        validation = "" if valid[0] is None else f"{len(valid[0])} for validation, "
        counts = f"{len(train[0])} for training, {validation}{len(test[0])} for test"
        raise UserError(f"{name}: too few rows: {counts}; give at least 2, 1 and 1")
    spec = DataSpec(
        name=name,
        shape=tuple(source.train.shape[1:]),
        size=len(train[0]),
        low=min(float(rows.min()) for rows in blocks(known[0])) if source.low is None else source.low,
        high=max(float(rows.max()) for rows in blocks(known[0])) if source.high is None else source.high,
        discrete=source.discrete,
        columns=source.columns,
        labels=names,
    )
    return Splits(spec, train[0], valid[0], test[0], train[1], valid[1], test[1])


def numbered(source: Source) -> tuple[Source, tuple[str, ...]]:
    """Return a source with its labels numbered from 0 on, -1 where one is missing, and their names.

    Without labels, or with more than `MAX_LABELS`, it is returned as it is, without names.
    """
    given = [labels for labels in (source.train_labels, source.test_labels) if labels is not None]
    if not given or len(source.label_names) > MAX_LABELS:
        return source, ()
    if source.label_names:
        return source, source.label_names
    found = torch.cat(given).unique()
    if len(found) > MAX_LABELS:
        return source, ()
    train, test = (
        None if labels is None else torch.searchsorted(found, labels)
        for labels in (source.train_labels, source.test_labels)
    )
    return replace(source, train_labels=train, test_labels=test), tuple(str(one) for one in found.tolist())


def _cut(rows: Rows, labels: Tensor | None, share: float, generator: Generator) -> list[tuple[Rows, Tensor | None]]:
    """Return the kept rows with their labels, and the held-out ones with theirs."""
    return [
        (take(rows, index), None if labels is None else labels[index])
        for index in hold_out(len(rows), share, generator)
    ]


def training_rows(name: str, kwargs: Mapping[str, Any], most: int | None = MAX_TRAINING_ROWS) -> Tensor:
    """Return the rows of `training_features`."""
    return training_features(name, kwargs, most)[0]


def training_features(
    name: str, kwargs: Mapping[str, Any], most: int | None = MAX_TRAINING_ROWS
) -> tuple[Tensor, bool]:
    """Return the training rows `(N, *S)` of a dataset, or all rows of a file; at most `most`, evenly spaced.

    Rows of a table with words, dates or gaps are their features: normal scores of numbers, one-hot levels; whether
    they are is the second value. Errors and `kwargs` are those of `load_data`.
    """
    found = read_path(Path(name), kwargs) if is_path(name) else load_data(name, make_valid=False, kwargs=kwargs)
    rows = subsample(found.train, len(found.train) if most is None else most)
    columns = found.columns if isinstance(found, Source) else found.spec.columns
    if columns is None or columns.plain:
        return rows, False
    logger.info("%s: numbers are taken as normal scores, levels as one-hot vectors (%s)", name, columns.summary())
    return features_of(columns, rows), True


def features_of(columns: TableSchema, rows: Tensor) -> Tensor:
    """Return rows of a table, coded `(N, C)`, as normal scores of numbers and one-hot levels."""
    features = TableFeatures(columns)
    features.fit([rows])
    return features(rows)


def read_rows(
    path: Path,
    image_size: Size | None = None,
    columns: TableSchema | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return all rows of a file or folder, `N x *S`, in order, without the checks that training data must pass.

    Args:
        path: an array or table (`.npy`, `.npz` with one array, `.csv`, `.parquet`), a `.parquet` file of encoded
            images, or a folder of images.
        image_size: height and width to which images are resized; None: they must all have the same size.
        columns: those of a run's table; rows of a table are found by their names and returned as its codes.
        kwargs: keys of a table that say how its text is written.

    Raises:
        UserError: if it is missing, damaged or unsuitable.
    """
    images = images_at(path)
    if images is None:
        keys = _options(TableKeys, {key: value for key, value in (kwargs or {}).items() if key in TEXT_KEYS}, str(path))
        if not is_table(path):
            return read_array(path)
        return table_source(path, keys, False).train if columns is None else table_rows(columns, path, keys)
    source = read_images(str(path), images, size=image_size)
    if source.test is not None:
        raise UserError(f"{path}: contains both train and test: give one of the two folders")
    return source.train


def row_names(path: Path, kwargs: Mapping[str, Any]) -> list[str] | None:
    """Return a name for each of the rows of `read_rows`: the file of an image, or what `index_column` holds.

    None: they have none.
    """
    images, index = images_at(path), kwargs.get("index_column")
    if images is not None and path.is_dir():
        table = next(iter(images.open().values()))
        return [Path(image.where).relative_to(path.resolve()).as_posix() for image in table.images()]
    if images is None and index is not None and is_table(path):
        keys = _options(TableKeys, {key: value for key, value in kwargs.items() if key in TEXT_KEYS}, str(path))
        frame = read_frame(path, keys)
        return [str(name) for name in frame[index]] if index in frame.columns else None
    return None


def read_path(path: Path, kwargs: Mapping[str, Any]) -> Source:
    """Read the user's own file or folder; errors and `kwargs` are those of `load_data`."""
    images = images_at(path)
    if images is None and is_table(path):
        return table_source(path, _options(TableKeys, kwargs, str(path)))
    if images is None:
        _options(NoKeys, kwargs, str(path))
        return read_arrays(path)
    return read_images(str(path.resolve()), images, size=_options(ImageKeys, kwargs, str(path)).image_size)


def takes_image_size(name: str) -> bool:
    """Return whether a dataset has the key `image_size`."""
    if is_path(name):
        return images_at(Path(name)) is not None
    if name in DATASETS or "/" not in name:
        return "image_size" in DATASETS[name].keys.model_fields
    return HUB_ID.fullmatch(name) is not None


def images_at(path: Path) -> ImageSource | None:
    """Return the images of a folder or of a `.parquet` file, or None if `path` is a file of numbers."""
    if path.is_dir():
        return from_folder(path.resolve())
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if holds_structs(path):
        return from_parquet({"train": [path.resolve()]})
    return None


def _read(name: str, data_root: Path, kwargs: Mapping[str, Any]) -> Source:
    if is_path(name):
        return read_path(Path(name), kwargs)
    if name in DATASETS or "/" not in name:
        loader = DATASETS[name]
        return loader.load(data_root, _options(loader.keys, kwargs, name))
    if not HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such file or folder")
    size = _options(ImageKeys, kwargs, name).image_size
    return read_images(name, from_hub(name, f"{name}: no such file or folder,"), size=size)


def _options(keys: type[Keys], kwargs: Mapping[str, Any], name: str) -> Keys:
    if kwargs and not keys.model_fields:
        raise UserError(f"dataset_kwargs: {name} has no keys, but got: {', '.join(map(str, kwargs))}")
    return keys.parse(kwargs, name)
