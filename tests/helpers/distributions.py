"""Samples of known distributions, and the coverage of intervals."""

import torch


def gaussian(n, dim, shift=0.0, scale=1.0, seed=0, dtype=torch.float64):
    """Draw `(n, dim)` from N(shift, scale² I)."""
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, dim, generator=generator, dtype=dtype)


def coverage(estimates, truth=None):
    """Return the share of intervals that cover the truth, or the mean of the values if it is not known."""
    if truth is None:
        truth = sum(estimate.value for estimate in estimates) / len(estimates)
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates) / len(estimates)
