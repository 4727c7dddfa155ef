"""Tables of results, a row for each row of data, as files: CSV, parquet or JSON by the ending of their name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostep.core.files import atomic_write, to_json
from twostep.core.schema import UserError

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

ENDINGS = (".csv", ".parquet", ".json")


def require_ending(path: Path, others: str = "a ") -> None:
    """Refuse a path that names no kind of table; `others` begins what may be written instead."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: write to {others}{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file")


def write_columns(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write columns `(N,)` by name, as `write_frame` does; errors are its."""
    import pandas  # here because it takes a second

    write_frame(pandas.DataFrame(dict(columns)), path, missing="nan")


def write_frame(frame: pandas.DataFrame, path: Path, missing: str = "", numbers: str | None = None) -> None:
    """Write a frame in one piece, as a list of records in JSON; numbers in as many digits as they have.

    In CSV, missing values are written as `missing`, and numbers in a format such as `%.9g` where `numbers` gives it.

    Raises:
        UserError: for another ending than those of `ENDINGS`, or a path that can't be written.
    """
    require_ending(path)
    with atomic_write(path) as beside:
        if path.suffix.lower() == ".csv":
            frame.to_csv(beside, index=False, na_rep=missing, float_format=numbers)
        elif path.suffix.lower() == ".parquet":
            frame.to_parquet(beside, index=False)
        else:
            beside.write_text(to_json(frame.to_dict("records")), "utf-8")
