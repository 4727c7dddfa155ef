"""Words of cells as numbers, dates and missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = Any  # pandas has no types

GAPS = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null", "None", "<NA>", "#N/A", "NaT", "?"})
DASHES = ("-", "--", ".")  # missing values among numbers
ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "ISO8601")
DATES = (*ISO, "%d.%m.%Y", "%d.%m.%Y %H:%M", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d")
THOUSANDS = r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?"


def without_gap_words(series: Series) -> Series:
    """Replace words that stand for a missing value, such as NA, by one."""
    if str(series.dtype) not in ("object", "str", "string"):
        return series
    stripped = series.map(_stripped)
    present = stripped.where(~stripped.isin(list(GAPS)), None)
    dashes = present.isin(DASHES)
    if dashes.any() and numbers(present[~dashes].dropna().astype(str)).notna().all():
        return present.where(~dashes, None)
    return present


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def numbers(words: Series, decimal: str | None = None) -> Series:
    """Return strings as floats; NaN where they are none.

    Without a decimal sign, commas are taken for it if each string is a number so, and not all are with points.
    """
    import pandas

    def parsed(values: Series) -> Series:
        return pandas.to_numeric(values.where(~values.str.contains("_", regex=False), "x"), errors="coerce")

    if decimal == "." and words.str.fullmatch(THOUSANDS).any():
        return parsed(words.str.replace(",", "", regex=False))
    commas = words.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    if decimal == ",":
        return parsed(commas)
    plain = parsed(words)
    if (
        decimal is None
        and plain.isna().any()
        and words.str.fullmatch(r"[-+]?\d+(\.\d{3})*(,\d+)?([eE][-+]?\d+)?").all()
    ):
        return parsed(commas)
    return plain


def dates(words: Series, format: str | None = None) -> tuple[Series, str] | None:
    """Return strings as dates, and how they are written; None if some are no dates."""
    import pandas

    for one in (format,) if format else DATES:
        if not words.str.contains(r"\d[-./]\d", regex=True).all():
            return None
        found = pandas.to_datetime(words, format=one, errors="coerce", utc=one == "ISO8601")
        if not found.isna().any():
            return (found.dt.tz_localize(None) if one == "ISO8601" else found), one
    return None


def days_of(values: Series) -> NDArray[np.float64]:
    """Return dates as days since 1970-01-01, of the time that they show in their own time zone."""
    local = values.dt.tz_localize(None) if values.dt.tz is not None else values
    microseconds = local.to_numpy().astype("datetime64[us]")
    days = microseconds.astype(np.int64) / 86_400e6
    return np.where(np.isnat(microseconds), np.nan, days)
