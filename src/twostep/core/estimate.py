"""Estimates with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

NORMAL = 1.959964
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """An estimate, and both ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def symmetric(cls, value: float, margin: float, *about: Any) -> Self:
        """Return an estimate with the interval `value ± margin`; `about` goes to the fields of subclasses."""
        return cls(value, value - margin, value + margin, *about)

    @classmethod
    def normal(cls, value: float, standard_error: float) -> Self:
        """Return an estimate with a normal interval."""
        return cls.symmetric(value, NORMAL * standard_error)

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def standard_error(self) -> float:
        """The standard error of a normal interval as wide as this one."""
        return self.margin / NORMAL


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share of n independent rows; it has positive width at 0 and 1, too.

    Source: Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927).
    """
    z = NORMAL**2 / n
    centre = (share + z / 2) / (1 + z)
    margin = math.sqrt(z * share * (1 - share) + z * z / 4) / (1 + z)
    return max(0.0, centre - margin), min(1.0, centre + margin)
