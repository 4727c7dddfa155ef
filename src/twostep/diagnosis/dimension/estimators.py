"""Intrinsic dimension from nearest neighbours: maximum likelihood, TwoNN, local principal components.

Where the density is constant over a neighbourhood, with T_1 <= T_2 <= ... the distances of a point to its nearest
others,

    log(T_k / T_j), j < k,  are k - 1 independent exponential variables of rate d, in some order
    T_2 / T_1               is Pareto: P(T_2 / T_1 > t) = t^-d

*Maximum likelihood* is the inverse of the mean of all log(T_k / T_j), over points too, as MacKay and Ghahramani advise.
*TwoNN* is maximum likelihood for the Pareto distribution with the largest tenth censored, so that outliers count for
little: with m of N ratios t kept, (m - 1) / (sum log t + (N - m) log t_m) has mean d. *Local principal components*
counts the eigenvalues of the covariance of k neighbours that are at least a tenth of the largest.

The first two are too low at high d, which `calibration` corrects, the last one above d = 0.27 k. Noise raises estimates
at small k, curvature raises the last one. Intervals are those of a bootstrap over cells of about ten near points,
because points share neighbours; they cover the estimator's mean and ignore its bias.

Sources: Maximum Likelihood Estimation of Intrinsic Dimension (Levina & Bickel, 2004), Comments on it (MacKay &
Ghahramani, 2005); Estimating the intrinsic dimension of datasets by a minimal neighborhood information (Facco et al.,
2017, arXiv 1803.06992); An Algorithm for Finding Intrinsic Dimensionality of Data (Fukunaga & Olsen, 1971).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.estimate import Estimate
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.diagnosis.dimension.neighbourhoods import K, Neighbourhoods

NEIGHBOURS = 20
SCALES = (5, 10, 20, 50, 100)
KEPT = 0.9  # share of the ratios of TwoNN
SMALLEST = 0.1  # eigenvalue that counts, relative to the largest
CENTRES = 1000
RESAMPLES = 400
CELL = 10  # points in a cell of the bootstrap, on average
EQUAL = 1e-9  # mean log-ratio of distances that are equal up to rounding
ENTRIES = 2**22  # of the neighbours' coordinates held at once

Estimator = Callable[[Neighbourhoods], Tensor]


@dataclass(frozen=True)
class DimensionEstimate(Estimate):
    """An estimate of the intrinsic dimension from n points and k neighbours of each."""

    n: int
    k: int
    method: str


def maximum_likelihood(near: Neighbourhoods, k: int = NEIGHBOURS, seed: int = 0) -> DimensionEstimate:
    """Estimate by the distances to k >= 3 neighbours."""
    method = f"maximum likelihood with {k} neighbours"
    return _estimate(near, lambda weights: likelihood(near, k, weights), k, method, seed)


def likelihood(near: Neighbourhoods, k: int = NEIGHBOURS, weights: Tensor | None = None) -> Tensor:
    """Return maximum likelihood estimates for each row of weights of the points `(R, n)`; without weights one."""
    weights = _once(near) if weights is None else weights
    mean = weights @ mean_logs(near, k) / weights.sum(1)
    return torch.where(mean > EQUAL, 1 / mean, near.dim)


def two_nn(near: Neighbourhoods, seed: int = 0) -> DimensionEstimate:
    """Estimate by the ratio of the distances to the second and the first neighbour."""
    return _estimate(near, lambda weights: ratio(near, weights), 2, "ratio of two neighbours (TwoNN)", seed)


def ratio(near: Neighbourhoods, weights: Tensor | None = None) -> Tensor:
    """Return TwoNN's estimates for each row of weights of the points `(R, n)`; without weights one."""
    weights = _once(near) if weights is None else weights
    distances = _distances(near, 2)
    logs, order = (distances[:, 1] / distances[:, 0]).log().sort()
    ordered = weights[:, order]
    below = ordered.cumsum(1) <= KEPT * ordered.sum(1, keepdim=True)
    kept = ordered * below
    count = kept.sum(1)
    spent = kept @ logs + (ordered.sum(1) - count) * logs[below.sum(1) - 1]
    return torch.where(spent > EQUAL * count, (count - 1) / spent, near.dim)


