"""What commands print: tables that fit a terminal, in several formats, or JSON for a program."""

from __future__ import annotations

import csv
import html
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from twostep.core import console
from twostep.core.files import to_json
from twostep.core.result import Result

Format = Literal["text", "md", "csv", "html", "json"]
PIPE_WIDTH = 100_000  # in a file or a pipe, a row is a line

Row = Sequence[str]


def show(text: str | None, values: Any) -> None:
    """Print a result: its text (None: a line of the log says it), or with `--json` its values."""
    if console.prints_json():
        sys.stdout.write(to_json(plain_values(values)))
    elif text is not None:
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def plain_values(values: Any) -> Any:
    """Return values whose results and paths are plain, for JSON."""
    if isinstance(values, Result):
        return asdict(values)
    if isinstance(values, Mapping):
        return {str(key): plain_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain_values(value) for value in values]
    return str(values) if isinstance(values, Path) else values


class Listing(NamedTuple):
    """A table that a command prints, and a line below it."""

    columns: Row
    rows: Sequence[Row]
    note: str = ""

    def __str__(self) -> str:
        """Return it as text."""
        return "\n".join(
            [*([table(self.columns, self.rows)] if self.rows else []), *([self.note] if self.note else [])]
        )

    def show(self) -> None:
        """Print it: as text, or with `--json` a record for each row."""
        show(str(self), [dict(zip(self.columns, row, strict=True)) for row in self.rows])


def table(columns: Row, rows: Sequence[Row], width: int | None = None) -> str:
    """Return a table as text: of a width, or as wide as the terminal; in a pipe or a file, a row is a line."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*row)
    width = width or (None if sys.stdout.isatty() else PIPE_WIDTH)
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(made)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def as_markdown(columns: Row, rows: Sequence[Row]) -> str:
    """Return a table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def as_csv(columns: Row, rows: Sequence[Row]) -> str:
    """Return a table of comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().rstrip("\n")


def as_html(columns: Row, rows: Sequence[Row]) -> str:
    """Return a table of HTML, with all cells escaped."""

    def line(cells: Row, tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return "\n".join(["<table>", line(columns, "th"), *(line(row, "td") for row in rows), "</table>"])
