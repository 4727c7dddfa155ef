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

from twostep.core.schema import UserError
from twostep.core.table import Column, TableSchema
from twostep.data.base import Source
from twostep.data.files.arrays import vectors
from twostep.data.files.parquet import damaged, holds_structs, read_parquet
from twostep.data.table.choose import Labels, chosen_columns, report, without_duplicates, without_index
from twostep.data.table.codes import to_codes
from twostep.data.table.infer import Problems, infer
from twostep.data.table.keys import TableKeys
from twostep.data.table.text import UNNAMED, NumberTable, is_text_table, read_numbers, read_text
from twostep.data.table.words import numbers

if TYPE_CHECKING:
    import pandas

NUMBERS = ("int", "uint", "float", "double")  # beginnings of types
DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}  # arrow's names

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

    try:
        frame: pandas.DataFrame = read_parquet(path).to_pandas()
    except Exception as error:  # arrow's errors have no common base
        raise damaged(path, error) from error
    if not isinstance(frame.index, pandas.RangeIndex):
        name = "an index" if frame.index.name is None else f"the index {frame.index.name}"
        logger.info("%s: %s of pandas names its rows and is not modelled", path, name)
    return frame.reset_index(drop=True)


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its ending."""
    return is_text_table(path) or path.suffix.lower() == ".parquet"


def table_source(path: Path, keys: TableKeys, training: bool = True) -> Source:
    """Return the rows of a table in a file, with its columns; errors are those of `source_of` and `read_frame`.

    Rows that are not for `training` are numbers alone, and may all be equal.
    """
    found = None if keys.given else _plain_table(path)
    if found is None:
        return source_of(read_frame(path, keys), keys, str(path), training)
    return Source(vectors(found.rows, str(path), training), columns=plain_schema(found.names, found.dtypes))


def own_table(data: Any, where: str, kwargs: Mapping[str, Any] | None = None) -> Source | None:
    """Return the rows of a frame, or of a file that is a table, with their columns; None: they are an array.

    That is also a table of numbers alone, without keys (`TableKeys`); errors are those of `source_of` and `read_frame`.
    """
    keys = TableKeys.parse(kwargs or {}, where)
    if is_frame(data):
        found = source_of(data, keys, where)
    elif isinstance(data, str | Path) and is_table(path := Path(data)) and path.is_file():
        if not keys.given and (holds_structs(path) or _plain_table(path) is not None):
            return None
        found = source_of(read_frame(path, keys), keys, str(path))
    else:
        return None
    return None if found.columns is None or (found.columns.plain and not keys.given) else found


def own_rows(schema: TableSchema, data: Any, where: str, missing: Sequence[str] = ()) -> Tensor:
    """Return rows of a frame or a file as codes of a table; errors are those of `rows_of` and `read_frame`."""
    keys = TableKeys.parse({"missing": tuple(missing)}, where)
    if isinstance(data, str | Path):
        return table_rows(schema, Path(data), keys)
    return rows_of(schema, _with_gaps(frame_of(data), keys), where)


def _with_gaps(frame: pandas.DataFrame, keys: TableKeys) -> pandas.DataFrame:
    """Return a frame without the words that stand for a missing value."""
    return frame.mask(frame.isin(keys.missing), None) if keys.missing else frame


def table_rows(schema: TableSchema, path: Path, keys: TableKeys) -> Tensor:
    """Return rows of a table in a file as codes `(N, C)`; errors are those of `rows_of` and `read_frame`."""
    found = _plain_table(path) if schema.plain and not keys.given else None
    if found is None:
        return rows_of(schema, _with_gaps(read_frame(path, keys), keys), str(path), keys.decimal)
    names, theirs = [column.name for column in schema.columns], found.names
    if len(theirs) == len(names) and (_unnamed(theirs) or _unnamed(names)):
        return torch.as_tensor(found.rows.astype(np.float32))
    import pandas

    return rows_of(schema, pandas.DataFrame(found.rows, columns=pandas.Index(theirs)), str(path))


def _unnamed(names: Sequence[str]) -> bool:
    return list(names) == [str(place) for place in range(len(names))]


def _plain_table(path: Path) -> NumberTable | None:
    """Return a `.csv` or `.parquet` file of numbers without missing values, read fast; None: it is none of these."""
    if path.suffix.lower() == ".csv":
        return read_numbers(path)
    if path.suffix.lower() != ".parquet":
        return None
    table = read_parquet(path)
    dtypes = [DTYPES.get(str(kind), str(kind)) for kind in table.schema.types]
    if not all(one.startswith(NUMBERS) for one in dtypes) or any(map(UNNAMED.fullmatch, table.column_names)):
        return None
    rows = np.stack([np.asarray(one.to_numpy(), dtype=np.float64) for one in table.columns], 1) if dtypes else None
    return None if rows is None or np.isnan(rows).any() else NumberTable(rows, table.column_names, dtypes)


def source_of(data: Any, keys: TableKeys, where: str, training: bool = True) -> Source:
    """Return the rows of a frame, with their columns; `where` names it in messages.

    Raises:
        UserError: with everything that is wrong, by column.
    """
    frame = _with_gaps(frame_of(data), keys)
    problems = Problems()
    chosen, labels = chosen_columns(frame, keys, problems)
    inferred = infer(chosen, keys, problems)
    if not inferred and not problems.found:
        raise UserError(f"{where}: has no columns to model")
    if not len(frame):
        raise UserError(f"{where}: is empty: it has columns, but no rows")
    columns = without_index(inferred, chosen, where)
    schema = TableSchema(columns=tuple(columns))
    codes = to_codes(schema, chosen, problems, keys.decimal)
    if problems.found:
        raise UserError(f"{where}: {problems.message()}")
    if keys.kinds is None and all(map(_holds_numbers, schema.columns)):
        return _numbers(schema, chosen, labels, where, keys.decimal, training)
    if not training:
        others = [f"{one.name} ({'gaps' if one.gaps else one.kind})" for one in columns if not _holds_numbers(one)]
        raise UserError(f"{where}: not a table of numbers without gaps: {', '.join(others[:8])}")
    schema, codes = without_duplicates(schema, codes)
    if not schema.modelled:
        raise UserError(f"{where}: all rows are equal: there is nothing to learn")
    report(schema, where)
    low, high = float(codes.nan_to_num(torch.inf).min()), float(codes.nan_to_num(-torch.inf).max())
    return Source(codes, train_labels=labels.numbers, label_names=labels.names, low=low, high=high, columns=schema)


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


def _holds_numbers(column: Column) -> bool:
    """Return whether a column holds numbers alone, without missing values."""
    return column.dtype.lower().startswith(NUMBERS) and not column.gaps and column.omitted != "empty"


def _numbers(
    schema: TableSchema, frame: pandas.DataFrame, labels: Labels, where: str, decimal: str | None, training: bool
) -> Source:
    """Return a table of numbers alone as an array is read."""
    few = [one.name for one in schema.modelled if one.kind in ("boolean", "integer")]
    if few:
        logger.info(
            "%s: columns of integers are modelled as continuous: %s; the key kinds='auto' gives their values "
            "probabilities",
            *(where, ", ".join(few[:8]) + ", ..." * (len(few) > 8)),
        )
    names = [one.name for one in schema.columns]
    table = frame[names]
    text = [name for name in names if str(table[name].dtype) in ("object", "str", "string")]
    array = table.assign(**{name: numbers(table[name], decimal) for name in text}).to_numpy(dtype=np.float64)
    plain = plain_schema(names, [one.dtype for one in schema.columns])
    rows = vectors(array, where, training)
    return Source(rows, train_labels=labels.numbers, label_names=labels.names, columns=plain)


def plain_schema(names: Sequence[str], dtypes: Sequence[str]) -> TableSchema:
    """Return the columns of a table of numbers alone."""
    return TableSchema(columns=tuple(Column(name=n, dtype=t) for n, t in zip(names, dtypes, strict=True)), plain=True)
