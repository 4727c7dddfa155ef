"""Tables of numbers in `.csv` and `.parquet` files."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twostep.core.schema import UserError, reason

ENDINGS = frozenset({".csv", ".parquet"})
SEPARATORS = ",;\t"
UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""Names of columns without a name, the last two as pandas writes them."""

WRITTEN = (
    "write it in UTF-8, with commas, semicolons or tabs between columns, points in numbers, no empty cells, and column "
    "names in the first row only"
)

Array = NDArray[Any]

logger = logging.getLogger("twostep")


def read_table(path: Path) -> Array:
    """Return the numbers of a `.csv` or `.parquet` file, `N x D`.

    Columns without a name that are empty or only number the rows (an index) are dropped with a warning.

    Raises:
        UserError: if it is damaged, or holds anything but numbers.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def column_types(path: Path) -> list[str]:
    """Return the types of the columns of a `.parquet` file, as arrow names them.

    Raises:
        UserError: if it is damaged.
    """
    with open_parquet(path) as file:
        return [str(kind) for kind in file.schema_arrow.types]


def _read_csv(path: Path) -> Array:
    try:
        separator = _separator(path)
        names = _names(path, separator)
        table = _numbers(path, separator, skip_names=names is not None)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of numbers ({reason(error)}): {WRITTEN}") from error
    except ValueError as error:
        fault = _first_fault(path) or reason(error)
        raise UserError(f"{path}: not a table of numbers ({fault}): {WRITTEN}") from error
    if not len(table):
        return table
    if names and any(map(_is_number, names)):
        logger.warning(
            "%s: the first row, %s to %s, is taken as the column names that pandas writes; if it is data, add a row of "
            "names above it",
            *(path, next(name for name in names if name), names[-1]),
        )
    unnamed = [place for place in range(table.shape[1]) if names is None or _is_unnamed(names, place)]
    empty = [place for place in unnamed if np.isnan(table[:, place]).all()]
    index = [0] if names is not None and 0 in unnamed and _is_index(table[:, 0]) else []
    kept = _kept(path, empty, index, table.shape[1])
    if (np.isnan(table[:, kept]).any() or (names and len(names) != table.shape[1])) and (
        fault := _first_fault(path, {*empty, *index})
    ):
        raise UserError(f"{path}: not a table of numbers ({fault}): {WRITTEN}")
    return table[:, kept]


def _numbers(path: Path, separator: str, skip_names: bool) -> Array:
    """Return the rows below the names, `N x D` in float64; empty cells are NaN."""
    import pandas  # here because few need it

    keys: Any = {"sep": separator, "header": None, "dtype": np.float64}
    with path.open(encoding="utf-8-sig", newline="") as file:
        if skip_names:
            next(_records(file, separator))
        try:
            return pandas.read_csv(file, **keys, keep_default_na=False, na_values=["", "nan", "NaN", "NAN"]).to_numpy()
        except pandas.errors.EmptyDataError:
            return np.empty((0, 0))


def _records(file: Any, separator: str) -> Iterator[list[str]]:
    """Yield the cells of each row that is not blank."""
    return filter(None, csv.reader(file, delimiter=separator))


def _first_two(path: Path, separator: str) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(islice(_records(file, separator), 2))


def _separator(path: Path) -> str:
    """Return the separator that splits the second row, which holds no names, into the most numbers."""
    return max(SEPARATORS, key=lambda one: sum(map(_is_number, next(reversed(_first_two(path, one)), []))))


def _names(path: Path, separator: str) -> list[str] | None:
    """Return the names of the columns, or None if the first row holds data.

    Names are words, or pandas' default ones: 0, 1, 2, ... A first row with both numbers and empty cells is data.
    """
    first, *rest = _first_two(path, separator) or [[]]
    if any(first) and not any(map(_is_number, first)):
        return first
    named = first[1:] if first and _is_unnamed(first, 0) else first
    if not named or not rest or named != [str(place) for place in range(len(named))]:
        return None
    integers = len(first) == 1 and re.fullmatch(r"\s*-?\d+\s*", rest[0][0])  # one column of integers that starts at 0
    return None if integers else first


def _first_fault(path: Path, dropped: Collection[int] = ()) -> str:
    """Describe the first cell that is not a number, or the first line of another length; empty if there is none."""
    separator = _separator(path)
    names = _names(path, separator)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = ((number, cells) for number, cells in enumerate(csv.reader(file, delimiter=separator), 1) if cells)
        width = len(names) if names else 0
        for number, cells in islice(lines, int(names is not None), None):
            if len(cells) != (width := width or len(cells)):
                return f"line {number} has {len(cells)} columns, the lines above have {width}"
            for place, cell in enumerate(cells):
                if place not in dropped and not _is_number(cell):
                    found = f"holds {cell.strip()[:40]!r}" if cell.strip() else "is empty"
                    return f"line {number}, column {names[place].strip() if names else place + 1} {found}"
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_unnamed(names: Sequence[str], place: int) -> bool:
    return place < len(names) and UNNAMED.fullmatch(names[place]) is not None


def _is_index(values: Array) -> bool:
    """Return whether a column holds distinct integers."""
    return len(np.unique(values)) == len(values) and bool((values == np.round(values)).all())


def _kept(path: Path, empty: Sequence[int], index: Sequence[int], width: int) -> list[int]:
    """Return the columns to keep, and warn about those dropped: empty ones, and those that number the rows."""
    kept = [place for place in range(width) if place not in {*empty, *index}]
    for places, what in ((empty, "are empty"), (index, "only number the rows")):
        if places and kept:
            named = ", ".join(str(place + 1) for place in places)
            logger.warning("%s: columns without a name that %s are dropped: %s (counted from 1)", path, what, named)
    return kept or list(range(width))


def _read_parquet(path: Path) -> Array:
    with open_parquet(path) as file:
        try:
            table = file.read()
        except Exception as error:  # arrow's errors have no common base
            raise damaged(path, error) from error
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not str(kind).startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise UserError(f"{path}: column {name} holds {kind}, not real numbers: remove it")
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    named = table.column_names
    index = [place for place, column in enumerate(columns) if _is_unnamed(named, place) and _is_index(column)]
    kept = _kept(path, [], index, len(columns))
    return np.stack([columns[place] for place in kept], 1) if columns else np.empty((0, 0))


def open_parquet(path: Path) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: if it is damaged.
    """
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # arrow's errors have no common base
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a damaged `.parquet` file."""
    return UserError(f"{path}: damaged or incomplete parquet file ({reason(error)})")
