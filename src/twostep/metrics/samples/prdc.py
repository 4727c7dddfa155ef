"""Precision, recall, density and coverage of samples, by balls that reach to the k-th nearest neighbour.

With `B(x)` the closed ball around x to its k-th nearest neighbour in x's own set,

    precision = share of samples in the ball of some data point
    recall    = share of data points in the ball of some sample
    density   = mean number of balls of data points that contain a sample, over k; unbounded, 1 for equal distributions
    coverage  = share of data points whose ball contains some sample

The boundary belongs to a ball (`<=`): a set compared with itself has precision, recall and coverage 1.

Points of one set share neighbours, so the binomial interval is too narrow. The one here follows from the variance
between five disjoint fifths of both sets, and is at least as wide.

Sources: Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019, arXiv
1904.06991); Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020, arXiv 2002.09797).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from twostep.core.estimate import NORMAL, wilson
from twostep.core.neighbours import count_within, radii
from twostep.metrics.samples.checks import SampleEstimate, permutation

K = 5
GROUPS = 5
STUDENT = 2.776445  # 97.5 % quantile of Student's t with 4 degrees of freedom
METHOD = "variance between five disjoint fifths, Student's t; at least the binomial interval"


class PRDC(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: SampleEstimate
    recall: SampleEstimate
    density: SampleEstimate
    coverage: SampleEstimate


def prdc(data: Tensor, samples: Tensor, k: int = K, seed: int = 0) -> PRDC:
    """Return precision, recall, density and coverage, from features `(n, D)` of data and `(m, D)` of samples.

    The seed is that of the fifths for the intervals, each of which needs k + 2 rows.
    """
    orders = [permutation(len(x), seed, x.device).tensor_split(GROUPS) for x in (data, samples)]
    means = [[hits.mean() for hits in _hits(data[a], samples[b], k)] for a, b in zip(*orders, strict=True)]
    margins = (torch.tensor(means).std(0) * (STUDENT / math.sqrt(GROUPS))).tolist()
    n = (len(data), len(samples))
    found: list[SampleEstimate] = []
    for name, hits, margin in zip(PRDC._fields, _hits(data, samples, k), margins, strict=True):
        value = float(hits.mean())
        if name == "density":
            margin = max(margin, NORMAL * float(hits.std()) / math.sqrt(len(hits)))
            found.append(SampleEstimate.symmetric(value, margin, n, METHOD))
        else:
            low, high = wilson(value, len(hits))
            low, high = max(0.0, min(low, value - margin)), min(1.0, max(high, value + margin))
            found.append(SampleEstimate(value, low, high, n, METHOD))
    return PRDC(*found)


def _hits(data: Tensor, samples: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the terms of the four means, one number for each sample or data point."""
    of_data, of_samples = count_within(data, radii(data, k), samples, radii(samples, k))
    precision, recall, coverage = (
        (counts > 0).double() for counts in (of_data.of_points, of_samples.of_points, of_data.of_balls)
    )
    return precision, recall, of_data.of_points.double() / k, coverage
