"""Columns of different units brought to one scale: dimension and distances depend on it, and one unit is no truth.

Columns of a table count as of different units where the widest has five times the standard deviation of the median one
or more; rows of images, and of 8-bit integers, have one unit. Each column is then divided by its standard deviation.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDE = 5.0  # std of the widest column over the median one


def column_stds(x: Tensor) -> Tensor:
    """Return the standard deviation of each column of a table `(N, D)` in float64, `(D,)`."""
    means = x.double().mean(0)
    return (x.double() - means).square().mean(0).sqrt()


def different_units(x: Tensor) -> bool:
    """Whether the columns of data `(N, *S)` seem to be of different units."""
    if x.ndim != 2 or x.dtype in (torch.uint8, torch.int8, torch.bool) or len(x) < 2:
        return False
    stds = column_stds(x)
    stds = stds[stds > 0]
    return len(stds) > 1 and float(stds.max()) >= WIDE * float(stds.median())


def standardized(x: Tensor) -> Tensor:
    """Return a table `(N, D)` in float64 with columns of mean 0 and standard deviation 1, or constant."""
    stds = column_stds(x)
    return (x.double() - x.double().mean(0)) / torch.where(stds > 0, stds, 1.0)
