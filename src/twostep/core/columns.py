"""Tables of results, a row for each row of data, as files: CSV, parquet or JSON by the ending of their name."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostep.core.files import atomic_write, write_json
from twostep.core.schema import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDINGS = (".csv", ".parquet", ".json")


def require_ending(path: Path) -> None:
    """Refuse a path that names no kind of table."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: write to a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file")


def write_columns(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write columns `(N,)` by name in one piece, as a list of records in JSON; numbers in as many digits as they have.

    Raises:
        UserError: for another ending than those of `ENDINGS`, or a path that can't be written.
    """
    require_ending(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        import pyarrow as pa  # imported here because it takes a second
        from pyarrow import parquet

        with atomic_write(path) as beside:
            parquet.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), beside)
        return
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    if ending == ".json":
        write_json(path, [dict(zip(columns, row, strict=True)) for row in rows])
        return
    with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
