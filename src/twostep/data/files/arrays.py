"""Arrays in files, checked and reshaped as models need them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.base import Source

Array = NDArray[Any]

logger = logging.getLogger("twostep")

ENDINGS = frozenset({".npy", ".npz"})
ACCEPTED = (
    "accepted are vectors N x D or N, uint8 images N x H x W, N x H x W x C or N x C x H x W, "
    "and float images N x C x H x W, where C is 1 or 3"
)


def read_arrays(path: Path) -> Source:
    """Read training data: a `.npy` file, or a `.npz` file with the keys `train` and `test` or with one array.

    uint8 images become `N x C x H x W`, uint8, discrete; everything else becomes float32.
    """
    arrays = _load(path)
    if len(arrays) != 1 and set(arrays) != {"train", "test"}:
        found = ", ".join(sorted(arrays)) or "none"
        raise UserError(f"{path}: its keys must be train and test, or a single key of any name; found: {found}")
    rows = {key: array_rows(array, f"{path}, {key}" if key else str(path)) for key, array in arrays.items()}
    test = rows["test"] if len(rows) > 1 else None
    name = "train" if len(rows) > 1 else next(iter(rows))
    train = rows[name]
    if test is not None and (train.dtype, train.shape[1:]) != (test.dtype, test.shape[1:]):
        raise UserError(f"{path}: train has {_kind(train)}, test has {_kind(test)}: make them equal")
    if len(train) > 1:
        _check_variation(train, arrays[name], path)
    if train.dtype == torch.uint8:
        return Source(train, test, discrete=True, low=0.0, high=255.0)
    return Source(train, test)


def read_array(path: Path) -> Tensor:
    """Read all rows `N x *S` of a `.npy` file, or a `.npz` file with one array, without checking variation."""
    arrays = _load(path)
    if len(arrays) != 1:
        raise UserError(f"{path}: must hold exactly one array; found: {', '.join(sorted(arrays)) or 'none'}")
    ((key, array),) = arrays.items()
    return array_rows(array, f"{path}, {key}" if key else str(path))


def vectors(array: Array, where: str, training: bool = True) -> Tensor:
    """Return a matrix of numbers as rows, float32; what rows for `training` lack is a `UserError` or a warning."""
    rows = array_rows(array, where)
    if training and len(rows) > 1:
        _check_variation(rows, array, where)
    return rows


def _load(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise UserError(f"{path}: cannot be read as plain arrays of numbers: {_reason(path, error)}") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: {key} is not an array: write the file with numpy.savez")
    return arrays


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        first = file.read(6)
    if not first:
        return "it is empty; write it with numpy.save or numpy.savez"
    if not first.startswith((b"\x93NUMPY", b"PK")):
        return "it has another format; write it with numpy.save or numpy.savez, or as a table, .csv or .parquet"
    if "allow_pickle" in str(error):
        return "it holds Python objects, which are never loaded; convert them to numbers"
    return f"write it again ({' '.join(str(error).split())})"


def array_rows(array: Array, where: str) -> Tensor:
    """Check an array and reshape it to `N x *S`; `where` is its name in messages."""
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: values of type {array.dtype} are not real numbers: convert them first")
    if array.size == 0:
        raise UserError(f"{where}: is empty (shape {_times(array.shape)})")
    if array.ndim in (1, 2):
        return _finite(array.reshape(len(array), -1), where)
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        return torch.as_tensor(np.ascontiguousarray(_channels_first(array, where)))
    if array.dtype.kind == "f" and array.ndim == 4 and array.shape[1] in (1, 3):
        return _finite(array, where)
    raise UserError(f"{where}: {array.dtype} of shape {_times(array.shape)}: {ACCEPTED}")


def _channels_first(array: Array, where: str) -> Array:
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first and last:
        raise UserError(f"{where}: shape {_times(array.shape)} is ambiguous, channels may be first or last: {ACCEPTED}")
    if not first and not last:
        raise UserError(f"{where}: shape {_times(array.shape)}: {ACCEPTED}")
    return array if first else array.transpose(0, 3, 1, 2)


def _finite(array: Array, where: str) -> Tensor:
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(rows))
    if len(bad):
        row, column = divmod(int(bad[0]), rows[0].size)
        value = array[row].flat[column]
        place = "column" if array.ndim == 2 else "flat index"
        others = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise UserError(f"{where}: row {row}, {place} {column} is {value}{others}: must be finite in float32")
    return torch.as_tensor(rows)


def _check_variation(train: Tensor, given: Array, path: Path | str) -> None:
    """Refuse rows that are all equal, and warn of constant columns; `given` is `train` before rounding to float32."""
    if bool((train == train[:1]).all()):
        rounded = " in single precision; subtract the means of the columns first" if (given != given[:1]).any() else ""
        raise UserError(f"{path}: all rows are equal{rounded}: there is nothing to learn")
    if train.dim() > 2:
        return
    constant = (train.amin(0) == train.amax(0)).numpy()
    varied = constant & (given != given[:1]).any(0)
    too_little = " in single precision: their variation is too small beside their mean (subtract it)"
    for columns, why in ((constant & ~varied, ""), (varied, too_little)):
        if columns.any():
            named = ", ".join(map(str, np.flatnonzero(columns)[:5])) + (", ..." if columns.sum() > 5 else "")
            logger.warning("%s: %d of %d columns are constant%s: %s", path, columns.sum(), len(columns), why, named)


def _kind(rows: Tensor) -> str:
    return f"{str(rows.dtype).removeprefix('torch.')} rows of shape {_times(rows.shape[1:])}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"
