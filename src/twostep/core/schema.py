"""What all folders share: facts about data, the base class of configs, and errors for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from math import prod
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from twostep.core.table import TableSchema

PositiveInt = Annotated[StrictInt, Field(gt=0)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**64)]
PositiveFloat = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)]


class UserError(ValueError):
    """A mistake that the user can correct: one clear line and exit status 2, no traceback."""


class LostRankError(RuntimeError):
    """Another rank of a distributed run ended before this one: one line and exit status 3."""


def reason(error: Exception) -> str:
    """Return why something failed, in one line of at most 200 characters."""
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean X?"` for choices that end in `_name`, or else the closest one; empty without any."""
    choices = list(choices)
    longer = [choice for choice in choices if choice.endswith(f"_{name}")]
    found = longer or difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def unknown_key(key: str, owner: str, fields: Iterable[str], aliases: Iterable[str] = ()) -> UserError:
    """Return the error of a key that a config does not have, with the nearest one that it has, or else all of them."""
    hint = nearest(key, [*fields, *aliases]) or f"; its keys are: {', '.join(sorted(fields))}"
    return UserError(f"{key}: no such key of {owner}{hint}")


class Frozen(BaseModel):
    """An immutable config, which refuses unknown keys and values of wrong types."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())

    @classmethod
    def aliases(cls) -> dict[str, str]:
        """Return the field of each alias (`validation_alias=AliasChoices(...)`)."""
        return {
            str(alias): name
            for name, field in cls.model_fields.items()
            if isinstance(field.validation_alias, AliasChoices)
            for alias in field.validation_alias.choices
        }

    @classmethod
    def keys(cls) -> list[str]:
        """Return every key that can be set: names and aliases."""
        return [*cls.model_fields, *cls.aliases()]

    @classmethod
    def parse(cls, values: Mapping[str, Any], owner: str) -> Self:
        """Build the config, or raise one `UserError` that names every invalid key; `owner`: of these ("the run")."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError("; ".join(cls._explain(item, owner) for item in error.errors())) from None

    @classmethod
    def _explain(cls, item: Any, owner: str) -> str:
        key = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden" and key in cls.keys():  # noqa: SIM118
            return f"{key}: given under two names (key of {owner}): give one of them"
        if item["type"] == "extra_forbidden":
            *path, name = map(str, item["loc"])
            of: Any = cls
            for part in path:
                of = of.model_fields[part].annotation
            return str(unknown_key(name, ".".join(path) or owner, of.model_fields, of.aliases()))
        if item["type"] == "missing":
            return f"{key}: missing (key of {owner})"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "tuple_type":
            message = f"write a list, like [{item['input']!r}]"
        if item["type"] in ("dict_type", "model_type"):
            message = "write a dictionary, like \"{'name': 1}\", in quotes for the shell"
        if item["type"] in ("string_type", "path_type"):
            message = f"write a string, like \"'{item['input']}'\""
        if not key:
            return f"{owner}: {message}"
        return f"{key} = {item['input']!r}: {message[0].lower()}{message[1:]} (key of {owner})"


class DataSpec(Frozen):
    """Facts about a dataset, passed to whatever is built for it.

    Args:
        name: name of the dataset.
        shape: shape of one data point: `(C, H, W)` for images, `(D,)` for vectors.
        size: number of training rows.
        low, high: smallest and largest possible value.
        discrete: whether values are integers, each representing a bin of width 1 (pixels).
        columns: the columns of a table; None: the data are no table.
        labels: names of the labels, of which rows have the number; empty where there are none, or too many.
        grid: shape `(C, H, W)` of which vectors are the flattened values (spatial embeddings); None: they are of none.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    size: PositiveInt
    low: float
    high: float
    discrete: bool = False
    columns: TableSchema | None = None
    labels: tuple[str, ...] = ()
    grid: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None

    @property
    def table(self) -> TableSchema | None:
        """The columns of a table whose values are coded: words, dates, integers, or numbers with gaps."""
        return None if self.columns is None or self.columns.plain else self.columns

    @property
    def dim(self) -> int:
        """Number of coordinates D of one data point."""
        return prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether data points are images of shape `(C, H, W)`."""
        return len(self.shape) == 3
