"""Keys of a table (`dataset_kwargs`): which columns, what they hold, how its text is written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from twostep.core.schema import Frozen
from twostep.core.table import Kind


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class TableKeys(Frozen):
    """Keys of a table."""

    columns: Names | None = Field(None, description="names of the columns to read, as ['a', 'b']; None: all")
    drop: Names = Field((), description="names of columns to leave out")
    target_column: str | None = Field(None, description="column of labels, which is not modelled")
    index_column: str | None = Field(None, description="column that names the rows, which is not modelled")
    kinds: dict[str, Kind] | Literal["auto"] | None = Field(
        None,
        description="what columns hold, as {'zip': 'categorical'}: continuous, integer, boolean, categorical or date; "
        "auto: found for each, also in a table of numbers alone, whose columns are continuous otherwise",
    )
    missing: Names = Field((), description="words that stand for a missing value, beside NA, n/a, NaN, null, None, ?")
    sep: str | None = Field(None, description="separator of the columns of a text file; None: found")
    decimal: str | None = Field(None, description="decimal sign of a text file; None: found")
    encoding: str | None = Field(None, description="encoding of a text file; None: by its first bytes, or UTF-8")

    @property
    def given(self) -> bool:
        """Whether any key is given."""
        return self != type(self).model_validate({})
