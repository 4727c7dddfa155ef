"""Files written in one piece: beside their place first, then renamed into it, a step that nothing can halve."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from twostep.schema import UserError


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """Give a path to write to; the file there becomes `path` at the end, or goes if anything fails before.

    The folders above are made.

    Raises:
        UserError: if the disk is full or can't be written; what was at `path` is then untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error})") from None
