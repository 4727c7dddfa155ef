"""Registries of models, metrics and datasets by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from twostep.core.schema import UserError, nearest

T = TypeVar("T")
Entry = TypeVar("Entry")

logger = logging.getLogger("twostep")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error of a name that is not known, with the nearest one that is, or else all of them."""
    known = sorted(known)
    every = f"; known: {', '.join(known)}"
    return UserError(f"{name}: no such {kind}{nearest(name, known) or every}")


class Registry(Generic[T]):
    """A table of objects of one kind ("model"), which other packages extend by entry points ("twostep.models")."""

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self.group = kind, f"twostep.{group or f'{kind}s'}"
        self._broken: dict[str, str] = {}
        self._entries: dict[str, T] = {}
        self._loaded_plugins = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers an object under `name`."""

        def add(entry: Entry) -> Entry:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
            self._entries[name] = cast(T, entry)
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """Return the entry of a name; of an unknown one, the error suggests the nearest."""
        self._load_plugins()
        if name in self._entries:
            return self._entries[name]
        if name in self._broken:
            raise UserError(f"{name}: {self._broken[name]}")
        raise unknown(self.kind, name, self._entries)

    def __contains__(self, name: str) -> bool:
        self._load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(self._entries)

    def _load_plugins(self) -> None:
        if self._loaded_plugins:
            return
        self._loaded_plugins = True
        for plugin in entry_points(group=self.group):
            try:
                plugin.load()
            except Exception as error:  # a plug-in may raise anything
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._broken[plugin.name] = f"its plug-in {plugin.value} can't be loaded ({reason})"
                logger.warning("%s %s: %s", self.kind, plugin.name, self._broken[plugin.name])
