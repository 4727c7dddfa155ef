"""Whether samples lie where data lie: their distance to the data against that of held-out data.

A sample is off the support if it is farther from the training data than 99 in 100 held-out rows are, and than 1 % of
the spread of the data: where rows lie close together, less than that is no leaving. A model of the data's law has 1 %
of them at most; that 5 % are found of 200 samples or more has then a probability below 1e-4.

This is what the likelihood of a density on a manifold can't tell: a model of the wrong shape has many samples off it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twostep.core.neighbours import nearest
from twostep.diagnosis.model.finding import Finding

QUANTILE = 0.99
ALLOWED = 0.05
NOTHING = 0.01  # of the spread


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
    spread = (rows - rows.mean(0)).square().sum(1).mean().sqrt()
    limit = torch.maximum(own.quantile(QUANTILE), NOTHING * spread)
    off = torch.as_tensor(theirs > limit)
    share = float(off.double().mean())
    told = (
        f"{share:.1%} of {len(samples):,} samples are farther than {float(limit):.3g} from the training rows, and 1 % "
        f"of held-out rows at most (median distance {float(theirs.median()):.3g}, held-out {float(own.median()):.3g})"
    )
    numbers = {
        "share": share,
        "limit": float(limit),
        "median_distance": float(theirs.median()),
        "median_distance_held_out": float(own.median()),
    }
    advice = "" if share <= ALLOWED else "its samples leave the data: train it further, or take another model"
    return Finding("samples off the support", told, advice, numbers), off
