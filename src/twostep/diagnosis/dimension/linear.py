"""A number of dimensions for rows too few for an estimate of the intrinsic one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from twostep.diagnosis.dimension.distinct_rows import LEAST
from twostep.diagnosis.units import standardized

SHARE = 0.95  # of the variance of standardised columns


def shows_dimension(rows: Tensor) -> bool:
    """Whether rows `(N, *S)` have enough distinct ones among them for an estimate of the intrinsic dimension."""
    parts = (rows[: 10 * LEAST], rows)  # of most data, the first rows suffice
    return any(len(np.unique(part.flatten(1).numpy(), axis=0)) >= LEAST for part in parts)


def linear_dimension(rows: Tensor) -> int:
    """Return the number of principal components of standardised columns that hold 95 % of the variance.

    It is at least 1, and below the number of columns if there are several.
    """
    table = standardized(rows.flatten(1))
    values = torch.linalg.svdvals(table).square()
    count = 1 + int((values.cumsum(0) < SHARE * values.sum()).sum())
    return max(1, min(count, table.shape[1] - 1))
