"""Rows prepared for a diagnosis: checked, flattened, distinct, subsampled; and the grids their values lie on.

Distinct rows come in sorted order, so a shuffled dataset gives the same results to the last digit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.core.seeds import derive

LEAST = 50  # rows
ROUNDINGS = 8  # units of rounding that count as no variation
FAR = 50.0  # multiple of the median distance to the mean
SINGLE = torch.finfo(torch.float32).eps
COARSE = 0.01  # rounding over the std of a column that is worth a warning
HEAP = 10  # frequency of a value over the typical frequency in its column
UNEVEN = 0.01  # deviation of a gap from a multiple of the grid's step


def distinct_rows(x: Tensor, n: int | None, seed: int) -> tuple[Tensor, Tensor, float, tuple[str, ...]]:
    """Return points, rounding, unit and warnings of `Neighbourhoods` for data `(N, *S)` of any number type.

    Points are the distinct rows, or a random subsample of n of them, scaled to a largest absolute value of 1.
    """
    if n is not None and n < LEAST:
        raise UserError(f"n={n} rows are too few to estimate a dimension: use {LEAST} or more")
    table = as_table(x)
    rows = table[distinct(table)[0]]
    duplicates = len(table) - len(rows)
    if n is not None and n < len(rows):
        generator = torch.Generator().manual_seed(derive(seed, "rows"))
        rows = rows[torch.randperm(len(rows), generator=generator)[:n].sort().values]
    rows = rows.double()
    varying = (rows != rows[0]).any(0)
    if len(rows) < 3 or not bool(varying.any()):
        raise UserError(
            f"{len(x)} rows of which {len(rows)} are distinct have no dimension: give other data, or subtract the mean "
            "of each column if only the last digits differ"
        )
    repeated = int(varying.sum()) - len(distinct(rows[:, varying].T)[0])
    own = torch.finfo(x.dtype if x.is_floating_point() else torch.double).eps
    half_range = (rows.amax(0) / 2 - rows.amin(0) / 2).abs()
    rounding = ROUNDINGS * torch.where(varying, torch.maximum(own * rows.abs().amax(0), SINGLE * half_range), 0.0)
    rows = torch.where(varying, rows, 0.0)
    largest = rows.abs().max()
    rows = rows / largest  # so that no sum overflows
    rows = rows - rows.mean(0)
    size = rows.abs().max()
    rows, unit = rows / size, float(size * largest)
    rounding, distances = rounding / unit, rows.norm(dim=1)
    outliers = int((distances > FAR * distances.median()).sum()) if len(rows) > FAR else 0
    dim = rows.shape[1]
    warnings = (
        (duplicates, f"{duplicates} rows repeat another and were left out"),
        (not bool(varying.all()), f"{int((~varying).sum())} of {dim} columns are constant"),
        (repeated, f"{repeated} of {dim} columns repeat another"),
        (dim == 1, "the data have one coordinate: no dimension but 1 is possible"),
        (
            outliers,
            f"{outliers} rows lie {FAR:.0f} times or more as far from the mean as the median row and influence all "
            "results: remove them if they are errors or stand for missing values",
        ),
        (
            is_coarse(rows, rounding),
            f"values have so few digits that a std below {float(rounding.max()) * unit:.2g} can't be resolved: "
            "subtract the mean of each column before rounding",
        ),
    )
    return rows, rounding, unit, tuple(text for found, text in warnings if found)


def grid_noise(rows: Tensor, seed: int) -> Tensor | None:
    """Return uniform noise of one step for columns on a grid, the same for equal ones, `(n, D)`; None without any."""
    first, group = distinct(rows.T)
    columns = rows[:, first]
    steps = torch.tensor([_step(column) for column in columns.T.numpy()], dtype=rows.dtype)
    if not bool(steps.any()):
        return None
    generator = torch.Generator().manual_seed(derive(seed, "grid"))
    noise = torch.rand(columns.shape, generator=generator, dtype=rows.dtype) - 0.5
    return (steps * noise)[:, group]


def flat_directions(stds: Tensor, gap: float) -> int:
    """Return how many of the ascending stds of principal directions lie below a gap of this factor; 0: no gap."""
    ratios = stds[1:] / stds[:-1]
    return int(ratios.argmax()) + 1 if len(ratios) and float(ratios.max()) >= gap else 0


def heaped_column(points: Tensor) -> int | None:
    """Return the first column, counted from 1, with one value far more frequent than its others; None without any."""
    for number, column in enumerate(points.T, 1):
        counts = column.unique(return_counts=True)[1]
        if len(counts) > 1 and int(counts.max()) >= HEAP * max(1.0, len(column) / len(counts)):
            return number
    return None


def is_coarse(points: Tensor, rounding: Tensor | float) -> bool:
    """Whether rounding exceeds a hundredth of the std of any varying column of points `(n, D)`."""
    stds = points.std(0, correction=0)
    return bool(((stds > 0) & (torch.as_tensor(rounding) > COARSE * stds)).any())


def as_table(x: Tensor) -> Tensor:
    """Return data as rows `(N, D)`, in float64 or integers."""
    if x.is_complex():
        raise UserError(f"values of type {x.dtype} are not real numbers: convert them first")
    if not x.ndim:
        raise UserError("a single number has no rows: give data (N, *S)")
    if len(x) < LEAST:
        raise UserError(f"{len(x)} rows are too few to estimate a dimension: give {LEAST} or more")
    table = x.detach().reshape(len(x), x[0].numel()).cpu()
    if not table.shape[1]:
        raise UserError(f"rows of shape {tuple(x.shape[1:])} have no coordinates: give other data")
    if not bool(table.isfinite().all()):
        bad = int((~table.isfinite()).any(1).sum())
        raise UserError(f"{bad} rows have values that are not finite: remove them, or fill them in")
    return table.double() + 0.0 if table.is_floating_point() else table  # -0 becomes 0, as rows are compared by bytes


def distinct(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return an index for each distinct row, in an order of their values alone, and the number of each row's group."""
    values = np.ascontiguousarray(table.numpy())
    rows = values.view(np.dtype((np.void, values.itemsize * values.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(inverse)


def _step(column: np.ndarray) -> float:
    """Return the smallest difference of values if it divides all others, else 0."""
    gaps = np.diff(np.unique(column))
    if not len(gaps) or 2 * len(gaps) > len(column):
        return 0.0
    multiples = gaps / gaps.min()
    return float(gaps.min()) if np.abs(multiples - multiples.round()).max() < UNEVEN else 0.0
