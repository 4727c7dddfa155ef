"""Encoders of a user's own, as factories that tests name."""

import math

from torch import nn

from twostep.core.factories import allow

PAIR = "helpers.external:pair"
ALONE = "helpers.external:alone"
allow(PAIR)
allow(ALONE)


def pair(spec):
    """Return a small encoder of embeddings of shape (1, 3), and its decoder."""
    dim = math.prod(spec.shape)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(dim, 12), nn.Tanh(), nn.Linear(12, 3), nn.Unflatten(1, (1, 3)))
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, dim), nn.Unflatten(1, spec.shape))
    return encoder, decoder


def alone(spec):
    """Return an encoder without a decoder."""
    return pair(spec)[0]
