"""JSON files of a run: written in one piece, read with one line for what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from twostep.core.files import whole
from twostep.core.schema import UserError

LARGEST = 256 * 2**20  # bytes

T = TypeVar("T")


def as_json(values: Any) -> str:
    """Return values as JSON; numbers that are not finite become words (`nan`, `inf`), for JSON has none."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, values: Any, *, new: bool = False) -> None:
    """Write values `as_json` in one atomic step.

    Args:
        path: of the file.
        values: what JSON can hold.
        new: never replace a file.

    Raises:
        FileExistsError: if `new`, and a file is there.
        UserError: if the disk is full or can't be written.
    """
    with whole(path, new=new) as beside:
        beside.write_text(as_json(values))


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in cast(Mapping[str, Any], values).items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in cast(Sequence[Any], values)]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: if there is none.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(f"{path}: has {size:,} bytes, and a run's JSON files have {LARGEST:,} at most")
        values: Any = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is no whole JSON file ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object")
    return values  # type: ignore[return-value]


def checked(values: Any, kind: TypeAdapter[T], path: Path) -> T:
    """Return values of a JSON file as the type that they must have; words for numbers (`nan`) become numbers.

    Raises:
        UserError: naming the first value that is of another type, by its keys.
    """
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise UserError(f"{path}: {where} = {first['input']!r:.60}: {message}") from None
