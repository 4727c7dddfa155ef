"""Files and folders written atomically (temporary file, fsync, rename), and the JSON files of a run."""

from __future__ import annotations

import errno
import json
import math
import os
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


class WriteError(UserError):
    """A file can't be written: the disk is full, or the place is not the user's."""


OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what a rename says to a folder, or to a file, in its way


@contextmanager
def atomic_write(path: Path, *, new: bool = False) -> Generator[Path]:
    """Give a path to write to; the file there becomes `path` at the end, or goes if anything fails before.

    The folders above are made. At every moment, after a power cut too, the old file or the new one is there, whole.

    Args:
        path: of the file.
        new: never replace a file; of several processes that write to one path at once, one does.

    Raises:
        FileExistsError: if `new`, and a file is there.
        WriteError: if the disk is full or can't be written; what was at `path` is then untouched.
    """
    beside = _hidden(path.parent)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            _flush(beside)
            free = _reserved(path) if new else True
            if free:
                beside.replace(path)
                _flush(path.parent)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error})") from None
    if not free:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def require_free(path: Path, force: bool = False) -> None:
    """Check, before work is spent on it, that a file can be written and that none is lost by it.

    Args:
        path: of the file.
        force: whether a file that is there may be replaced.

    Raises:
        UserError: if it is there, or if its folder can't be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder: give the path of a file")
    if path.exists() and not force:
        raise UserError(f"{path}: is there already: give another path by --to, or replace it by --force")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: can't be written: {folder} is no folder that can be written")


def refuse_links(path: Path) -> None:
    """Refuse symbolic links inside of a folder: what is read or written through them may be any file of the reader's.

    Raises:
        UserError: naming the first.
    """
    for folder, folders, files in os.walk(path):
        for name in sorted((*folders, *files)):
            if (link := Path(folder, name)).is_symlink():
                raise UserError(f"{link}: is a symbolic link, which no run holds: put the file itself there")


@contextmanager
def temporary_folder(parent: Path) -> Generator[Path]:
    """Give a hidden folder to fill, which `put` brings to its place; it goes at the end if it is still there.

    Raises:
        OSError: if it can't be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = _hidden(parent)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, places: Iterable[Path]) -> Path:
    """Flush a folder, which must hold something, and rename it to the first of `places` that is free; return that.

    Of several processes that want one place, one gets it.

    Raises:
        FileExistsError: if none is free.
        OSError: if the disk is full or can't be written.
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
    raise FileExistsError(errno.EEXIST, "no free name is left")


def _hidden(parent: Path) -> Path:
    return parent / f".{uuid4().hex}.tmp"


def _reserved(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(values: Any) -> str:
    """Return values as JSON; numbers that are not finite become words (`nan`, `inf`), for JSON has none."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, values: Any, *, new: bool = False) -> None:
    """Write values `to_json` in one atomic step.

    Args:
        path: of the file.
        values: what JSON can hold.
        new: never replace a file.

    Raises:
        FileExistsError: if `new`, and a file is there.
        UserError: if the disk is full or can't be written.
    """
    with atomic_write(path, new=new) as beside:
        beside.write_text(to_json(values))


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
        if size > LARGEST_JSON:
            raise UserError(f"{path}: has {size:,} bytes, and a run's JSON files have {LARGEST_JSON:,} at most")
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


def validated(values: Any, kind: TypeAdapter[T], path: Path) -> T:
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
