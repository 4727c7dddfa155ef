"""Text files to frames of strings: encoding, separator and names are found, unless keys say them."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twostep.core.schema import UserError, reason
from twostep.data.table.keys import TableKeys

if TYPE_CHECKING:
    import pandas

ENDINGS = frozenset({".csv", ".tsv", ".txt", ".data"})
BLANKS = r"\s+"
SEPARATORS = ("\t", ";", "|", ",")
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
LOOKED_AT = 200  # lines
UNNAMED = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""Names of columns without a name, the last two as pandas writes them."""
NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*")

logger = logging.getLogger("twostep")


def is_text_table(path: Path) -> bool:
    """Return whether a file is a table by its ending, compressed (`.csv.gz`) or not."""
    return ending(path) in ENDINGS


def ending(path: Path) -> str:
    """Return the ending of a file's name, of the uncompressed one."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


class NumberTable(NamedTuple):
    """A table of numbers `N x D`, with the names of its columns, 0, 1, ... without any, and their types."""

    rows: NDArray[np.float64]
    names: list[str]
    dtypes: list[str]


def read_numbers(path: Path) -> NumberTable | None:
    """Return a text file of numbers alone, without missing values, read fast; None: it is none, or can't be read.

    Columns without a name that are empty, and a first one that only numbers the rows, are left out with a warning.
    """
    import pandas

    try:
        with path.open(encoding="utf-8-sig") as file:
            first = [(number, line) for number, line in enumerate(islice(file, LOOKED_AT)) if line.strip()]
        first = first[_comments([line for _, line in first]) :]
        lines = [line for _, line in first]
        sep = _separator(lines)
        head = _cells(lines, sep)
    except (OSError, UnicodeError, csv.Error):
        return None
    if len(set(map(len, head))) != 1:
        return None
    found = _names(pandas.DataFrame(head, dtype=str))
    if len(first) <= (found is not None):
        return None
    begin, _ = first[found is not None]
    keys: Any = {"header": None, "dtype": np.float64, "keep_default_na": False, "na_values": ["", "nan", "NaN", "NAN"]}
    try:
        rows = pandas.read_csv(path, sep=sep, skiprows=begin, encoding="utf-8-sig", **keys).to_numpy()
    except ValueError:
        return None
    names = [str(place) for place in range(rows.shape[1])] if found is None else found
    if len(names) != rows.shape[1]:
        return None
    unnamed = [place for place, name in enumerate(names) if found is None or UNNAMED.fullmatch(name)]
    left_out = [place for place in unnamed if np.isnan(rows[:, place]).all()]
    if found is not None and 0 in unnamed and _number_rows(rows[:, 0]):
        left_out.append(0)
    kept = [place for place in range(len(names)) if place not in left_out]
    rows = rows[:, kept]
    if not kept or np.isnan(rows).any() or (found is not None and set(unnamed) & set(kept)):
        return None
    warn_of_unnamed(left_out, path)
    names = [names[place] if found else str(number) for number, place in enumerate(kept)]
    whole = (rows == np.round(rows)).all(0)
    _warn_of_default(found, path)
    return NumberTable(rows, names, ["int64" if one else "float64" for one in whole])


def read_text(path: Path, keys: TableKeys) -> pandas.DataFrame:
    """Return the cells of a text file as strings, blanks at their ends removed.

    Raises:
        UserError: if it can't be read, or if its rows have different lengths.
    """
    import pandas  # here because it takes long

    lines = [line for line in io.StringIO(_decoded(path, keys.encoding)) if line.strip()]
    lines = lines[_comments(lines) :]
    sep = keys.sep or _separator(lines[:LOOKED_AT])
    try:
        cells = _cells(lines, sep)
    except (TypeError, csv.Error) as error:
        raise UserError(f"{path}: can't be cut into cells by sep={sep!r} ({reason(error)})") from None
    if not cells:
        raise UserError(f"{path}: is empty")
    width = Counter(map(len, cells)).most_common(1)[0][0]
    odd = [(number, len(row)) for number, row in enumerate(cells, 1) if len(row) != width]
    if odd:
        others = f" (and {len(odd) - 1:,} more)" if len(odd) > 1 else ""
        raise UserError(
            f"{path}: row {odd[0][0]}{others} has {odd[0][1]} columns, and most have {width}: correct it, or set the "
            "key sep or encoding (--dataset-kwargs sep=...)"
        )
    table = pandas.DataFrame([[cell.strip() for cell in row] for row in cells], dtype=str)
    names = _names(table)
    _warn_of_default(names, path)
    if names is not None:
        table = pandas.DataFrame(table.iloc[1:]).reset_index(drop=True)
    table.columns = [str(place) for place in range(table.shape[1])] if names is None else names
    return table


def _cells(lines: list[str], sep: str) -> list[list[str]]:
    if sep == BLANKS:
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=sep, skipinitialspace=True))


def _decoded(path: Path, encoding: str | None) -> str:
    found = encoding or "utf-8"
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        found = encoding or next((name for mark, name in MARKS if raw.startswith(mark)), found)
        return raw.decode(found).removeprefix("\ufeff")
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: can't be read ({reason(error)})") from None
    except LookupError:
        raise UserError(
            f"{path}: encoding={encoding}: no such encoding; usual ones are utf-8, utf-16, latin-1"
        ) from None
    except UnicodeError as error:
        advice = "set encoding, usually 'latin-1' or 'utf-16'" if encoding is None else "set another encoding"
        raise UserError(f"{path}: not {found} ({reason(error)}): {advice}") from None


def _comments(lines: Sequence[str]) -> int:
    """Return how many lines at the top are comments: they begin with #, and the next has other columns."""
    top = next((count for count, line in enumerate(lines) if not line.lstrip().startswith("#")), len(lines))
    if not 0 < top < len(lines):
        return 0
    last, first = ([line.count(sep) for sep in SEPARATORS] for line in (lines[top - 1], lines[top]))
    return top - 1 if last == first and any(first) else top  # names may begin with # too


