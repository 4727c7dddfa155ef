"""Tables in files and frames: their rows as codes, with their columns.

A table of numbers alone, without missing values, is read as an array is: its rows are the numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from twostep.core.schema import UserError, nearest
from twostep.core.table import Column, TableSchema
from twostep.data.base import Source
from twostep.data.files import tables
from twostep.data.files.arrays import vectors
from twostep.data.table.codes import to_codes
from twostep.data.table.infer import Problems, infer, numbers
from twostep.data.table.keys import TableKeys
from twostep.data.table.text import is_text_table, read_text

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("twostep")


def frame_of(data: Any) -> pandas.DataFrame:
    """Return a frame of pandas, polars or arrow as one of pandas, with a column for each of its columns.

    The index of a frame of pandas is no column: it names the rows.
    """
    import pandas

    frame = data if isinstance(data, pandas.DataFrame) else data.to_pandas()
    return frame if isinstance(frame.columns, pandas.Index) and not frame.columns.nlevels > 1 else _flat(frame)


def _flat(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame.set_axis(["_".join(map(str, name)) for name in frame.columns], axis=1)


def is_frame(data: Any) -> bool:
    """Return whether an object is a table with named columns, of pandas, polars or arrow."""
    return hasattr(data, "columns") and (hasattr(data, "iloc") or hasattr(data, "to_pandas"))


def read_frame(path: Path, keys: TableKeys) -> pandas.DataFrame:
    """Return the table in a text file, as strings, or in a `.parquet` file.

    Raises:
        UserError: if it can't be read.
    """
    if is_text_table(path):
        return read_text(path, keys)
    import pandas
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    try:
        frame: pandas.DataFrame = parquet.read_table(path).to_pandas()
    except Exception as error:  # arrow's errors have no common base
        raise tables.damaged(path, error) from error
    if not isinstance(frame.index, pandas.RangeIndex):
        name = "an index" if frame.index.name is None else f"the index {frame.index.name}"
        logger.info("%s: %s of pandas names its rows and is not modelled", path, name)
    return frame.reset_index(drop=True)


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its ending."""
    return is_text_table(path) or path.suffix.lower() == ".parquet"


def table_source(path: Path, keys: TableKeys) -> Source:
    """Return the rows of a table in a file, with its columns; errors are those of `source_of` and `read_frame`."""
    found = None if keys.given else _plain_table(path)
    if found is None:
        return source_of(read_frame(path, keys), keys, str(path))
    return Source(vectors(found.rows, str(path)), columns=plain_schema(found.names, found.dtypes))


def own_table(data: Any, where: str) -> Source | None:
    """Return the rows of a frame, or of a file that is a table, with their columns; None: they are an array.

    That is also a table of numbers alone; errors are those of `source_of` and `read_frame`.
    """
    keys = TableKeys.model_validate({})
    if is_frame(data):
        found = source_of(data, keys, where)
    elif isinstance(data, str | Path) and is_table(path := Path(data)) and path.is_file():
        if tables.holds_structs(path) or _plain_table(path) is not None:
            return None
        found = source_of(read_frame(path, keys), keys, str(path))
    else:
        return None
    return None if found.columns is None or found.columns.plain else found


def own_rows(schema: TableSchema, data: Any, where: str) -> Tensor:
    """Return rows of a frame or a file as codes of a table; errors are those of `rows_of` and `read_frame`."""
    if isinstance(data, str | Path):
        return table_rows(schema, Path(data), TableKeys.model_validate({}))
    return rows_of(schema, data, where)


def table_rows(schema: TableSchema, path: Path, keys: TableKeys) -> Tensor:
    """Return rows of a table in a file as codes `(N, C)`; errors are those of `rows_of` and `read_frame`."""
    found = _plain_table(path) if schema.plain and not keys.given else None
    if found is None:
        return rows_of(schema, read_frame(path, keys), str(path), keys.decimal)
    names, theirs = [column.name for column in schema.columns], found.names
    if len(theirs) == len(names) and (_unnamed(theirs) or _unnamed(names)):
        return torch.as_tensor(found.rows.astype(np.float32))
    import pandas

    return rows_of(schema, pandas.DataFrame(found.rows, columns=pandas.Index(theirs)), str(path))


