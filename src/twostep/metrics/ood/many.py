"""Answers about many new rows at once: which of them to call outliers, and whether they differ as a whole.

*q-values* (Benjamini & Hochberg). With the p-values p_(1) <= ... <= p_(m) of m rows,

    q_(i) = min over j >= i of min(1, m p_(j) / j):

of the rows with q <= a, a share of a or less is expected to be in-distribution. Conformal p-values share their held-out
rows, which makes them dependent in a way that keeps this bound (Bates et al.).

*Shift.* If new rows have the distribution of the held-out ones, their scores have one distribution. The two-sample test
of Kolmogorov and Smirnov compares them: its statistic D is the largest gap between the shares of new and of held-out
rows up to a score, 0 for equal and 1 for separate ones. It is not a test of single rows: a shift of all can leave each
of them unsuspicious.

Sources: Controlling the False Discovery Rate (Benjamini & Hochberg, 1995); Testing for Outliers with Conformal p-values
(Bates, Candès, Lei, Romano & Sesia, 2023, arXiv 2104.08279).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twostep.metrics.ood.scores import Array, finite

SHIFT_LEVEL = 0.01
FEWEST = 5  # new rows that are compared as a whole


@dataclass(frozen=True)
class Shift:
    """How far the scores of n new rows lie from those of held-out ones: the statistic D, and its p-value."""

    statistic: float
    p_value: float
    n: int

    @property
    def differs(self) -> bool:
        """Whether the rows differ as a whole, with a false-positive rate of 0.01."""
        return self.n >= FEWEST and self.p_value <= SHIFT_LEVEL


def q_values(p_values: Array) -> Array:
    """Return the q-value of each p-value, `(m,)`."""
    from scipy.stats import false_discovery_control  # here because it takes seconds

    return false_discovery_control(p_values) if len(p_values) else p_values


def shift_of(held_out: Array, scores: Array) -> Shift:
    """Compare scores of new rows `(m,)` with those of held-out rows `(n,)`."""
    from scipy.stats import ks_2samp

    found: Any = ks_2samp(finite(scores), finite(held_out))
    return Shift(float(found.statistic), float(found.pvalue), len(scores))
