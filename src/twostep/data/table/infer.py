"""What the columns of a frame hold: kind, type, levels, missing values; all problems of a table at once."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twostep.core.schema import nearest
from twostep.core.table import Column, Kind, Level
from twostep.data.table.keys import TableKeys
from twostep.data.table.words import THOUSANDS, dates, days_of, numbers, without_gap_words

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("twostep")

Series = Any  # pandas has no types

MAX_LEVELS = 1000
DISTINCT = 0.9  # share of rows with a word of their own, from which a column of words names its rows
FEW = 50  # rows, too few to decide by
LARGEST = 1e30
EXACT = 2**24  # integers up to which single precision has all
FAR = 1000.0  # standard deviations from 0, from which values are centred
CODED = re.compile(r"[-+]?0\d+")  # digits that are a code: a number would lose its zeros


class ColumnError(ValueError):
    """What is wrong with a column, in words that follow its name."""


@dataclass
class Problems:
    """What is wrong with a table, by column, in one message."""

    found: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    drop: list[str] = field(default_factory=list[str])

    def add(self, name: str, what: str, droppable: bool = True) -> None:
        """Note a problem of a column."""
        self.found.setdefault(what, []).append(name)
        if droppable:
            self.drop.append(name)

    def message(self) -> str:
        """Return all problems in one line, with the key that leaves the columns out."""
        said = [f"{_listed(names)} {what}" for what, names in self.found.items()]
        advice = f"; or leave them out: --drop {','.join(dict.fromkeys(self.drop))}" if self.drop else ""
        return "; ".join(said) + advice


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"column{'s' * (len(names) > 1)} {shown}:"


def infer(frame: pandas.DataFrame, keys: TableKeys, problems: Problems) -> list[Column]:
    """Return what each column of a frame holds; what is wrong is added to the problems.

    Constant columns, those without values and those that repeat an earlier one are marked as omitted.
    """
    kinds = keys.kinds if isinstance(keys.kinds, dict) else {}
    for name in kinds:
        if name not in frame.columns:
            problems.add(name, f"no such column (kinds){nearest(name, map(str, frame.columns))}", droppable=False)
    columns: list[Column] = []
    for name, number in Counter(map(str, frame.columns)).items():
        if number > 1:
            problems.add(name, f"{number} columns have this name: rename them", droppable=False)
            continue
        try:
            columns.append(column_of(name, frame[name], kinds.get(name), keys.decimal))
        except ColumnError as error:
            problems.add(name, str(error))
    return columns


def column_of(name: str, series: Series, kind: Kind | None = None, decimal: str | None = None) -> Column:
    """Return what a series holds, or as what it is to be read.

    Raises:
        ColumnError: if it holds nothing that can be modelled.
    """
    from pandas.api import types

    dtype = str(series.dtype)
    series = without_gap_words(series)
    present = series.dropna()
    gaps = len(present) < len(series)
    about: dict[str, Any] = {"name": name, "dtype": _dtype(series), "gaps": gaps}
    if not len(present):
        return Column(**about, omitted="empty")
    if kind == "categorical":
        return _nominal(about, present, series)
    if isinstance(series.dtype, types.CategoricalDtype):  # pyright: ignore[reportAttributeAccessIssue]
        return _nominal(about, present, series)
    if types.is_bool_dtype(series.dtype):
        return _nominal(about, present.astype(bool), series, "boolean")
    if types.is_datetime64_any_dtype(series.dtype):
        return _dated(about, present)
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return _numeric(about, present, kind)
    held = types.infer_dtype(present, skipna=True)
    if held == "boolean":
        return _nominal(about, present.astype(bool), series, "boolean")
    if held in ("integer", "floating", "mixed-integer-float", "decimal"):
        return _numeric(about, present.astype(float), kind)
    if held in ("date", "datetime", "datetime64"):
        import pandas

        return _dated({**about, "dtype": "datetime64[ns]"}, pandas.to_datetime(present))
    if held != "string":
        raise ColumnError(f"holds {held if dtype == 'object' else dtype}, not numbers, words or dates: convert it")
    return _worded(about, present, series, kind, decimal)


def _dtype(series: Series) -> str:
    name = str(series.dtype)
    return "category" if name == "category" else name


def _worded(about: dict[str, Any], present: Series, series: Series, kind: Kind | None, decimal: str | None) -> Column:
    words = present.astype(str)
    if kind is None and {word.lower() for word in words.unique()} == {"true", "false"}:
        about = {**about, "dtype": "boolean" if about["gaps"] else "bool"}
        return _nominal(about, words.str.lower() == "true", series, "boolean")
    found = numbers(words, decimal)
    share = float(found.notna().mean())
    if decimal is None and words.str.fullmatch(r"[-+]?\d{1,3},\d{3}").any() and words.str.fullmatch(THOUSANDS).all():
        example = next(iter(words))
        raise ColumnError(f"is {example} a decimal comma or a thousand? Set the key decimal to ',' or '.'")
    if kind in ("continuous", "integer") or (share == 1 and not words.str.fullmatch(CODED).any()):
        if share < 1:
            raise ColumnError(f"{_example(words[found.isna()])}, no numbers: correct them")
        return _numeric(_as_text(about), found, kind)
    if share >= 0.5 and words[found.isna()].nunique() <= max(3, 0.01 * len(words)) and share < 1:
        word = words[found.isna()].iloc[0][:30]
        raise ColumnError(
            f"numbers, but for {_example(words[found.isna()])}: correct them, or set the key missing={word!r} if they "
            f"are missing values, or kinds={{{about['name']!r}: 'categorical'}} if these are categories"
        )
    if kind == "date" or (kind is None and share < 1):
        as_dates = dates(words)
        if as_dates is not None:
            values, format = as_dates
            if format == "%m/%d/%Y" and dates(words, "%d/%m/%Y") is not None:
                logger.warning("column %s: %s is read as month/day/year", about["name"], next(iter(words)))
            return _dated({**about, "format": format}, values)
        if kind == "date":
            raise ColumnError("holds words that are no dates, as 2024-12-31: correct them")
    return _nominal(about, words, series)


def _as_text(about: dict[str, Any]) -> dict[str, Any]:
    """Numbers in a text file have no type: integers are int64, or Int64 where some are missing."""
    return {**about, "dtype": "text"}


def _example(words: Series) -> str:
    distinct = list(dict.fromkeys(words))
    return f"{distinct[0][:30]!r}" + (f" and {len(distinct) - 1} other words" if len(distinct) > 1 else "")


def _numeric(about: dict[str, Any], present: Series, kind: Kind | None) -> Column:
    values: NDArray[np.float64] = present.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        raise ColumnError("holds infinite values: replace them, or leave them empty")
    if np.abs(values).max() > LARGEST:
        raise ColumnError(f"values up to {np.abs(values).max():.1g}, beyond single precision: divide them")
    distinct = np.unique(values)
    whole = bool((distinct == np.round(distinct)).all())
    typed = str(about["dtype"])
    if typed == "text":
        about = {**about, "dtype": ("Int64" if about["gaps"] else "int64") if whole else "float64"}
    if len(distinct) == 1:
        if about["gaps"]:
            return Column(**about, kind="categorical", levels=(_plain(distinct[0], whole),))
        return Column(**about, omitted="constant", levels=(_plain(distinct[0], whole),))
    if kind == "boolean" or (kind is None and whole and len(distinct) == 2):
        if len(distinct) > 2:
            raise ColumnError(f"holds {len(distinct)} values: it is not boolean")
        return Column(**about, kind="boolean", levels=tuple(_plain(value, whole) for value in distinct))
    if kind == "integer" and not whole:
        raise ColumnError("holds fractions: it is not integer")
    span = float(distinct[-1] - distinct[0])
    if whole and kind in (None, "integer") and span < EXACT:
        return Column(**about, kind="integer", offset=float(distinct[0]))
    far = abs(float(values.mean())) > FAR * float(values.std())
    return Column(**about, kind="continuous", offset=float(values.mean()) if far else 0.0)


def _dated(about: dict[str, Any], present: Series) -> Column:
    values = days_of(present)
    whole = bool((values == np.round(values)).all())
    if values.min() == values.max():
        if about["gaps"]:
            return Column(**about, kind="date", days=whole, offset=float(values[0]))
        return Column(**about, kind="date", days=whole, omitted="constant", levels=(float(values[0]),))
    return Column(**about, kind="date", days=whole, offset=float(values.min()))


def _nominal(about: dict[str, Any], present: Series, series: Series, kind: Kind = "categorical") -> Column:
    import pandas

    counts = present.value_counts()
    counts = counts[counts > 0]
    ordered = False
    if isinstance(series.dtype, pandas.CategoricalDtype):
        ordered = bool(series.dtype.ordered)
        levels = [_plain(level) for level in series.dtype.categories if level in counts.index]
    else:
        levels = sorted((_plain(level) for level in counts.index), key=lambda level: (isinstance(level, str), level))
    if len(levels) == 1 and not about["gaps"]:
        return Column(**about, kind=kind, omitted="constant", levels=tuple(levels))
    if (
        all(isinstance(level, str) for level in levels)
        and len(present) >= FEW
        and len(levels) > DISTINCT * len(present)
    ):
        shown = f"{str(levels[0])[:20]!r}, {str(levels[1])[:20]!r}, ..."
        raise ColumnError(f"nearly every row has a different word ({shown}), like names or free text: drop it")
    pooled, other = 0, None
    if len(levels) > MAX_LEVELS:
        frequent = {_plain(level) for level in counts.index[: MAX_LEVELS - 1]}
        pooled = len(levels) - len(frequent)
        rarest = _plain(counts.index[MAX_LEVELS - 1])
        other = "other" if isinstance(rarest, str) and "other" not in frequent else rarest
        levels = [level for level in levels if level in frequent]
    return Column(**about, kind=kind, levels=tuple(levels), ordered=ordered, pooled=pooled, other=other)


def _plain(value: Any, whole: bool = False) -> Level:
    """Return a level as Python's own type."""
    if isinstance(value, np.generic):
        value = value.item()
    if whole:
        return int(value)
    return value if isinstance(value, bool | int | float | str) else str(value)
