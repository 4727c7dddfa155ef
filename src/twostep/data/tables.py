"""Tables of numbers in `.csv` and `.parquet` files."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twostep.data.decode import reason
from twostep.schema import UserError

ENDINGS = frozenset({".csv", ".parquet"})
WRITTEN = (
    "write it in UTF-8, with commas between columns, points in numbers, no gaps, and words in no row but the first"
)


def read_table(path: Path) -> NDArray[Any]:
    """Return the numbers of a `.csv` or `.parquet` file, `N x D`.

    Raises:
        UserError: if it is damaged, or holds something else than numbers or a column that only numbers the rows.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    return _csv(path)


def column_types(path: Path) -> list[str]:
    """Return what the columns of a `.parquet` file hold, in arrow's words.

    Raises:
        UserError: if it is damaged.
    """
    with _opened(path) as file:
        return [str(kind) for kind in file.schema_arrow.types]


def _csv(path: Path) -> NDArray[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # it is refused as empty
            lines = csv.reader(file)
            first = next(lines, [])
            skipped = lines.line_num if _are_names(first) else 0
            table = np.loadtxt(
                path, delimiter=",", quotechar='"', comments=None, skiprows=skipped, ndmin=2, encoding="utf-8-sig"
            )
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path}: is no table of numbers ({reason(error)}): {WRITTEN}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no table of numbers ({_first_fault(path) or reason(error)}): {WRITTEN}") from error
    if skipped and not first[0].strip():
        _refuse_row_numbers(path, "the first column, which has no name,", table[:, 0])
    return table


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


def _parquet(path: Path) -> NDArray[Any]:
    with _opened(path) as file:
        try:
            table = file.read()
        except Exception as error:  # arrow's errors have no common base
            raise _damaged(path, error) from error
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not str(kind).startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise UserError(f"{path}: column {name} holds {kind}, not real numbers: leave it out")
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    for name, column in zip(table.column_names, columns, strict=True):
        if name.startswith("__index_level_"):  # pandas' name for it
            _refuse_row_numbers(path, f"column {name}", column)
    return np.stack(columns, 1) if columns else np.empty((0, 0))


def _opened(path: Path) -> Any:
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # arrow's errors have no common base
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is not a whole parquet file ({reason(error)})")


def _refuse_row_numbers(path: Path, column: str, values: NDArray[Any]) -> None:
    if len(values) and len(np.unique(values)) == len(values) and bool((values == np.round(values)).all()):
        raise UserError(f"{path}: {column} only numbers the rows: leave it out (pandas: write it with index=False)")
