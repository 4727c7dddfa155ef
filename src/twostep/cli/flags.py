"""What flags are made of, and the refusal of flags that do not go together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.schema import UserError

BESIDE_LOAD_DIR = "not beside --load-dir: the run in that directory has its own"
TWICE = "not beside the key of that name: give one of them"
WITHOUT_LOAD_DIR = "only for a run that exists: add --load-dir RUN"

Overrides = Annotated[list[str] | None, Parameter(negative=())]
Names = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]
Flag = Annotated[bool, Parameter(negative=())]
Count = Annotated[int | None, Parameter(validator=Number(gte=1))]
SEEDS = Number(gte=0, lt=2**63)


def require(**flags: Any) -> None:
    """Refuse a command without flags that it can't do without.

    Raises:
        UserError: naming those whose value is None.
    """
    missing = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is None]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; see --help")


def refuse(reason: str, **flags: Any) -> None:
    """Refuse flags that do not go with the others.

    Raises:
        UserError: naming those that are given, with the reason.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value not in (None, False)]
    if given:
        raise UserError(f"{', '.join(given)}: {reason}")


def require_new(force: bool, *paths: Path) -> None:
    """Refuse to replace files, and see before any work that they can be written.

    Raises:
        UserError: naming a file that is there, unless `force`, or a folder that can't be written.
    """
    for path in paths:
        if path.exists() and not force:
            raise UserError(f"{path}: is there already: write to another place, or replace it by --force")
        folder = next(above for above in path.absolute().parents if above.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"{path}: can't be written: {folder} is no folder that you can write to")


def refuse_keys_of_flags(overrides: Mapping[str, Any]) -> None:
    """Refuse keys of a run that only flags may set.

    Raises:
        UserError: naming the flags.
    """
    for key in ("pretrained_gae", "freeze_pretrained_gae"):
        if key in overrides:
            raise UserError(f"{key}: set by a flag: --load-dir RUN --load-pretrained-gae [--freeze-pretrained-gae]")
