"""A figure of samples with its 95 % interval, and what is asked of the features that it is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.schema import UserError

NORMAL = 1.959964
GROUPS = 5
STUDENT = 2.776445
"""97.5 % quantiles: of the normal law, and of Student's law for the mean of `GROUPS` values."""

LARGEST = 1e18
"""Features beyond this have squared distances that float32 can't hold."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Args:
        value: of the figure.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: rows of each set that went into it.
        method: how the interval was made, and what it is an interval of.
    """

    value: float
    low: float
    high: float
    n: tuple[int, ...]
    method: str

    @property
    def error(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def symmetric(value: float, margin: float, n: tuple[int, ...], method: str) -> Estimate:
    """Return an estimate with the interval `value ± margin`."""
    return Estimate(value, value - margin, value + margin, n, method)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share among n independent rows; it has a width at 0 and 1 too.

    Source: Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927).
    """
    z = NORMAL**2 / n
    middle = (share + z / 2) / (1 + z)
    margin = math.sqrt(z * share * (1 - share) + z * z / 4) / (1 + z)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def check_features(least: int, **sets: Tensor) -> None:
    """Check that sets of features `(n, D)` can be compared.

    Args:
        least: rows that each must have.
        sets: the features, by the names that a message calls them.

    Raises:
        UserError: naming the set that has another shape, too few rows, or values that are not finite.
    """
    widths = {name: x.shape[1:] for name, x in sets.items()}
    if any(len(width) != 1 for width in widths.values()) or len(set(widths.values())) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in sets.items())
        raise UserError(f"features must be tables (n, D) of one width, not {shapes}: take them by one extractor")
    for name, x in sets.items():
        if len(x) < least:
            raise UserError(f"{name}: {len(x)} rows of features are too few, this needs {least} or more")
        low, high = torch.aminmax(x)
        if not (float(low) > -LARGEST and float(high) < LARGEST):
            raise UserError(f"{name}: features are not finite, or above {LARGEST:g}; leave such rows out")


def permutation(n: int, seed: int, device: torch.device) -> Tensor:
    """Return a random order of n rows, `(n,)`, the same for the same seed on every device."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(device)
