"""Rows made fit for diagnosis: checked, flat, told apart, at most as many as asked for; and grids that they lie on.

Distinct rows come in sorted order, so that a shuffled data set gives the same figures to the last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.core.seeds import derive

LEAST = 50  # rows
ROUNDINGS = 8  # units of rounding that are taken for none
FAR = 50.0  # times as far from the mean as the usual row
SINGLE = torch.finfo(torch.float32).eps
LOST = 1e-7  # std of a principal direction that double precision loses
COARSE = 0.01  # rounding beside the spread of a column, from which on it is told
HEAP = 10  # times as frequent as the usual value of a column
WHOLE = 0.01  # how far from a whole number of steps two neighbours of a column may lie


@dataclass(frozen=True)
class Points:
    """Distinct rows.

    Args:
        rows: `(n, D)`, float64, centred and of a size of about 1; no diagnosis of dimension asks for units.
        rounding: the std of each column that rounding alone explains, `(D,)`.
        duplicates: rows that were left out because they repeat another.
        warnings: what is odd about the data, a sentence each.
        unit: length in the data of a length of 1 in the rows.
    """

    rows: Tensor
    rounding: Tensor
    duplicates: int
    warnings: tuple[str, ...]
    unit: float


def distinct_points(x: Tensor, n: int | None = None, seed: int = 0) -> Points:
    """Return the distinct rows of data `(N, *S)` of any number type.

    Args:
        x: the data.
        n: rows to take at most, at random; None: all.
        seed: of the draw.

    Raises:
        UserError: for fewer than 50 rows, n below 50, or values that are not finite real numbers.
    """
    if n is not None and n < LEAST:
        raise UserError(f"n={n} rows are too few to tell a dimension: take {LEAST} or more")
    table = _table(x)
    rows = table[_distinct(table)[0]]
    duplicates = len(table) - len(rows)
    if n is not None and n < len(rows):
        generator = torch.Generator().manual_seed(derive(seed, "rows"))
        rows = rows[torch.randperm(len(rows), generator=generator)[:n].sort().values]
    warnings = _oddities(rows, duplicates)
    rounding, (rows, unit) = _rounding(rows.double(), x.dtype), _centred(rows.double())
    rounding = rounding / unit
    if outlying := _outlying(rows):
        told = f"{outlying} rows lie {FAR:.0f} times as far out as the usual row, or farther, and tell on all figures"
        warnings.append(f"{told}: leave them out if they are mistakes or stand for missing values")
    if is_coarse(rows, rounding):
        told = f"values have so few digits that a std below {float(rounding.max()) * unit:.2g} counts for none"
        warnings.append(f"{told}: subtract the mean of each column before they are rounded")
    return Points(rows, rounding, duplicates, tuple(warnings), unit)


def grid_noise(rows: Tensor, seed: int) -> Tensor | None:
    """Return uniform noise of one step, `(n, D)`, for those columns whose values lie on a grid; None if there are none.

    Columns that are alike get the same noise.
    """
    first, alike = _distinct(rows.T)
    columns = rows[:, first]
    steps = torch.tensor([_step(column) for column in columns.T.numpy()], dtype=rows.dtype)
    if not bool(steps.any()):
        return None
    generator = torch.Generator().manual_seed(derive(seed, "grid"))
    noise = torch.rand(columns.shape, generator=generator, dtype=rows.dtype) - 0.5
    return (steps * noise)[:, alike]


def principal_coordinates(points: Tensor, rounding: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return centred points `(n, D)` by those principal directions in which they vary by more than rounding.

    Shapes: rounding of each column `(D,)`; coordinates `(n, rank)`, and the std of each, ascending, `(rank,)`.

    Raises:
        UserError: if they vary in none.
    """
    variances, directions = torch.linalg.eigh(points.T @ points / (len(points) - 1))
    columns = torch.as_tensor(rounding, dtype=points.dtype).expand(points.shape[1])
    explained = (directions.square().T @ columns.square()).sqrt().clamp(min=LOST)
    kept = variances.clamp(min=0).sqrt() > explained
    if not bool(kept.any()):
        raise UserError(
            "the rows differ by no more than rounding: subtract the mean of each column before it is rounded"
        )
    return points @ directions[:, kept], variances[kept].sqrt()


def flat_directions(stds: Tensor, gap: float) -> int:
    """Return how many of the ascending stds of principal directions lie below a gap of this factor; 0: no gap."""
    ratios = stds[1:] / stds[:-1]
    return int(ratios.argmax()) + 1 if len(ratios) and float(ratios.max()) >= gap else 0


