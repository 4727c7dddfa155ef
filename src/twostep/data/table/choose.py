"""Which columns of a table are modelled: those that are asked for, without an index, constants and repetitions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twostep.core.schema import nearest
from twostep.core.table import Column, TableSchema
from twostep.data.table.infer import Problems
from twostep.data.table.keys import TableKeys
from twostep.data.table.text import UNNAMED, warn_of_unnamed

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("twostep")


class Labels(NamedTuple):
    """The labels of rows, `(N,)`, -1 where one is missing, and their names; None: there are none."""

    numbers: Tensor | None = None
    names: tuple[str, ...] = ()


def chosen_columns(frame: pandas.DataFrame, keys: TableKeys, problems: Problems) -> tuple[pandas.DataFrame, Labels]:
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
    labels = Labels()
    if keys.target_column in names:
        target = frame[keys.target_column]
        codes, found = target.mask(target == "").factorize(sort=True)  # an empty cell of text is missing too
        labels = Labels(torch.as_tensor(np.asarray(codes, dtype=np.int64)), tuple(map(str, found)))
    chosen: Any = frame.loc[:, frame.columns.isin(kept)] if keys.columns is None else frame[kept]
    return chosen, labels


def without_index(columns: list[Column], frame: pandas.DataFrame, where: str) -> list[Column]:
    """Drop columns without a name that are empty or only number the rows, as pandas writes an index."""
    dropped: list[str] = []
    for place, column in enumerate(columns):
        if not UNNAMED.fullmatch(column.name):
            continue
        values = frame[column.name]
        counts = (
            column.kind == "integer" and not column.gaps and values.is_unique and (place == 0 or "__" in column.name)
        )
        if column.omitted == "empty" or counts:
            dropped.append(column.name)
    warn_of_unnamed(dropped, where)
    return [column for column in columns if column.name not in dropped]


def without_duplicates(schema: TableSchema, codes: Tensor) -> tuple[TableSchema, Tensor]:
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


def report(schema: TableSchema, where: str) -> None:
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
