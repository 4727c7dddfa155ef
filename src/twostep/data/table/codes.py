"""Frames to codes by the columns of a table, and codes back to frames; `core.table` says what the codes are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.table import Column, Level, TableSchema
from twostep.data.table.infer import ColumnError, Problems
from twostep.data.table.words import dates, days_of, numbers, without_gap_words

if TYPE_CHECKING:
    import pandas

Array = NDArray[np.float64]

logger = logging.getLogger("twostep")


def to_codes(schema: TableSchema, frame: pandas.DataFrame, problems: Problems, decimal: str | None = None) -> Tensor:
    """Return the rows of a frame as codes `(N, C)`, float32; its columns may have any order, and it may have more.

    Levels that are not among the known ones are counted in a warning. What is wrong is added to the problems.
    """
    columns: list[Array] = []
    unseen: list[str] = []
    for column in schema.modelled:
        try:
            codes = _codes(column, frame[column.name], decimal)
        except ColumnError as error:
            problems.add(column.name, str(error), droppable=False)
            continue
        if column.nominal and not column.pooled and (new := int((codes == len(column.levels)).sum())):
            unseen.append(f"{column.name} ({new})")
        columns.append(codes)
    if unseen:
        logger.warning("levels that the run's data lack, with the number of rows: %s", ", ".join(unseen))
    stacked = np.stack(columns, 1) if columns else np.empty((len(frame), 0))
    return torch.as_tensor(np.ascontiguousarray(stacked, dtype=np.float32))


def _codes(column: Column, series: Any, decimal: str | None) -> Array:
    from pandas.api import types

    series = without_gap_words(series)
    text = str(series.dtype) in ("object", "str", "string") and types.infer_dtype(series, skipna=True) == "string"
    if column.nominal:
        known = {_key(level): code for code, level in enumerate(column.levels)}
        if text and all(isinstance(level, int | float) and not isinstance(level, bool) for level in column.levels):
            series = numbers(series.dropna().astype(str), decimal).reindex(series.index)
        elif text and column.kind == "boolean":
            series = series.str.capitalize()
        distinct = {value: float(known.get(_key(value), len(known))) for value in series.dropna().unique()}
        return series.map(distinct).astype(float).to_numpy(dtype=np.float64, na_value=np.nan)
    if column.kind == "date":
        import pandas

        present = series.notna()
        if text:
            found = dates(series[present].astype(str), column.format) or dates(series[present].astype(str))
            if found is None:
                raise ColumnError("holds words that are no dates")
            series = found[0].reindex(series.index)
        elif not types.is_datetime64_any_dtype(series.dtype):
            series = pandas.to_datetime(series, errors="coerce")
        if (series.notna() != present).any():
            raise ColumnError("holds values that are no dates")
        return days_of(series) - column.offset
    if text:
        present = series.dropna()
        found = numbers(present.astype(str), decimal)
        if found.isna().any():
            raise ColumnError(f"{str(present[found.isna()].iloc[0])[:30]!r} is no number")
        series = found.reindex(series.index)
    try:
        values = series.astype(float).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise ColumnError(f"holds {series.dtype}, where the run's data have numbers") from None
    if np.isinf(values).any():
        raise ColumnError("holds infinite values")
    if column.kind == "integer":
        values = np.floor(values)
    return values - column.offset


def _key(level: Level) -> str:
    """Return a level as text: a number read from one file as 1 and from another as 1.0 is the same."""
    if isinstance(level, bool | np.bool_):
        return str(level)
    if isinstance(level, int | float | np.number) and float(level).is_integer():
        return str(int(level))
    return str(level)


def to_frame(schema: TableSchema, codes: Tensor) -> pandas.DataFrame:
    """Return coded rows `(N, C)` as a frame with the columns of the table: its names, types and order.

    Codes between two levels or integers are rounded down, as dequantised ones lie above theirs.
    """
    import pandas

    rows = codes.detach().cpu().double().numpy()
    at = {column.name: rows[:, place] for place, column in enumerate(schema.modelled)}
    by_name = {column.name: column for column in schema.columns}
    values: dict[str, Any] = {}
    for column in schema.columns:
        if column.omitted == "duplicate" and column.repeats is not None:
            values[column.name] = _values(column, at[column.repeats], by_name[column.repeats])
        elif column.omitted == "empty":
            values[column.name] = pandas.Series([None] * len(rows), dtype=_known_dtype(column))
        elif column.omitted == "constant":
            code = 0.0 if column.nominal else float(column.levels[0])
            values[column.name] = _values(column, np.full(len(rows), code), column)
        else:
            values[column.name] = _values(column, at[column.name], column)
    return pandas.DataFrame(values)


def _values(column: Column, codes: Array, coded: Column) -> Any:
    """Return the values of codes, which are those of the column `coded`."""
    import pandas

    gap = np.isnan(codes)
    if column.nominal:
        last = len(column.levels) - 1
        choices: list[Level] = [*column.levels, column.levels[-1] if column.other is None else column.other]
        place = np.where(gap, 0, np.floor(codes)).astype(int).clip(0, last if column.other is None else last + 1)
        found = np.array(choices, dtype=object)[place]
        found[gap] = None
        if column.dtype == "category":
            kept = list(dict.fromkeys(choices))
            return pandas.Series(pandas.Categorical(found, categories=kept, ordered=column.ordered))
        return pandas.Series(found, dtype=object).astype(_known_dtype(column))
    numbers = codes + (0.0 if column.omitted == "constant" else coded.offset)
    if column.integral or column.dtype.lower().startswith(("int", "uint")):
        numbers = np.floor(numbers) if column.integral else np.round(numbers)
    if column.kind != "date":
        return pandas.Series(numbers).astype(_known_dtype(column))
    step = "D" if column.days else "s"
    days = np.where(gap, 0, numbers) * (1 if column.days else 86_400)
    stamps = np.round(days).astype(np.int64).astype(f"datetime64[{step}]")
    series = pandas.Series(stamps.astype("datetime64[us]")).where(~gap)
    if column.format is None:
        return (
            series.astype(column.dtype)
            if "," not in column.dtype
            else series.dt.tz_localize(
                column.dtype.partition(",")[2].strip(" ]"), nonexistent="shift_forward", ambiguous=True
            )
        )
    iso = "%Y-%m-%d" if column.days else "%Y-%m-%dT%H:%M:%S"
    return series.dt.strftime(iso if column.format == "ISO8601" else column.format)


def _known_dtype(column: Column) -> str:
    return "object" if column.dtype == "category" else column.dtype
