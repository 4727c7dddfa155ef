"""Rows of a user's file or folder, all of them and in their order, for a model that is there: nothing is split off."""

from __future__ import annotations

import warnings
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
        with path.open(encoding="utf-8-sig") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # it is refused as empty
            skipped = int(_is_header(file.readline()))
            return np.loadtxt(path, delimiter=",", skiprows=skipped, ndmin=2, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8: save it as CSV in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({reason(error)})") from error
    except ValueError as error:
        told = _first_fault(path) or reason(error)
        raise UserError(f"{path}: is no table of numbers with commas between them ({told})") from error


def _first_fault(path: Path) -> str:
    """Return in words the first cell that holds no number, or the first line of another length; empty: none is seen."""
    with path.open(encoding="utf-8-sig") as file:
        lines = [line.rstrip("\r\n").split(",") for line in file]
    names = lines[0] if _is_header(",".join(lines[0])) else []
    width = 0
    for number, cells in enumerate(lines[bool(names) :], 1 + bool(names)):
        width = width or len(cells)
        if cells == [""]:
            continue
        if len(cells) != width:
            return f"line {number} has {len(cells)} columns, those before it have {width}"
        for place, cell in enumerate(cells):
            if _is_header(cell):
                column = names[place].strip() if place < len(names) else ""
                named = f"column {place + 1}" + (f", {column}," if column else "")
                return f"line {number}, {named} {_held(cell)}"
    return ""


def _held(cell: str) -> str:
    if not cell.strip():
        return "is empty: fill it in, or leave out its row"
    if ";" in cell or "\t" in cell:
        return "holds other separators: write commas"
    return f"holds {cell.strip()[:40]!r}: leave it out, or write a number"


def _is_header(line: str) -> bool:
    try:
        np.array(line.split(","), dtype=np.float64)
    except ValueError:
        return True
    return False


def _table(path: Path) -> Any:
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        return parquet.read_table(path)
    except Exception as error:  # arrow's errors have no common base
        raise UserError(f"{path}: is not a whole parquet file ({reason(error)})") from error


def _numbers(table: Any, path: Path) -> Any:
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not str(kind).startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise UserError(f"{path}: column {name} holds {kind}, not real numbers: leave it out")
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    return np.stack(columns, 1) if columns else np.empty((0, 0))
