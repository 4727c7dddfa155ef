"""Whether samples are copies of training data: their distances to it, compared with those of held-out data.

With `d(x)` the distance to the nearest training point, s a sample and h a held-out point,

    farther = P(d(s) > d(h)) + ½ P(d(s) = d(h))    ½ for samples of the data distribution, less for copies
    C_T     = (farther - ½) / its standard deviation if both distributions are equal: the z of Mann and Whitney; below
              -2 it indicates copies, above 2 samples off the data. It grows with √n, so it does not count copies
    copies  = share of samples no farther away than the nearest 1 % of the held-out points; 0.01 without copies

A second figure compares both distances of a sample, `nearer_to_training`: it sees copies that held-out data do not show
because they lie as close to the training data themselves.

C_T here uses a single cell, the whole space. The intervals are those of new samples and new held-out points, with the
same training data.

Source: A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020, arXiv 2004.05675). The
interval of `farther` is DeLong's, as in `twostep.metrics.ood.detection`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from twostep.core.estimate import NORMAL, wilson
from twostep.core.neighbours import nearest
from twostep.metrics.ood.detection import share_below
from twostep.metrics.samples.checks import SampleEstimate, check_features

QUANTILE = 0.01
RESAMPLES = 400


class Memorisation(NamedTuple):
    """How close samples are to the training data."""

    farther: SampleEstimate
    c_t: SampleEstimate
    copies: SampleEstimate


def memorisation(train: Iterable[Tensor], held_out: Tensor, samples: Tensor, seed: int = 0) -> Memorisation:
    """Compare the distances of samples and of held-out data to the training data; the seed is that of a bootstrap.

    The features of all training data come in blocks `(b, D)`, one in memory at a time: copies of rows that are left out
    would not be found. Those of held-out data of the same distribution are `(m, D)`, of samples `(n, D)`.
    """
    rows = held_out if samples is held_out else torch.cat([held_out, samples])
    least = torch.full((len(rows),), math.inf, dtype=torch.float64, device=rows.device)
    seen = 0
    for block in train:
        check_features(1 if seen else 2, train=block, held_out=held_out, samples=samples)
        least = torch.minimum(least, nearest(rows, block))
        seen += len(block)
    return of_distances(least[: len(held_out)], least[-len(samples) :], seed, f"distances to {seen:,} training rows; ")


def nearer_to_training(train: Tensor, held_out: Tensor, samples: Tensor) -> SampleEstimate:
    """Return the share of samples nearer to a training point than to any of as many held-out points; ½ without copies.

    Shapes: `train: (l, D)`, `held_out: (m, D)`, `samples: (n, D)`. Held-out points in the place of samples are compared
    with the other ones. Equal distances count half.
    """
    check_features(2, train=train, held_out=held_out, samples=samples)
    size = min(len(train), len(held_out))
    train, others = train[:size], held_out[:size]
    rows = others if samples is held_out else samples
    to_train, to_others = nearest(rows, train), nearest(rows, others)
    share = float(((to_train < to_others).double() + (to_train == to_others).double() / 2).mean())
    method = f"binomial; nearest of {size:,} training and as many held-out rows"
    return SampleEstimate(share, *wilson(share, len(rows)), (size, len(rows)), method)


def of_distances(held_out: Tensor, samples: Tensor, seed: int = 0, about: str = "") -> Memorisation:
    """Compare distances to the training data, `(m,)` and `(n,)`, or their squares; `about` begins the method."""
    from scipy.stats import rankdata, tiecorrect  # here because it takes seconds

    m, n = len(held_out), len(samples)
    ours, theirs = samples.cpu().numpy(), held_out.cpu().numpy()
    above, below = share_below(theirs, ours), share_below(ours, theirs)
    farther = float(above.mean())
    margin = NORMAL * math.sqrt(float(above.var(ddof=1)) / n + float(below.var(ddof=1)) / m)
    # of `farther` if all orders of the pooled distances, with ties, are equally likely
    ties = tiecorrect(rankdata(np.concatenate([theirs, ours])))
    deviation = math.sqrt(max(0.0, (m + n + 1) * ties) / (12 * m * n))
    low, value, high = ((farther + end - 0.5) / deviation if deviation else 0.0 for end in (-margin, 0, margin))
    method = f"{about}DeLong's variance"
    return Memorisation(
        SampleEstimate(farther, max(0.0, farther - margin), min(1.0, farther + margin), (m, n), method),
        SampleEstimate(value, low, high, (m, n), method),
        _copies(held_out, samples, seed, about),
    )


def _copies(held_out: Tensor, samples: Tensor, seed: int, about: str) -> SampleEstimate:
    """Return the share of copies; both sets are resampled, because the threshold is random as well."""
    share = _share_within(held_out, samples)
    generator = torch.Generator().manual_seed(seed)

    def resample(values: Tensor) -> Tensor:
        return values[torch.randint(len(values), (len(values),), generator=generator).to(values.device)]

    shares = torch.tensor([_share_within(resample(held_out), resample(samples)) for _ in range(RESAMPLES)])
    ends = (*shares.quantile(torch.tensor([0.025, 0.975])).tolist(), *wilson(share, len(samples)))
    method = f"{about}{RESAMPLES} bootstrap resamples; at least the binomial interval"
    return SampleEstimate(share, min(ends), max(ends), (len(held_out), len(samples)), method)


def _share_within(held_out: Tensor, samples: Tensor) -> float:
    limit = held_out.kthvalue(max(1, round(QUANTILE * len(held_out)))).values
    return float((samples <= limit).double().mean())