def _unnamed(names: Sequence[str]) -> bool:
    return list(names) == [str(place) for place in range(len(names))]


def _plain_table(path: Path) -> tables.NumberTable | None:
    """Return a `.csv` or `.parquet` file of numbers without missing values, read fast; None: it is none of these."""
    if path.suffix.lower() not in tables.ENDINGS:
        return None
    try:
        found = tables.read_numbers(path)
    except UserError:
        return None
    return None if "bool" in found.dtypes or np.isnan(found.rows).any() else found


def source_of(data: Any, keys: TableKeys, where: str) -> Source:
    """Return the rows of a frame, with their columns; `where` names it in messages.

    Raises:
        UserError: with everything that is wrong, by column.
    """
    frame = frame_of(data)
    problems = Problems()
    chosen, labels = _chosen(frame, keys, problems, where)
    inferred = infer(chosen, keys, problems)
    if not inferred and not problems.found:
        raise UserError(f"{where}: has no columns to model")
    if not len(frame):
        raise UserError(f"{where}: is empty: it has columns, but no rows")
    columns = _without_index(inferred, chosen, where)
    schema = TableSchema(columns=tuple(columns))
    codes = to_codes(schema, chosen, problems, keys.decimal)
    if problems.found:
        raise UserError(f"{where}: {problems.message()}")
    if keys.kinds is None and _is_numbers(schema):
        return _numbers(schema, chosen, labels, where, keys.decimal)
    schema, codes = _without_duplicates(schema, codes)
    if not schema.modelled:
        raise UserError(f"{where}: all rows are equal: there is nothing to learn")
    _report(schema, where)
    low, high = float(codes.nan_to_num(torch.inf).min()), float(codes.nan_to_num(-torch.inf).max())
    return Source(codes, train_labels=labels, low=low, high=high, columns=schema)


def rows_of(schema: TableSchema, data: Any, where: str, decimal: str | None = None) -> Tensor:
    """Return rows of a frame that has the columns of a table, in any order, as codes `(N, C)`.

    Further columns are named and ignored.

    Raises:
        UserError: if columns are missing, or hold something else.
    """
    frame = frame_of(data)
    names = [column.name for column in schema.modelled]
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        has = [name for name in frame.columns if name not in names]
        more = f"; it has {', '.join(has[:8])}" if has else ""
        raise UserError(f"{where}: of the columns of the run it lacks {', '.join(missing)}{more}: add or rename them")
    known = {column.name for column in schema.columns}
    if further := [name for name in frame.columns if name not in known]:
        logger.info("%s: further columns are ignored: %s", where, ", ".join(further))
    if schema.plain:
        schema = TableSchema(columns=tuple(Column(name=name) for name in names))
    problems = Problems()
    codes = to_codes(schema, frame, problems, decimal)
    if problems.found:
        raise UserError(f"{where}: {problems.message()}")
    return codes


def _chosen(
    frame: pandas.DataFrame, keys: TableKeys, problems: Problems, where: str
) -> tuple[pandas.DataFrame, Tensor | None]:
    """Return the columns to model, and the labels."""
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    names = list(dict.fromkeys(frame.columns))
    asked: Mapping[str, Sequence[str]] = {
        "columns": keys.columns or (),
        "drop": keys.drop,
        "target_column": (keys.target_column,) if keys.target_column else (),
        "index_column": (keys.index_column,) if keys.index_column else (),
    }
    for key, wanted in asked.items():
        for name in wanted:
            if name not in names:
                hint = nearest(name, names) or f"; it has {', '.join(names[:12])}{', ...' * (len(names) > 12)}"
                problems.add(name, f"no such column ({key}){hint}", droppable=False)
    apart = {*keys.drop, keys.target_column, keys.index_column}
    kept = [name for name in (keys.columns or names) if name in names and name not in apart]
    labels = None
    if keys.target_column in names:
        codes, _ = frame[keys.target_column].factorize(sort=True)
        labels = torch.as_tensor(np.asarray(codes, dtype=np.int64))
    chosen: Any = frame.loc[:, frame.columns.isin(kept)] if keys.columns is None else frame[kept]
    return chosen, labels


