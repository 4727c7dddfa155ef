"""Whether a log-likelihood still grows at the end of training.

The rate is the slope of a line through the last quarter of the epochs. It counts if it is above twice its standard
error and if training as long again as that quarter would add a twentieth of a nat.

A density on a manifold can always get thinner, so that its likelihood has no end; that of one which fills its space
has. A rate above 0 alone does not tell one from a model that needs more epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from twostep.diagnosis.model.finding import Finding

SHARE = 4  # a quarter of the epochs
FEWEST = 5  # epochs in it
ADDED = 0.05  # nats
ERRORS = 2.0


def growth(values: Sequence[float]) -> Finding | None:
    """Judge mean log-likelihoods, in nats, of one epoch after the other; None for too few epochs to tell."""
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
    told = f"{'still growing' if grows else 'changes'} by {rate:.2g} nats an epoch at the end (last {len(last)} epochs)"
    advice = "train longer; if it has no end, it overfits a manifold: fit it on embeddings of fewer dimensions"
    return Finding(
        "likelihood in training", told, advice if grows else "", {"nats_an_epoch": rate, "standard_error": error}
    )
