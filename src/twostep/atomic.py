"""Files that are there whole or not at all: written beside their place, then put there in one step."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from twostep.schema import UserError


@contextmanager
def beside(path: Path) -> Generator[Path]:
    """Give a path to write a file to, which then takes the place of `path`; after an error the old file is untouched.

    The rename is atomic, and what a killed process leaves behind is hidden and ends in `.tmp`.

    Raises:
        UserError: if the disk is full or can't be written.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield place
            place.replace(path)
        finally:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error})") from None
