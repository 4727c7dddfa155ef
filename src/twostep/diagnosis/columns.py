"""What is odd about the columns of a table, as a sentence each: few values, and units that hide the others."""

from __future__ import annotations

from torch import Tensor

from twostep.data.batches import subsample

LEVELS = 10  # distinct values up to which a column is taken for one of categories
LOOKED_AT = 1000  # rows
WIDE = 10.0  # stds of the usual column
SHOWN = 5


def column_warnings(x: Tensor) -> tuple[str, ...]:
    """Return what is odd about the columns of data `(N, D)`; of pictures `(N, C, H, W)` nothing is."""
    if x.ndim > 2:
        return ()
    table = subsample(x, LOOKED_AT).reshape(-1, x[:1].numel()).double()
    counts = [len(column.unique()) for column in table.T]
    stds = (table / table.abs().max().clamp(min=1e-300)).std(0)
    usual = stds[stds > 0].median() if bool((stds > 0).any()) else stds.max()
    found: list[str] = []
    if few := [place for place, count in enumerate(counts, 1) if 1 < count <= LEVELS]:
        told = f"{_named(few)} {LEVELS} values or fewer"
        found.append(f"{told}, as categories have: no density of such values has a bound, so leave them out")
    if wide := [place for place, std in enumerate(stds, 1) if std > WIDE * usual]:
        told = f"{_named(wide)} more than {WIDE:.0f} times the spread of the usual one, and hide{_s(wide)} the others"
        found.append(f"{told}: leave out what is no measurement, and bring the rest to one unit")
    return tuple(found)


def _named(places: list[int]) -> str:
    shown = ", ".join(map(str, places[:SHOWN])) + (", ..." if len(places) > SHOWN else "")
    return f"column {shown} has" if len(places) == 1 else f"{len(places)} columns ({shown}, from 1 on) have"


def _s(places: list[int]) -> str:
    return "s" if len(places) == 1 else ""
