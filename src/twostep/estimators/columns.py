"""Columns brought to one unit, and a number of dimensions for rows too few for an estimate of the intrinsic one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from twostep.diagnosis.diagnosis import WIDE
from twostep.diagnosis.dimension.distinct_rows import LEAST

SHARE = 0.95  # of the variance of standardised columns


def shows_dimension(rows: Tensor) -> bool:
    """Whether rows `(N, *S)` have enough distinct ones among them for an estimate of the intrinsic dimension."""
    return len(np.unique(rows[: 10 * LEAST].flatten(1).numpy(), axis=0)) >= LEAST


def linear_dimension(rows: Tensor) -> int:
    """Return the number of principal components of standardised columns that hold 95 % of the variance.

    It is at least 1, and below the number of columns if there are several.
    """
    table = standardised(rows.flatten(1))
    values = torch.linalg.svdvals(table).square()
    count = 1 + int((values.cumsum(0) < SHARE * values.sum()).sum())
    return max(1, min(count, table.shape[1] - 1))


def standardised(rows: Tensor) -> Tensor:
    """Return columns `(N, D)` with mean 0 and standard deviation 1, constant ones with 0, in float64."""
    table = rows.double()
    std = table.std(0, correction=0)
    return (table - table.mean(0)) / torch.where(std > 0, std, 1.0)


def units_differ(rows: Tensor) -> bool:
    """Whether a column of rows `(N, D)` is so much wider than the median one that it decides all distances."""
    if rows.dim() != 2:
        return False
    stds = rows.double().std(0, correction=0)
    stds = stds[stds > 0]
    return len(stds) > 1 and float(stds.max()) > WIDE * float(stds.median())