def _without_index(columns: list[Column], frame: pandas.DataFrame, where: str) -> list[Column]:
    """Drop columns without a name that are empty or only number the rows, as pandas writes an index."""
    dropped: list[str] = []
    for place, column in enumerate(columns):
        if not tables.UNNAMED.fullmatch(column.name):
            continue
        values = frame[column.name]
        counts = (
            column.kind == "integer" and not column.gaps and values.is_unique and (place == 0 or "__" in column.name)
        )
        if column.omitted == "empty" or counts:
            dropped.append(column.name)
    if dropped:
        logger.warning(
            "%s: columns without a name that are empty or number the rows are left out: %d", where, len(dropped)
        )
    return [column for column in columns if column.name not in dropped]


def _without_duplicates(schema: TableSchema, codes: Tensor) -> tuple[TableSchema, Tensor]:
    """Mark columns whose codes are those of an earlier one as duplicates."""
    first: dict[bytes, Column] = {}
    columns: list[Column] = []
    kept: list[int] = []
    place = 0
    for column in schema.columns:
        if column.omitted is None:
            key = codes[:, place].numpy().tobytes()
            twin = first.setdefault(key, column)
            if twin is column:
                kept.append(place)
            elif (twin.nominal, twin.pooled, column.pooled) == (column.nominal, 0, 0):
                column = column.model_copy(update={"omitted": "duplicate", "repeats": twin.name})
            else:
                kept.append(place)
            place += 1
        columns.append(column)
    return TableSchema(columns=tuple(columns)), codes[:, kept]


def _report(schema: TableSchema, where: str) -> None:
    """Say which columns are left out, and which levels are pooled."""
    left_out: list[str] = []
    for why, words in (("constant", "constant"), ("empty", "without values"), ("duplicate", "repeating another")):
        names = [
            one.name + (f" ({one.repeats})" if one.repeats else "") for one in schema.columns if one.omitted == why
        ]
        if names:
            left_out.append(f"{words}: {', '.join(names[:10])}" + f" and {len(names) - 10} more" * (len(names) > 10))
    if left_out:
        logger.warning("%s: columns that are not modelled, but filled in samples: %s", where, "; ".join(left_out))
    for column in schema.modelled:
        if column.pooled:
            logger.warning(
                "%s: column %s has %d levels: the %d rarest count as one, %s",
                *(where, column.name, len(column.levels) + column.pooled, column.pooled, column.other),
            )


def _is_numbers(schema: TableSchema) -> bool:
    """Return whether a table holds numbers alone, without missing values."""
    return all(
        one.dtype.lower().startswith(("int", "uint", "float", "double")) and not one.gaps and one.omitted != "empty"
        for one in schema.columns
    )


def _numbers(
    schema: TableSchema, frame: pandas.DataFrame, labels: Tensor | None, where: str, decimal: str | None
) -> Source:
    """Return a table of numbers alone as an array is read."""
    few = [one.name for one in schema.modelled if one.kind in ("boolean", "integer")]
    if few:
        logger.info(
            "%s: columns of integers are modelled as continuous: %s; kinds='auto' of dataset_kwargs gives their values "
            "probabilities",
            *(where, ", ".join(few[:8]) + ", ..." * (len(few) > 8)),
        )
    names = [one.name for one in schema.columns]
    table = frame[names]
    text = [name for name in names if str(table[name].dtype) in ("object", "str", "string")]
    array = table.assign(**{name: numbers(table[name], decimal) for name in text}).to_numpy(dtype=np.float64)
    plain = plain_schema(names, [one.dtype for one in schema.columns])
    return Source(vectors(array, where), train_labels=labels, columns=plain)


def plain_schema(names: Sequence[str], dtypes: Sequence[str]) -> TableSchema:
    """Return the columns of a table of numbers alone."""
    return TableSchema(columns=tuple(Column(name=n, dtype=t) for n, t in zip(names, dtypes, strict=True)), plain=True)
