"""Text files to frames of strings: encoding, separator and names are found, unless keys say them."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twostep.core.schema import UserError, reason
from twostep.data.table.keys import TableKeys

if TYPE_CHECKING:
    import pandas

ENDINGS = frozenset({".csv", ".tsv", ".txt", ".data"})
BLANKS = r"\s+"
SEPARATORS = ("\t", ";", "|", ",")
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
LOOKED_AT = 200  # lines
NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*")


def is_text_table(path: Path) -> bool:
    """Return whether a file is a table by its ending, compressed (`.csv.gz`) or not."""
    return ending(path) in ENDINGS


def ending(path: Path) -> str:
    """Return the ending of a file's name, of the uncompressed one."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_text(path: Path, keys: TableKeys) -> pandas.DataFrame:
    """Return the cells of a text file as strings, blanks at their ends removed.

    Raises:
        UserError: if it can't be read, or if its rows have different lengths.
    """
    import pandas  # here because it takes long

    text = _decoded(path, keys.encoding)
    lines = [line for line in io.StringIO(text) if line.strip()]
    skipped = _comments(lines)
    sep = keys.sep or _separator(lines[skipped : skipped + LOOKED_AT])
    try:
        rows = [line.split() if sep == BLANKS else line for line in lines[skipped:]]
        cells = rows if sep == BLANKS else list(csv.reader(lines[skipped:], delimiter=sep, skipinitialspace=True))
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
    if _has_names(table):
        names = [name or f"Unnamed: {place}" for place, name in enumerate(table.iloc[0])]
        table = pandas.DataFrame(table.iloc[1:]).reset_index(drop=True)
        table.columns = names
    else:
        table.columns = [str(place) for place in range(table.shape[1])]
    return table


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


def _has_names(table: pandas.DataFrame) -> bool:
    """Return whether the first row holds names: words that are not values of their columns too."""
    first, rest = table.iloc[0], table.iloc[1:]
    named = [name for name in first if name]
    numbers = [str(place) for place in range(table.shape[1])]
    if list(first[1:] if not first.iloc[0] else first) == numbers[: len(named)] and len(rest):
        return True  # pandas' default names
    if not named or any(NUMBER.fullmatch(name) for name in named):
        return False
    repeated = [bool((rest.iloc[:, place] == name).any()) for place, name in enumerate(first) if name]
    return not (len(rest) and all(repeated))
