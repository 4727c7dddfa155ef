"""Tables of numbers in `.csv` and `.parquet` files."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twostep.core.schema import UserError, reason

ENDINGS = frozenset({".csv", ".parquet"})
SEPARATORS = ",;\t"
UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""Names of columns without a name, the last two as pandas writes them."""

Array = NDArray[Any]

logger = logging.getLogger("twostep")


class NumberTable(NamedTuple):
    """A table of numbers `N x D`, with the names of its columns, 0, 1, ... without any, and their types."""

    rows: Array
    names: list[str]
    dtypes: list[str]


def read_table(path: Path) -> Array:
    """Return the numbers of a `.csv` or `.parquet` file, `N x D`.

    Columns without a name that are empty or only number the rows (an index) are dropped with a warning.
    """
    return read_numbers(path).rows


def read_numbers(path: Path) -> NumberTable:
    """Return the table of `read_table`, with its columns."""
    is_csv = path.suffix.lower() == ".csv"
    names, table, dtypes = _read_csv(path) if is_csv else _read_parquet(path)
    if not len(table):
        return NumberTable(table, [], [])
    unnamed = [place for place in range(table.shape[1]) if names is None or _is_unnamed(names, place)]
    empty = [place for place in unnamed if np.isnan(table[:, place]).all()]
    index = [place for place in unnamed if names is not None and _is_index(names[place], place, table[:, place])]
    kept = [place for place in range(table.shape[1]) if place not in (*empty, *index)]
    for places, what in ((empty, "are empty"), (index, "only number the rows")):
        if places and kept:
            numbers = ", ".join(str(place + 1) for place in places)
            logger.warning("%s: columns without a name that %s are dropped: %s (counted from 1)", path, what, numbers)
    found = table[:, kept] if kept else table
    if is_csv and (np.isnan(found).any() or (names and len(names) != table.shape[1])):
        fault = _first_fault(path, {*empty, *index})
        if fault:
            raise _unsuitable(path, fault)
    named = [str(place) for place in range(len(kept))] if names is None else [names[place].strip() for place in kept]
    if not dtypes:
        whole = (found == np.round(found)).all(0)
        return NumberTable(found, named, ["int64" if one else "float64" for one in whole])
    return NumberTable(found, named, [dtypes[place] for place in kept])


def _read_csv(path: Path) -> tuple[list[str] | None, Array, list[str]]:
    """Return the names of the columns, or None if the first row holds data, and the rows below; empty cells are NaN.

    Types of columns, as none are given, are an empty list.
    """
    import pandas  # here because few need it

    keys: Any = {"header": None, "dtype": np.float64, "keep_default_na": False, "na_values": ["", "nan", "NaN", "NAN"]}
    try:
        separator, names = _header(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if names is not None:
                next(_records(file, separator))
            table = pandas.read_csv(file, sep=separator, **keys).to_numpy()
    except pandas.errors.EmptyDataError:
        return None, np.empty((0, 0)), []
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unsuitable(path, reason(error)) from error
    except ValueError as error:
        raise _unsuitable(path, _first_fault(path) or reason(error)) from error
    if names and any(map(_is_number, names)):
        logger.warning(
            "%s: the first row, %s to %s, is taken as the column names that pandas writes; if it is data, add a row of "
            "names above it",
            *(path, next(name for name in names if name), names[-1]),
        )
    return names, table, []


def _header(path: Path) -> tuple[str, list[str] | None]:
    """Return the separator, and the names of the columns if the first row holds them.

    The separator splits the second row into the most numbers. Names are words, or pandas' default ones: 0, 1, 2, ... A
    first row with both numbers and empty cells is data.
    """
    heads: dict[str, list[list[str]]] = {}
    for separator in SEPARATORS:
        with path.open(encoding="utf-8-sig", newline="") as file:
            heads[separator] = list(islice(_records(file, separator), 2)) or [[]]
    separator = max(SEPARATORS, key=lambda one: sum(map(_is_number, heads[one][-1])))
    first, *rest = heads[separator]
    if any(first) and not any(map(_is_number, first)):
        return separator, first
    named = first[1:] if _is_unnamed(first, 0) else first
    if not named or not rest or named != [str(place) for place in range(len(named))]:
        return separator, None
    integers = len(first) == 1 and re.fullmatch(r"\s*-?\d+\s*", rest[0][0])  # one column of integers that starts at 0
    return separator, None if integers else first


def _records(file: Any, separator: str) -> Iterator[list[str]]:
    """Yield the cells of each row that is not blank."""
    return filter(None, csv.reader(file, delimiter=separator))


def _first_fault(path: Path, dropped: Collection[int] = ()) -> str:
    """Describe the first cell that is not a number, or the first line of another length; empty if there is none."""
    separator, names = _header(path)
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


def _unsuitable(path: Path, fault: str) -> UserError:
    return UserError(
        f"{path}: not a table of numbers ({fault}): write it in UTF-8, with commas, semicolons or tabs between "
        "columns, points in numbers, no empty cells, and column names in the first row only"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_unnamed(names: Sequence[str], place: int) -> bool:
    return place < len(names) and UNNAMED.fullmatch(names[place]) is not None


def _is_index(name: str, place: int, values: Array) -> bool:
    """Return whether a column without a name holds distinct integers where pandas writes an index."""
    if place > 0 and not name.startswith("__index"):
        return False
    return len(np.unique(values)) == len(values) and bool((values == np.round(values)).all())


def _read_parquet(path: Path) -> tuple[list[str], Array, list[str]]:
    with open_parquet(path) as file:
        try:
            table = file.read()
        except Exception as error:  # arrow's errors have no common base
            raise damaged(path, error) from error
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not str(kind).startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise UserError(f"{path}: column {name} holds {kind}, not real numbers: remove it")
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    kinds = {"double": "float64", "float": "float32", "halffloat": "float16"}
    dtypes = [kinds.get(str(kind), str(kind)) for kind in table.schema.types]
    return table.column_names, np.stack(columns, 1) if columns else np.empty((0, 0)), dtypes


def open_parquet(path: Path) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`."""
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # arrow's errors have no common base
        raise damaged(path, error) from error


def holds_structs(path: Path) -> bool:
    """Return whether a file is a `.parquet` file with a column of structs, such as encoded images."""
    if path.suffix.lower() != ".parquet":
        return False
    with open_parquet(path) as file:
        return any(str(kind).startswith("struct") for kind in file.schema_arrow.types)


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a damaged `.parquet` file."""
    return UserError(f"{path}: damaged or incomplete parquet file ({reason(error)})")
