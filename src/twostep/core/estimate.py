"""A number with its 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

NORMAL = 1.959964
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        value: the number.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of rows of each sample that it was computed from.
        method: how the interval was computed, and of what it is one.
    """

    value: float
    low: float
    high: float
    n: tuple[int, ...] = ()
    method: str = ""

    @classmethod
    def symmetric(cls, value: float, margin: float, n: tuple[int, ...] = (), method: str = "") -> Self:
        """Return the estimate with the interval `value ± margin`."""
        return cls(value, value - margin, value + margin, n, method)

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share of n independent rows; it has positive width at 0 and 1, too.

    Source: Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927).
    """
    z = NORMAL**2 / n
    centre = (share + z / 2) / (1 + z)
    margin = math.sqrt(z * share * (1 - share) + z * z / 4) / (1 + z)
    return max(0.0, centre - margin), min(1.0, centre + margin)
