"""Objects of the user's own code, imported by a name that the user has typed and never by one that a file holds.

A run's files name the factory of its encoder, but nothing is imported because of that: whoever opens the run types the
name again, or gives the object.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import signature
from pathlib import Path
from typing import Any

from twostep.core.schema import DataSpec, UserError

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

_typed: set[str] = set()
_given: ContextVar[Any] = ContextVar("given", default=None)


def allow(name: str) -> None:
    """Let a name be imported: the user has typed it."""
    _typed.add(name)


@contextmanager
def given(coders: Any) -> Generator[None]:
    """Use an object, or the factory of a name `module:factory`, wherever a run with an external encoder is opened.

    None changes nothing.
    """
    token = _given.set(_given.get() if coders is None else coders)
    try:
        yield
    finally:
        _given.reset(token)


def made(name: str, spec: DataSpec) -> Any:
    """Return the user's encoder and decoder, by the object or name that is given, or else by a name that was typed.

    Raises:
        UserError: if the name was read from a file only, can't be imported, or its factory fails.
    """
    coders = _given.get()
    if coders is None:
        if not name:
            raise UserError(
                "module: missing (key of external): give module=package.module:factory; for a model that exists, "
                "--gae-module, or in Python gae=OBJECT"
            )
        if name not in _typed:
            raise UserError(
                f"the encoder of this run is external, from {name!r}, and no code is run because a file names it: if "
                f"you trust it, add --gae-module {name}, or in Python gae=OBJECT"
            )
        coders = name
    if isinstance(coders, str):
        return _called(_imported(coders), coders, spec)
    return coders


def _imported(name: str) -> Callable[..., Any]:
    if not NAME.fullmatch(name):
        raise UserError(f"module={name}: write package.module:factory")
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # of the user's code, which may raise anything
        raise UserError(f"module={name}: can't be imported ({_words(error)})") from error
    if not callable(found):
        raise UserError(f"module={name}: is no function or class, but a {type(found).__name__}")
    return found


def _called(factory: Callable[..., Any], name: str, spec: DataSpec) -> Any:
    try:
        return factory(spec) if signature(factory).parameters else factory()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"module={name}: fails ({_words(error)})") from error


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