def dimensions_around(near: Neighbourhoods, k: int = NEIGHBOURS) -> Tensor:
    """Return estimates around each point, `(n,)`, of it and its k neighbours: they vary less than at single points."""
    inverse = mean_logs(near, k)
    mean = (inverse + inverse[near.indices[:, :k]].sum(1)) / (k + 1)
    return torch.where(mean > EQUAL, 1 / mean, near.dim)


def mean_logs(near: Neighbourhoods, k: int) -> Tensor:
    """Return the mean of log(T_k / T_j), j < k, of each point, `(n,)`: the inverse of its own estimate."""
    return mean_log_ratios(_distances(near, k))


def mean_log_ratios(distances: Tensor) -> Tensor:
    """Return the mean of log(T_k / T_j), j < k, `(n,)`, of ascending positive distances `(n, k)`."""
    logs = distances.log()
    return (logs[:, -1:] - logs[:, :-1]).mean(1)


def local_pca(near: Neighbourhoods, k: int = K, seed: int = 0) -> DimensionEstimate:
    """Estimate by the principal components of k neighbours, at 1,000 points or fewer."""
    _distances(near, k)
    generator = torch.Generator().manual_seed(derive(seed, "centres"))
    centres = torch.randperm(near.n, generator=generator)[:CENTRES].sort().values
    step = max(1, ENTRIES // (k * near.dim))
    counts = torch.cat([_components(near.points[near.indices[block, :k]]) for block in centres.split(step)])

    def statistic(weights: Tensor) -> Tensor:
        drawn = weights[:, centres]
        return drawn @ counts / drawn.sum(1).clamp(min=1)

    return _estimate(near, statistic, k, f"local principal components of {k} neighbours", seed)


def _distances(near: Neighbourhoods, k: int) -> Tensor:
    if k > near.k:
        raise UserError(f"{near.n} distinct rows with {near.k} neighbours each are too few for k={k}: give more rows")
    return near.distances[:, :k]


def _components(points: Tensor) -> Tensor:
    """Return the number of large eigenvalues of the covariance of each set of points `(B, k, D)`, `(B,)`."""
    centred = points - points.mean(1, keepdim=True)
    wide = points.shape[2] > points.shape[1]
    values = torch.linalg.eigvalsh(centred @ centred.mT if wide else centred.mT @ centred)
    return (values >= SMALLEST * values[:, -1:]).sum(1).to(points)


def _estimate(
    near: Neighbourhoods, statistic: Callable[[Tensor], Tensor], k: int, method: str, seed: int
) -> DimensionEstimate:
    """Return a statistic, `(R, n)` weights of the points to `(R,)`, with its bootstrap interval."""
    value = float(statistic(_once(near)))
    low, high = bootstrap_interval(value, statistic(resamples(near, seed)))
    return DimensionEstimate(value, low, high, near.n, k, method)


def bootstrap_interval(value: float, resampled: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of resampled values `(R,)`, extended to the value itself."""
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=resampled.dtype)).tolist()
    return min(low, value), max(high, value)


def _once(near: Neighbourhoods) -> Tensor:
    """Return the weights of each point taken once, `(1, n)`."""
    return torch.ones(1, near.n, dtype=torch.double)


def resamples(near: Neighbourhoods, seed: int) -> Tensor:
    """Return how often each point is drawn if cells of near points are drawn with replacement, `(RESAMPLES, n)`."""
    generator = torch.Generator().manual_seed(derive(seed, "cells"))
    count = max(CELL, near.n // CELL)
    centres = near.points[torch.randperm(near.n, generator=generator)[:count]]
    cell_of = torch.cat([torch.cdist(block, centres).argmin(1) for block in near.points.split(1024)])
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    times = torch.zeros(RESAMPLES, count, dtype=torch.double)
    return times.scatter_add_(1, drawn, torch.ones_like(times))[:, cell_of]
