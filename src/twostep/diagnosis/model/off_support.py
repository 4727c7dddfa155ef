"""Whether samples lie where the data lie, and whether the likelihood still grows at the end of training.

A sample is off the support if it is farther from the training data than 99 % of held-out rows, and than 1 % of the rms
radius of the data: where rows lie close together, less than that does not matter. A model of the data's distribution
has 1 % of them at most; 5 % of 200 samples or more then have a probability below 1e-4.

The growth of the likelihood is the slope of a line through the last quarter of the epochs. It counts if it is above
twice its standard error and if as many further epochs as in that quarter would add a twentieth of a nat. On a manifold
the likelihood grows without bound; a slope above 0 alone may also be that of a model that needs more epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from twostep.core.neighbours import nearest
from twostep.diagnosis.model.finding import Finding

QUANTILE = 0.99
ALLOWED = 0.05  # of the samples
NEGLIGIBLE = 0.01  # of the rms radius

SHARE = 4  # a quarter of the epochs
FEWEST = 5  # epochs in it
ADDED = 0.05  # nats
ERRORS = 2.0  # standard errors


def off_support(train: Tensor, held_out: Tensor, samples: Tensor) -> Finding:
    """Compare the distances of samples and of held-out rows to the training rows, each of shape `(n, *S)`."""
    rows = train.double().flatten(1)
    reference, found = (nearest(other.double().flatten(1), rows).sqrt() for other in (held_out, samples))
    rms_radius = (rows - rows.mean(0)).square().sum(1).mean().sqrt()
    limit = torch.maximum(reference.quantile(QUANTILE), NEGLIGIBLE * rms_radius)
    share = float((found > limit).double().mean())
    median, reference_median = float(found.median()), float(reference.median())
    text = (
        f"{share:.1%} of {len(samples):,} samples are farther than {float(limit):.3g} from the training rows, and at "
        f"most 1 % of held-out rows (median distance {median:.3g}, held-out {reference_median:.3g})"
    )
    numbers = {"share": share, "limit": float(limit), "median_distance": median}
    numbers["median_distance_held_out"] = reference_median
    advice = "" if share <= ALLOWED else "train it further, or use another model"
    return Finding("samples off the support", text, advice, numbers)


def growth(values: Sequence[float]) -> Finding | None:
    """Assess the mean log-likelihood of each epoch, in nats; None for too few epochs."""
    last = torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.double)
    last = last[-max(FEWEST, len(last) // SHARE) :]
    if len(last) < FEWEST:
        return None
    epochs = torch.arange(len(last), dtype=torch.double) - (len(last) - 1) / 2
    squares = float(epochs.square().sum())
    rate = float(epochs @ last) / squares
    residual = last - last.mean() - rate * epochs
    error = math.sqrt(float(residual.square().sum()) / (len(last) - 2) / squares)
    grows = rate > ERRORS * error and rate * len(last) > ADDED
    text = (
        f"{'still growing' if grows else 'changes'} by {rate:.2g} nats per epoch at the end (last {len(last)} epochs)"
    )
    advice = "train longer; if it never ends, it overfits a manifold: fit it on embeddings of fewer dimensions"
    numbers = {"nats_an_epoch": rate, "standard_error": error}
    return Finding("likelihood in training", text, advice if grows else "", numbers)
