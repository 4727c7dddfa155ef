"""The columns of a table: what each holds, how its values are coded as numbers, and which are modelled.

A table of N rows is coded as `(N, C)` floats, a coordinate for each modelled column, NaN where a value is missing:

    continuous             value - offset
    integer                value - offset
    date                   days since 1970-01-01 - offset
    boolean, categorical   index of the level; K, one more than the last, for any level that is not listed

`TableSchema` is a part of the facts about data (`DataSpec.columns`), so a run keeps it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = bool | int | float | str
Kind = Literal["continuous", "integer", "boolean", "categorical", "date"]
Omitted = Literal["constant", "duplicate", "empty"]
KINDS: tuple[Kind, ...] = ("continuous", "integer", "boolean", "categorical", "date")


class Column(BaseModel):
    """A column of a table.

    Args:
        name: its name.
        kind: what it holds.
        dtype: type of its values in a frame, by pandas' name.
        omitted: why it is not modelled; None: it is.
        levels: values of a boolean or categorical column; of a constant one, its value.
        pooled: number of rarer levels that count as one, written as `other`.
        other: the value that stands for pooled levels in samples.
        ordered: whether the levels have an order.
        gaps: whether values are missing.
        offset: number subtracted from values, so that single precision suffices.
        format: how dates are written, where they are text.
        days: whether dates are whole days.
        repeats: name of the column that a duplicate one repeats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Kind = "continuous"
    dtype: str = "float64"
    omitted: Omitted | None = None
    levels: tuple[Level, ...] = ()
    pooled: int = 0
    other: Level | None = None
    ordered: bool = False
    gaps: bool = False
    offset: float = 0.0
    format: str | None = None
    days: bool = True
    repeats: str | None = None

    @property
    def nominal(self) -> bool:
        """Whether its values are levels."""
        return self.kind in ("boolean", "categorical")

    @property
    def integral(self) -> bool:
        """Whether its codes are integers with an order: integers, or dates without a time."""
        return self.kind == "integer" or (self.kind == "date" and self.days)


class TableSchema(BaseModel):
    """The columns of a table, in its order.

    `plain` is a table of numbers alone, whose rows are an array: its columns have names and types, no coding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[Column, ...]
    plain: bool = False

    @cached_property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that are modelled, in order: those of the codes."""
        return tuple(column for column in self.columns if column.omitted is None)

    @property
    def has_levels(self) -> bool:
        """Whether a row has a probability rather than a density in some coordinate."""
        return any(one.nominal or one.integral or one.gaps for one in self.modelled)

    @property
    def measure(self) -> str:
        """The reference measure of a density of rows, in words."""
        numbers = [one for one in self.modelled if not (one.nominal or one.integral)]
        dense, counted = len(numbers), len(self.modelled) - len(numbers)
        parts = [f"Lebesgue on {_columns(dense)}"] * (dense > 0) + [f"counting on {_columns(counted)}"] * (counted > 0)
        gaps = sum(one.gaps for one in numbers)
        return f"mixed: {', '.join(parts)}" + (f", an atom for missing values in {gaps}" if gaps else "")

    def summary(self) -> str:
        """Return in words what the columns are."""
        kinds = [f"{n} {kind}" for kind in KINDS if (n := sum(one.kind == kind for one in self.modelled))]
        gaps = sum(one.gaps for one in self.modelled)
        return ", ".join(kinds) + (f"; {gaps} with missing values" if gaps else "")


def _columns(number: int) -> str:
    return f"{number} column" + "s" * (number != 1)
