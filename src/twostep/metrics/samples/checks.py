"""What all comparisons of samples with data share: their result, checks of the features, permutations of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.estimate import Estimate
from twostep.core.schema import UserError

LARGEST = 1e18  # squared distances between larger features overflow in float32


@dataclass(frozen=True)
class SampleEstimate(Estimate):
    """An estimate from two sets of n rows; `method` says how its interval was computed, and of what it is one."""

    n: tuple[int, int]
    method: str


def check_features(min_rows: int, **sets: Tensor) -> None:
    """Check that sets of features `(n, D)` can be compared.

    Raises:
        UserError: naming the set of another shape, with too few rows, or with values that are not finite.
    """
    widths = {name: x.shape[1:] for name, x in sets.items()}
    if any(len(width) != 1 for width in widths.values()) or len(set(widths.values())) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in sets.items())
        raise UserError(f"features must have one shape (n, D), not {shapes}: compute them by the same extractor")
    for name, x in sets.items():
        if len(x) < min_rows:
            raise UserError(f"{name}: {len(x)} rows of features are too few, at least {min_rows} are needed")
        low, high = torch.aminmax(x)
        if not (float(low) > -LARGEST and float(high) < LARGEST):
            raise UserError(f"{name}: features are not finite, or exceed {LARGEST:g}; remove such rows")


def permutation(n: int, seed: int, device: torch.device) -> Tensor:
    """Return a random permutation of n rows, `(n,)`, the same for the same seed on every device."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(device)
