"""The tables of `twostep runs` and `twostep compare`, from the files of runs alone."""

from __future__ import annotations

from collections.abc import Sequence

from twostep.cli.output import Format, as_csv, as_html, as_markdown, table
from twostep.core.schema import UserError
from twostep.runs.comparison import Row, about_rows, differing_keys, distinct_names, figure_rows
from twostep.runs.summary import RunSummary

WIDTH = 100  # of a terminal
LABEL, CELL = 34, 20  # most characters of a row's label and of a run's cell


def run_rows(runs: Sequence[RunSummary]) -> tuple[Row, list[Row]]:
    """Return columns and rows of a table of runs."""
    columns = ("run", "data", "models", "state", "minutes", "figures")
    return columns, [
        (
            *(run.name, run.dataset, run.title, run.state, "" if run.minutes is None else f"{run.minutes:.1f}"),
            ", ".join(f"{shortened(name)} {one.value:.4g}" for name, one in run.headline().items()),
        )
        for run in runs
    ]


def shortened(name: str) -> str:
    """Return the name of a headline figure as a table of runs shows it."""
    return {"explained_variance": "explained", "log_likelihood": "log-lik."}.get(name, name.replace("_ood_", " OOD "))


def compared(runs: Sequence[RunSummary], form: Format = "text") -> str:
    """Return the comparison of runs: data, models, keys that differ, figures; a column for each run.

    A row holds figures of one component, unit, kind and measure: a bound is never beside an exact density.

    Raises:
        UserError: if one was neither tested nor evaluated.
    """
    for run in runs:
        if not run.tested:
            raise UserError(f"{run.path}: was not tested: twostep evaluate {run.path}")
    names = distinct_names([run.path for run in runs])
    about = about_rows(runs)
    keys, (figures, kinds) = differing_keys(runs), figure_rows(runs)
    if form in ("md", "csv", "html"):
        make = {"md": as_markdown, "csv": as_csv, "html": as_html}[form]
        named = [(f"{label} ({kinds[mark - 1]})" if mark else label, *cells) for (label, *cells), mark in figures]
        return make(("", *names), [*about, *keys, *named])
    marked = [(f"{label} [{mark}]" if mark else label, *cells) for (label, *cells), mark in figures]
    sections = [part for part in (about, keys, marked) if part]
    legend = [f"[{number}] {kind}" for number, kind in enumerate(kinds, 1)]
    return "\n\n".join([*_blocks(names, sections), "\n".join(legend)])


def _blocks(names: Sequence[str], sections: Sequence[Sequence[Row]]) -> list[str]:
    """Return tables no wider than a terminal, each of some of the runs."""
    lines = [("", *names), *(row for rows in sections for row in rows)]
    label = min(LABEL, max(len(row[0]) for row in lines))
    cell = min(CELL, max(len(text) for row in lines for text in row[1:]))
    at_once = max(1, (WIDTH - label) // (cell + 2))
    blocks: list[str] = []
    for begin in range(1, len(names) + 1, at_once):
        shown = slice(begin, begin + at_once)
        rows: list[Row] = []
        for part in sections:
            rows += [("",) * len(("", *part[0][shown])), *((row[0], *row[shown]) for row in part)]
        blocks.append(table(("", *names[begin - 1 : begin - 1 + at_once]), rows[1:], WIDTH))
    return blocks