def heaped_column(points: Tensor) -> int | None:
    """Return the first column, from 1 on, in which a value is far more frequent than others; None if there is none.

    Rounding makes values repeat, too, but those of one density about equally often.
    """
    for place, column in enumerate(points.T, 1):
        counts = column.unique(return_counts=True)[1]
        if len(counts) > 1 and int(counts.max()) >= HEAP * max(1.0, len(column) / len(counts)):
            return place
    return None


def is_coarse(points: Tensor, rounding: Tensor | float) -> bool:
    """Whether rounding is more than a hundredth of the spread of a column of points `(n, D)` that varies."""
    stds = points.std(0, correction=0)
    return bool(((stds > 0) & (torch.as_tensor(rounding) > COARSE * stds)).any())


def _table(x: Tensor) -> Tensor:
    """Return data as rows `(N, D)`, in float64 or whole numbers."""
    if x.is_complex():
        raise UserError(f"values of type {x.dtype} are not real numbers: convert them first")
    if not x.ndim:
        raise UserError("a single number has no rows: give data (N, *S)")
    if len(x) < LEAST:
        raise UserError(f"{len(x)} rows are too few to tell a dimension: give {LEAST} or more")
    table = x.detach().reshape(len(x), math.prod(x.shape[1:])).cpu()
    if not table.shape[1]:
        raise UserError(f"rows of shape {tuple(x.shape[1:])} have no coordinates: give other data")
    if not bool(table.isfinite().all()):
        bad = int((~table.isfinite()).any(1).sum())
        raise UserError(f"{bad} rows have values that are not finite: leave them out, or fill them in")
    return table.double() + 0.0 if table.is_floating_point() else table  # -0 becomes 0, as rows are compared by bytes


def _distinct(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return one index for each distinct row, in an order of their values alone, and which of them each row equals."""
    values = np.ascontiguousarray(table.numpy())
    whole = values.view(np.dtype((np.void, values.itemsize * values.shape[1])))[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(inverse)


def _rounding(rows: Tensor, kind: torch.dtype) -> Tensor:
    """Return the std of each column, `(D,)`, that the digits of its type explain, or single precision of its spread."""
    own = torch.finfo(kind if kind.is_floating_point else torch.double).eps
    varying = (rows != rows[:1]).any(0)
    spread = (rows.amax(0) / 2 - rows.amin(0) / 2).abs()
    return ROUNDINGS * torch.where(varying, torch.maximum(own * rows.abs().amax(0), SINGLE * spread), 0.0)


def _centred(rows: Tensor) -> tuple[Tensor, float]:
    """Return rows of mean 0 and largest value 1, and that value before. A constant column becomes 0."""
    varying = (rows != rows[:1]).any(0)
    if not bool(varying.any()):
        return torch.zeros_like(rows), 1.0
    rows = torch.where(varying, rows, 0.0)
    before = rows.abs().max()
    rows = rows / before  # so that no sum overflows
    centred = rows - rows.mean(0)
    size = centred.abs().max()
    return centred / size, float(size * before)


def _outlying(rows: Tensor) -> int:
    """Return how many centred rows are far from the usual one."""
    distances = rows.norm(dim=1)
    return int((distances > FAR * distances.median()).sum()) if len(rows) > FAR else 0


def _step(column: np.ndarray) -> float:
    """Return the smallest difference of values if it divides all others, else 0."""
    gaps = np.diff(np.unique(column))
    if not len(gaps) or 2 * len(gaps) > len(column):
        return 0.0
    multiples = gaps / gaps.min()
    return float(gaps.min()) if np.abs(multiples - multiples.round()).max() < WHOLE else 0.0


def _oddities(rows: Tensor, duplicates: int) -> list[str]:
    found: list[str] = []
    varying = (rows != rows[0]).any(0)
    constant, repeated = int((~varying).sum()), 0
    if bool(varying.any()):
        repeated = int(varying.sum()) - len(_distinct(rows[:, varying].T)[0])
    if duplicates:
        found.append(f"{duplicates} rows repeat another and were left out")
    if constant:
        found.append(f"{constant} of {rows.shape[1]} columns are constant")
    if repeated:
        found.append(f"{repeated} of {rows.shape[1]} columns repeat another")
    if rows.shape[1] == 1:
        found.append("the data have one coordinate: no dimension but 1 is possible")
    return found
