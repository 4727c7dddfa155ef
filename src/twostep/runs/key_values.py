"""Strings `key=value`, and keys that both models of a run share; no torch is needed to read them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
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
