"""Errors of the columns of sampled rows, by the definitions of SDMetrics' quality report, as 1 - similarity.

    column shape   numbers: the statistic of Kolmogorov and Smirnov; levels: total variation ½ Σ |p - q|, with a missing
                   value as one
    pair trend     two columns of numbers: ½ |ρ - ρ'| of Pearson's correlations; others: total variation of the joint
                   table, numbers in ten bins of the data's range, a missing value as one more

Source: https://docs.sdv.dev/sdmetrics/reports/quality-report/whats-included
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.table import TableSchema
from twostep.metrics.samples.checks import SampleEstimate

BINS = 10
GROUPS = 10  # of the jackknife
MOST_PAIRS = 2000

Array = NDArray[Any]


class ColumnErrors(NamedTuple):
    """Mean errors over columns and over pairs of columns, each from 0 to 1."""

    column_shape_error: SampleEstimate
    pair_trend_error: SampleEstimate


def column_errors(columns: TableSchema, data: Tensor, samples: Tensor, seed: int = 0) -> ColumnErrors:
    """Compare coded rows of data `(n, C)` with samples `(m, C)`; intervals are those of a jackknife over ten groups.

    Of more than 2,000 pairs of columns as many are drawn by the seed.
    """
    real, drawn = (rows.detach().cpu().double().numpy() for rows in (data, samples))
    pairs = list(combinations(range(real.shape[1]), 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [pairs[at] for at in np.random.default_rng(seed).choice(len(pairs), MOST_PAIRS, replace=False)]
    places = [np.arange(len(rows)) % GROUPS for rows in (real, drawn)]
    whole = _means(columns, real, drawn, pairs)
    left_out = np.array(
        [_means(columns, real[places[0] != group], drawn[places[1] != group], pairs) for group in range(GROUPS)]
    )
    errors = np.sqrt((GROUPS - 1) * left_out.var(0))
    n = (len(real), len(drawn))
    estimates: list[SampleEstimate] = []
    for value, error, of in zip(whole, errors, (f"{real.shape[1]} columns", f"{len(pairs)} pairs"), strict=True):
        low, high = max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)
        estimates.append(SampleEstimate(float(value), float(low), float(high), n, f"mean over {of}, jackknife"))
    return ColumnErrors(*estimates)


def _means(columns: TableSchema, real: Array, drawn: Array, pairs: Sequence[tuple[int, int]]) -> tuple[float, float]:
    shapes, trends = shape_errors(columns, real, drawn), trend_errors(columns, real, drawn, pairs)
    return float(np.mean(list(shapes.values()))), float(np.mean(trends)) if len(trends) else 0.0


def shape_errors(columns: TableSchema, real: Array, drawn: Array) -> dict[str, float]:
    """Return the error of each column's distribution, by name, for coded rows `(n, C)` and `(m, C)`."""
    found: dict[str, float] = {}
    for place, column in enumerate(columns.modelled):
        one, other = real[:, place], drawn[:, place]
        if column.nominal:
            found[column.name] = _total_variation(_bins(one, None), _bins(other, None))
            continue
        found[column.name] = kolmogorov_smirnov(one, other)
    return found


def kolmogorov_smirnov(one: Array, other: Array) -> float:
    """Return the largest difference of two distribution functions of finite values; 1 if either has none."""
    from scipy.stats import ks_2samp  # here because it takes seconds

    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    test: Any = ks_2samp(one, other, method="asymp") if len(one) and len(other) else None
    return 1.0 if test is None else float(test.statistic)


def trend_errors(columns: TableSchema, real: Array, drawn: Array, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the error of the association of each pair of columns."""
    numeric = [not column.nominal for column in columns.modelled]
    binned = [
        [_bins(rows[:, place], real[:, place] if numeric[place] else None) for place in range(rows.shape[1])]
        for rows in (real, drawn)
    ]
    found: list[float] = []
    for i, j in pairs:
        if numeric[i] and numeric[j]:
            found.append(abs(_correlation(real[:, i], real[:, j]) - _correlation(drawn[:, i], drawn[:, j])) / 2)
            continue
        width = 1 + max(int(rows[j].max(initial=0)) for rows in binned)
        found.append(_total_variation(*(rows[i] * width + rows[j] for rows in binned)))
    return found


def _correlation(x: Array, y: Array) -> float:
    there = ~(np.isnan(x) | np.isnan(y))
    x, y = x[there], y[there]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    value = float(np.corrcoef(x, y)[0, 1])
    return value if math.isfinite(value) else 0.0


def _bins(values: Array, of: Array | None) -> NDArray[np.int64]:
    """Return numbers by their bin in the range of `of`, or levels as they are; a missing value is 0."""
    missing = np.isnan(values)
    if of is None:
        return np.where(missing, 0, np.nan_to_num(values) + 1).astype(np.int64)
    there = of[~np.isnan(of)]
    inner = np.linspace(there.min(), there.max(), BINS + 1)[1:-1] if len(there) else np.zeros(0)
    return np.where(missing, 0, 1 + np.searchsorted(inner, np.nan_to_num(values)))


def _total_variation(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    width = 1 + max(int(one.max(initial=0)), int(other.max(initial=0)))
    p, q = (np.bincount(rows, minlength=width) / max(1, len(rows)) for rows in (one, other))
    return 0.5 * float(np.abs(p - q).sum())
