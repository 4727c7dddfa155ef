"""Rows of a user's file or folder, all of them and in their order, for a model that is there: nothing is split off."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from twostep.data import folders
from twostep.data.arrays import is_array_path, read_array, to_points
from twostep.data.decode import PictureSource, Size, read_pictures, reason
from twostep.data.hub import Parquet
from twostep.schema import UserError

ENDINGS = ".npy, .npz (one array), .parquet, .csv, or a folder of pictures"
WRITTEN = (
    "write it in UTF-8, with commas between columns, points in numbers, no gaps, and words in no row but the first"
)


def read_rows(path: Path, image_size: Size | None = None) -> Tensor:
    """Read all rows of one file or folder, `N x *S`.

    Args:
        path: a `.npy` file, a `.npz` file of one array, a `.csv` or `.parquet` table of numbers, a `.parquet` file of
            encoded pictures, or a folder of pictures.
        image_size: height and width that pictures are brought to; None: they must all have the same.

    Raises:
        UserError: if it is missing, damaged, or holds something else than finite numbers in accepted shapes.
    """
    if path.is_dir():
        return _pictures(path, folders.find(path.resolve()), image_size)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if is_array_path(str(path)):
        return read_array(path)
    if path.suffix.lower() == ".csv":
        return to_points(_csv(path), str(path))
    if path.suffix.lower() == ".parquet":
        table = _table(path)
        if any(str(kind).startswith("struct") for kind in table.schema.types):
            return _pictures(path, Parquet({"train": [path]}, labelled=False), image_size)
        return to_points(_numbers(table, path), str(path))
    raise UserError(f"{path}: can't be read; give {ENDINGS}")


def _pictures(path: Path, source: PictureSource, size: Size | None) -> Tensor:
    arrays = read_pictures(str(path), source, size=size)
    if "test" in arrays:
        raise UserError(f"{path}: has train and test: give one of the two folders")
    return arrays["train"]


def _csv(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # it is refused as empty
            lines = csv.reader(file)
            skipped = lines.line_num if _are_names(next(lines, [])) else 0
            return np.loadtxt(
                path, delimiter=",", quotechar='"', comments=None, skiprows=skipped, ndmin=2, encoding="utf-8-sig"
            )
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path}: is no table of numbers ({reason(error)}): {WRITTEN}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no table of numbers ({_first_fault(path) or reason(error)}): {WRITTEN}") from error


def _first_fault(path: Path) -> str:
    """Return in words the first cell that holds no number, or the first line of another length; empty: none is seen."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        first = next(lines, [])
        names, width = (first, len(first)) if _are_names(first) else ([], len(first))
        rows = lines if names else itertools.chain([first], lines)
        for number, cells in enumerate(rows, 1 + bool(names)):
            if cells and len(cells) != width:
                return f"line {number} has {len(cells)} columns, those before it have {width}"
            for place, cell in enumerate(cells):
                if not _is_number(cell):
                    held = f"holds {cell.strip()[:40]!r}" if cell.strip() else "is empty"
                    return f"line {number}, column {names[place].strip() if names else place + 1} {held}"
    return ""


def _are_names(fields: Sequence[str]) -> bool:
    """Whether a first row names columns: if it had a number, a row with a gap would be lost in silence."""
    return any(fields) and not any(map(_is_number, fields))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _table(path: Path) -> Any:
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        with parquet.ParquetFile(path) as file:
            return file.read()
    except Exception as error:  # arrow's errors have no common base
        raise UserError(f"{path}: is not a whole parquet file ({reason(error)})") from error


def _numbers(table: Any, path: Path) -> Any:
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not str(kind).startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise UserError(f"{path}: column {name} holds {kind}, not real numbers: leave it out")
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    return np.stack(columns, 1) if columns else np.empty((0, 0))
