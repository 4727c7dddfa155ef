"""An estimate with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass

Z95 = 1.96
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Args:
        value: the estimate.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, standard_error: float) -> Estimate:
        """Return an estimate with a normal interval."""
        return Estimate(value, value - Z95 * standard_error, value + Z95 * standard_error)

    @property
    def standard_error(self) -> float:
        """The standard error of a normal interval as wide as this one."""
        return (self.high - self.low) / (2 * Z95)
