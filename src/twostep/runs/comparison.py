"""Runs side by side: a row for each fact, key and figure, a cell for each run, from their files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twostep.core.result import Result
from twostep.runs.summary import RunSummary

NOT_COMPARED = ("logdir_root", "data_root", "name")  # keys of places, and of models, which have a row of their own
FEATURES = re.compile(r"\S+ features [0-9a-f]{12}")  # in the note of a figure of samples

Row = tuple[str, ...]


def about_rows(runs: Sequence[RunSummary]) -> list[Row]:
    """Return what was trained on what, and for how many minutes."""
    rows: list[Row] = [("data", *(run.dataset for run in runs)), ("models", *(run.title for run in runs))]
    if any(run.minutes is not None for run in runs):
        rows.append(("minutes", *("" if run.minutes is None else f"{run.minutes:.1f}" for run in runs)))
    return rows


def differing_keys(runs: Sequence[RunSummary]) -> list[Row]:
    """Return a row for each key that runs have in common and differ in: its name, and its value in each run."""
    found = [run.keys for run in runs]
    names = dict.fromkeys(key for keys in found for key in keys if key.split()[-1] not in NOT_COMPARED)
    rows = [(name, *(_shown(keys[name]) if name in keys else "-" for keys in found)) for name in names]
    return [row for row in rows if len({*row[1:]} - {"-"}) > 1]


def figure_rows(runs: Sequence[RunSummary]) -> tuple[list[tuple[Row, int]], list[str]]:
    """Return a row for each figure with the number of its kind, 0 where it has none, and the kinds.

    A kind is unit, kind, measure and features of a figure. What held-out data score in the place of samples has a row
    below. Of several evaluations of one figure the latest counts.
    """
    cells: dict[tuple[str, ...], dict[Path, Result]] = {}
    for run in runs:
        for part, name, one in run.results():
            label = name if part == "model" else f"{part} {name}"
            features = FEATURES.match(one.note)
            about = (one.unit, one.kind, one.measure, features[0] if features else "")
            cells.setdefault((label, *about), {})[run.path] = one
    kinds: list[str] = []
    rows: list[tuple[Row, int]] = []
    for (label, *about), found in sorted(cells.items(), key=lambda item: _place(item[0], list(cells))):
        kind = "; ".join(text for text in about if text)
        if kind and kind not in kinds:
            kinds.append(kind)
        mark = kinds.index(kind) + 1 if kind else 0
        rows.append(((label, *(_cell(found.get(run.path)) for run in runs)), mark))
        references = [one and one.reference for one in (found.get(run.path) for run in runs)]
        if any(value is not None for value in references):
            shown = ("" if value is None else f"{value:.4g}" for value in references)
            rows.append(((f"{label}, held-out data", *shown), 0))
    return rows, kinds


def _place(of: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> int:
    """Return where the first row of a figure's name is, so that those of other kinds follow it."""
    return [name for name, *_ in every].index(of[0])


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of directories, with as many folders before them as they need to differ."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(path) for path in paths]


def _cell(one: Result | None) -> str:
    return "" if one is None else f"{one.shown_in(5)} {one.uncertainty}".strip()


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items()) or "{}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
