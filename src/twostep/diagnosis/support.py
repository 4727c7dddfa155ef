"""Whether samples lie where data lie: their distance to the data against that of held-out data.

A sample is off the support if it is farther from the training data than 99 in 100 held-out rows are. A model of the
data's law has 1 % of them; that 5 % are found of 200 samples or more has then a probability below 1e-4.

This is what the likelihood of a density on a manifold can't tell: a model of the wrong shape has many samples off it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twostep.diagnosis.findings import Finding
from twostep.neighbours import nearest

QUANTILE = 0.99
ALLOWED = 0.05


def off_support(train: Tensor, held_out: Tensor, samples: Tensor) -> tuple[Finding, Tensor]:
    """Compare distances to the training rows.

    Args:
        train: `(N, *S)`.
        held_out: `(m, *S)`.
        samples: `(n, *S)`.

    Returns:
        the finding, and which samples are off, `(n,)`.
    """
    rows = train.double().flatten(1)
    own, theirs = (nearest(other.double().flatten(1), rows).sqrt() for other in (held_out, samples))
    limit = own.quantile(QUANTILE)
    off = theirs > limit
    share = float(off.double().mean())
    told = (
        f"{share:.1%} of {len(samples):,} samples are farther from the training rows than 99 % of held-out rows "
        f"(median distance {float(theirs.median()):.3g}, held-out {float(own.median()):.3g})"
    )
    numbers = {
        "share": share,
        "limit": float(limit),
        "median_distance": float(theirs.median()),
        "median_distance_held_out": float(own.median()),
    }
    advice = "" if share <= ALLOWED else "its samples leave the data: take another density, or train it further"
    return Finding("samples off the support", told, advice, numbers), torch.as_tensor(off)