def _separator(lines: Sequence[str]) -> str:
    """Return the separator that cuts all lines into equally many cells, or else the one that cuts most."""
    widths = {
        sep: [len(cells) for cells in csv.reader(lines, delimiter=sep, skipinitialspace=True)] for sep in SEPARATORS
    }
    even = [sep for sep, found in widths.items() if found and min(found) == max(found) > 1]
    if even:
        return even[0]
    blank = {len(line.split()) for line in lines}
    if len(blank) == 1 and max(blank) > 1 and sum(NUMBER.fullmatch(cell) is not None for cell in lines[-1].split()):
        return BLANKS
    return max(SEPARATORS, key=lambda sep: sum(widths[sep]))


def _names(table: pandas.DataFrame) -> list[str] | None:
    """Return the first row if it holds names: words that are not values of their columns too, or 0, 1, 2, ..."""
    first, rest = [name.strip() for name in table.iloc[0]], table.iloc[1:]
    given = [name for name in first if name]
    names = [name or f"Unnamed: {place}" for place, name in enumerate(first)]
    default = [str(place) for place in range(len(given))]  # pandas' names
    if given and (first if first[0] else first[1:]) == default and len(rest):
        # a single column of integers may start at 0
        return None if len(first) == 1 and re.fullmatch(r"\s*-?\d+\s*", rest.iloc[0, 0]) else names
    if not given or any(NUMBER.fullmatch(name) for name in given):
        return None
    repeated = [bool((rest.iloc[:, place] == name).any()) for place, name in enumerate(first) if name]
    return None if len(rest) and all(repeated) else names


def _number_rows(values: NDArray[np.float64]) -> bool:
    """Return whether values are distinct integers, as pandas' index is."""
    return len(np.unique(values)) == len(values) and bool((values == np.round(values)).all())


def warn_of_unnamed(dropped: Sequence[object], where: object) -> None:
    """Warn of columns without a name that are left out."""
    if dropped:
        logger.warning(
            "%s: columns without a name that are empty or number the rows are left out: %d", where, len(dropped)
        )


def _warn_of_default(names: list[str] | None, path: Path) -> None:
    """Warn that a first row of 0, 1, 2, ... is taken as names."""
    if names and names[-1].isdecimal():
        logger.warning(
            "%s: the first row, 0 to %s, is taken as the column names that pandas writes; if it is data, add a row of "
            "names above it",
            *(path, names[-1]),
        )
