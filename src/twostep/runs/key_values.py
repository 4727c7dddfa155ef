"""Strings `key=value`, and keys that both models of a run share; no torch is needed to read them."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from twostep.core.factories import allow
from twostep.core.schema import UserError

SHARED_KEYS = (
    "max_epochs",
    "max_steps",
    "early_stopping_metric",
    "max_bad_valid_epochs",
    "max_grad_norm",
    "valid_metrics",
)


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """Return `{key: value}` of strings `key=value`; a value that is no Python literal is a string.

    Raises:
        UserError: for an item without a key or without `=`.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{item}: write key=value (quote it if the value has blanks)")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = text.strip()
        overrides[key.strip()] = value
        if key.strip() == "module":
            allow(str(value))
    return overrides


def share(run: Mapping[str, Any], **models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return overrides in which `SHARED_KEYS` given for the run are those of each model that has none of its own."""
    shared = {key: value for key, value in run.items() if key in SHARED_KEYS}
    own = {key: value for key, value in run.items() if key not in shared}
    return {"run": own, **{name: {**shared, **keys} for name, keys in models.items()}}


def refuse_fixed(
    given: Iterable[str], keys: Collection[str], adjustable: Collection[str], owner: str, part: str = "model"
) -> None:
    """Refuse keys that can't change in a run that exists, of the run or of the model that is its `part`.

    Raises:
        UserError: naming each of them, and the flag that raises epochs.
    """
    fixed = [key for key in given if key in keys and key not in adjustable]
    if "max_epochs" in fixed:
        flag = "--max-epochs-loaded" + ("" if part == "model" else f"-{part}")
        raise UserError(f"max_epochs: can't be changed in a run that exists (key of {owner}): use {flag} N")
    if fixed:
        raise UserError(
            f"{', '.join(fixed)}: can't be changed in a run that exists (key of {owner}; these can: "
            f"{', '.join(sorted(adjustable))}); start a new run instead"
        )
