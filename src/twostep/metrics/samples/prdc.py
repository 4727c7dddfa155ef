"""Precision, recall, density and coverage of samples against data, by balls to the k-th nearest neighbour.

With `B(x)` the closed ball around x to its k-th nearest neighbour in x's own set,

    precision = share of samples in the ball of some data point
    recall    = share of data points in the ball of some sample
    density   = mean number of data points' balls that a sample lies in, over k; 1 if both have one law, not bounded
    coverage  = share of data points whose ball holds some sample

The rim belongs to a ball (`<=`): a set compared with itself has precision, recall and coverage 1.

The points of one set share their neighbours, so their hits are not independent, and the binomial interval is too narrow
(it holds the mean of precision in half of the cases for two dimensions). The interval here is that of five disjoint
fifths of both sets, whose means differ by as much as their size lets them, and no narrower than the binomial one.

Sources: Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019, arXiv
1904.06991); Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020, arXiv 2002.09797).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.neighbours import count_within, radii
from twostep.metrics.samples.estimates import (
    GROUPS,
    NORMAL,
    STUDENT,
    Estimate,
    check_features,
    permutation,
    symmetric,
    wilson,
)

K = 5
METHOD = "spread of five disjoint fifths, Student's t; not below the binomial interval"


@dataclass(frozen=True)
class PRDC:
    """The four figures of samples, and the neighbours that they are made with."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    k: int


def prdc(data: Tensor, samples: Tensor, k: int = K, seed: int = 0) -> PRDC:
    """Return precision, recall, density and coverage of samples.

    Args:
        data: features of the data, `(n, D)`.
        samples: features of the samples, `(m, D)`.
        k: neighbours within a ball.
        seed: of the fifths that make the intervals.

    Raises:
        UserError: if the features can't be compared, or have fewer than 5 (k + 2) rows.
    """
    check_features(GROUPS * (k + 2), data=data, samples=samples)
    orders = [permutation(len(x), seed, x.device).tensor_split(GROUPS) for x in (data, samples)]
    parts = [[hits.mean() for hits in _hits(data[a], samples[b], k)] for a, b in zip(*orders, strict=True)]
    margins = (torch.tensor(parts).std(0) * (STUDENT / math.sqrt(GROUPS))).tolist()
    n = (len(data), len(samples))
    precision, recall, density, coverage = _hits(data, samples, k)
    return PRDC(
        _share(precision, margins[0], n),
        _share(recall, margins[1], n),
        _mean(density, margins[2], n),
        _share(coverage, margins[3], n),
        k,
    )


def expected_coverage(n: int, m: int, k: int = K) -> float:
    """Return the mean coverage of n data points by m samples of the same law.

    A point is not covered if its k nearest among all other points are data: `1 - Π (n-1-i) / (n-1-i + m)`, i < k.
    """
    return 1 - math.prod((n - 1 - i) / (n - 1 - i + m) for i in range(k))


def _hits(data: Tensor, samples: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what each figure is the mean of, one number for each sample or data point."""
    of_data, of_samples = count_within(data, radii(data, k), samples, radii(samples, k))
    precision, recall, coverage = (
        (counts > 0).double() for counts in (of_data.of_points, of_samples.of_points, of_data.of_balls)
    )
    return precision, recall, of_data.of_points.double() / k, coverage


def _share(hits: Tensor, margin: float, n: tuple[int, int]) -> Estimate:
    value = float(hits.mean())
    low, high = wilson(value, len(hits))
    return Estimate(value, max(0.0, min(low, value - margin)), min(1.0, max(high, value + margin)), n, METHOD)


def _mean(counts: Tensor, margin: float, n: tuple[int, int]) -> Estimate:
    least = NORMAL * float(counts.std()) / math.sqrt(len(counts))
    return symmetric(float(counts.mean()), max(margin, least), n, METHOD)
