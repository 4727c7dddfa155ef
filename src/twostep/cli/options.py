"""Types of flags, and checks of flags that exclude or require each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.core.schema import UserError

BESIDE_LOAD_DIR = "not with --load-dir, whose run has its own: leave it out"
TWICE = "not with the key of the same name: give one of them"
WITHOUT_LOAD_DIR = "only for a run that exists: add --load-dir RUN"

Overrides = Annotated[list[str] | None, Parameter(negative=())]
Names = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]
Flag = Annotated[bool, Parameter(negative=())]
Count = Annotated[int | None, Parameter(validator=Number(gte=1))]
SEEDS = Number(gte=0, lt=2**63)
Devices = Literal["auto", "cpu", "cuda"] | None


def require(**flags: Any) -> None:
    """Refuse a command without required flags.

    Raises:
        UserError: naming those whose value is None.
    """
    missing = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is None]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; see --help")


def refuse(reason: str, **flags: Any) -> None:
    """Refuse flags that exclude each other.

    Raises:
        UserError: naming those that are given, with the reason.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value not in (None, False)]
    if given:
        raise UserError(f"{', '.join(given)}: {reason}")


def refuse_keys_of_flags(overrides: Mapping[str, Any]) -> None:
    """Refuse keys of a run that only flags may set.

    Raises:
        UserError: naming the flags.
    """
    for key in ("pretrained_gae", "freeze_pretrained_gae"):
        if key in overrides:
            raise UserError(f"{key}: set by a flag: --load-dir RUN --load-pretrained-gae [--freeze-pretrained-gae]")
