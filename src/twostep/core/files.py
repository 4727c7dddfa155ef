"""Files and folders written atomically (temporary file, fsync, rename), and the JSON files of a run."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from twostep.core.schema import UserError

LARGEST_JSON = 256 * 2**20  # bytes


T = TypeVar("T")

FOLDERS = re.compile(r"(?<![\w.~/:])(?:~|[A-Za-z]:)?/(?:[^\s/'\"<>,;()\[\]{}]+/)+(?=[^\s/'\"<>,;()\[\]{}])")


class WriteError(UserError):
    """A file can't be written: the disk is full, or permission is missing."""


OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # errors of a rename to an existing path


@contextmanager
def atomic_write(path: Path, *, new: bool = False) -> Generator[Path]:
    """Give a temporary path to write to, whose file is renamed to `path` at the end, or removed after an error.

    Parent folders are created. At any moment, even after a power failure, `path` has the complete old or new file. With
    `new` no file is replaced; if several processes write to one path, one of them succeeds.

    Raises:
        FileExistsError: if `new` and the file exists.
        WriteError: if the file can't be written; an existing one is then unchanged.
    """
    temporary = _hidden(path.parent)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            if new:
                path.touch(exist_ok=False)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if new and isinstance(error, FileExistsError) and Path(error.filename) == path:
            raise
        raise WriteError(f"{path}: can't be written ({error.strerror or error})") from None


def require_free(path: Path, force: bool = False, flag: str = "--to") -> None:
    """Check, before any work, that the file of a flag can be written without replacing another, unless `force`."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder: give the path of a file")
    if path.exists() and not force:
        raise UserError(f"{path}: exists: give another path by {flag}, or replace it by --force")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: can't be written: {folder} is not a writable folder")


def require_free_folder(path: Path) -> None:
    """Check, before any work, that a folder can be made at a path where nothing is."""
    if path.exists():
        raise UserError(f"{path}: exists: give another path by --to")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: can't be made: {folder} is not a writable folder")


def refuse_links(path: Path) -> None:
    """Refuse symbolic links within a folder: they could refer to any file of the user."""
    for folder, folders, files in os.walk(path):
        for name in sorted((*folders, *files)):
            if (link := Path(folder, name)).is_symlink():
                raise UserError(f"{link}: is a symbolic link, which runs do not contain: replace it by the file")


@contextmanager
def temporary_folder(parent: Path) -> Generator[Path]:
    """Give a hidden folder to fill, for `move_into_place`; it goes at the end if it is still there."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = _hidden(parent)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, places: Iterable[Path]) -> Path:
    """Flush a folder, which must not be empty, rename it to the first free path of `places`, and return that.

    If several processes want one path, one of them gets it.

    Raises:
        FileExistsError: if none is free.
        OSError: if it can't be written.
    """
    for path in (*folder.rglob("*"), folder):
        _flush(path)
    for place in places:
        try:
            folder.rename(place)
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
        else:
            _flush(place.parent)
            return place
    raise FileExistsError(errno.EEXIST, "no free name")


def _hidden(parent: Path) -> Path:
    return parent / f".{uuid4().hex}.tmp"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(values: Any) -> str:
    """Return values as JSON; numbers that are not finite become strings (`"NaN"`, `"Infinity"`)."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in cast(Mapping[str, Any], values).items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in cast(Sequence[Any], values)]
    return json.dumps(values) if isinstance(values, float) and not math.isfinite(values) else values


def write_json(path: Path, values: Any, *, new: bool = False) -> None:
    """Write values as JSON, atomically; errors and arguments are those of `to_json` and `atomic_write`."""
    with atomic_write(path, new=new) as temporary:
        temporary.write_text(to_json(values), "utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing or damaged file is a `UserError`."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(f"{path}: has more bytes than the JSON files of runs ({LARGEST_JSON:,})")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    try:
        values: Any = json.loads(text)
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged or incomplete JSON file ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object")
    return values  # type: ignore[return-value]


def validated(values: Any, kind: TypeAdapter[T], path: Path) -> T:
    """Return values of a JSON file, converted to their type; strings of numbers (`"NaN"`) become numbers.

    Raises:
        UserError: naming the first value of a wrong type, by its keys.
    """
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise UserError(f"{path}: {where} = {first['input']!r:.60}: {message}") from None


def without_folders(value: Any) -> Any:
    """Return texts, and those in lists and mappings, with absolute paths reduced to names: they may be sent away."""
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_folders(one) for key, one in cast(Mapping[str, Any], value).items()}
    return [without_folders(one) for one in cast(Sequence[Any], value)] if isinstance(value, list | tuple) else value
