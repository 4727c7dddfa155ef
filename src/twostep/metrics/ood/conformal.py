"""Conformal p-values: how often a new in-distribution row looks at least as odd as this one does.

Scores s_1..s_n of held-out in-distribution rows, and the score s of a new row, lower = odder:

    p(s) = (1 + #{i: s_i <= s}) / (n + 1)

If the new row is one more draw of the same law, the n + 1 scores are exchangeable, and an alarm at `p <= a` is false
with probability at most a, whatever the law of the scores; without ties it is `⌊a (n + 1)⌋ / (n + 1)`, so more than
`a - 1/(n + 1)`. Ties are taken for the new row's good (conservatively: no random numbers, equal rows get equal
p-values), so discrete scores raise fewer alarms, never more. Two-sided, where a score can be too high as well as too
low, either side is asked at a/2:

    p₂(s) = min(1, 2 min(p(s), p of -s among -s_i))

The probability is over the held-out rows too: given these n rows, the rate is near a as a Beta law has it, with
standard deviation about sqrt(a (1 - a) / n). No row of other data and no label enters. What it needs is that the
held-out rows are like new ones *for the model*: never rows that it was trained on. Early stopping looks at validation
rows, which moves the rate a little where they are few.

Two parts in one score, `TwoPart`: a point is odd if it is far from the manifold, and if the density of its projection
is too low, or too high. On one half of the held-out rows each side of each score gets a smooth scale, its surprise
S = -log P(score <= s): interpolated ranks, and beyond the outer tenth an exponential tail, so that what lies beyond
every held-out row is ranked still. The scale of the tail is the mean excess of the rows in it, shrunk towards that of a
Gaussian with the scores' interquartile range (with the weight of two rows): with few rows or ties at the end the tail
holds none. Low and high densities share the false alarms nine to one (weighted Bonferroni),

    S_density = max(S_low + log 0.9, S_high + log 0.1),

where the half has at least 30 rows, so that three are expected in the share of the high ones; with fewer, S_density is
S_low + log 0.9. The score is the weighted geometric mean of the two p-values (Good 1955), in logarithms:

    T(x) = -(3/4 S_distance(x) + 1/4 S_density(x)).

On the other half T becomes a conformal p-value as above: T is fixed by the first half, so the level holds whatever the
dependence of the parts and however bad the scales. A mean adds weak evidence of both parts up, which a minimum of
p-values can't; and the surprise of a point far from the manifold grows without end, so a quarter of the weight on a
density that knows nothing costs little. `benchmarks/ood.py` shows both.

Sources: Algorithmic Learning in a Random World (Vovk, Gammerman & Shafer, 2005); Testing for Outliers with Conformal
p-values (Bates, Candès, Lei, Romano & Sesia, 2023, arXiv 2104.08279); On the Weighted Combination of Significance Tests
(Good, 1955); False Discovery Control with p-value Weighting (Genovese, Roeder & Wasserman, 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from twostep.metrics.ood.scores import FAR, Array

OUTER = 0.1
WEIGHTS = {"reconstruction_error": 0.75, "log_prob": 0.25}
"""Of the parts of the score."""

SIDES = {("reconstruction_error", 1): 1.0, ("log_prob", 1): 0.9, ("log_prob", -1): 0.1}
"""Share of a part's false alarms by side: 1 for too low, -1 for too high."""

FEWEST = 4
"""Held-out rows that a `TwoPart` needs, two in each half."""

SUPPORT = 3
"""Rows that must be expected in a side's share of a half for the side to count, unless it has the largest share."""

SHRINKAGE = 2
"""Weight of the Gaussian tail in the scale of a tail, in rows."""

GAUSSIAN_EXCESS = 0.35
"""Mean excess of a Gaussian beyond its outer tenth, in interquartile ranges."""


def p_values(held_out: Array, scores: Array, two_sided: bool = False) -> Array:
    """Return the conformal p-value of each score, one-sided (low = odd) or two-sided.

    Args:
        held_out: scores of in-distribution rows that the model was not trained on, `(n,)`, none NaN.
        scores: of new rows, `(m,)`, none NaN.
        two_sided: ask on both sides, each at half the level.

    Returns:
        `(m,)`, in [1/(n+1), 1].
    """
    low = (1 + np.searchsorted(np.sort(held_out), scores, "right")) / (len(held_out) + 1)
    if not two_sided:
        return low
    return np.minimum(1.0, 2 * np.minimum(low, p_values(-held_out, -scores)))


def smallest_p_value(held_out: int, two_sided: bool = False) -> float:
    """Return the smallest p-value that so many held-out rows can give: no alarm is possible at a level below it."""
    return min(1.0, (1 + two_sided) / (held_out + 1))


@dataclass(frozen=True)
class Surprise:
    """A smooth `-log P(score <= s)`: interpolated ranks inside, an exponential tail below the outer tenth.

    Args:
        scores: distinct held-out scores, ascending, `(k,)`.
        surprises: of each, `(k,)`, descending.
        edge: where the tail begins, an index into them.
        scale: of the tail.
    """

    scores: Array
    surprises: Array
    edge: int
    scale: float

    @classmethod
    def fit(cls, held_out: Array) -> Self:
        """Take the scale of held-out scores `(n,)`, n > 1."""
        scores, counts = np.unique(held_out, return_counts=True)
        surprises = -np.log((np.cumsum(counts) - 0.5) / len(held_out))
        edge = min(int(np.searchsorted(np.cumsum(counts), OUTER * len(held_out))), len(scores) - 1)
        usual = held_out[np.abs(held_out) < FAR]
        excess = scores[edge] - usual[usual < scores[edge]]
        scale = float(excess.sum() + SHRINKAGE * GAUSSIAN_EXCESS * _spread(usual)) / (len(excess) + SHRINKAGE)
        smallest = np.finfo(float).eps * max(1.0, abs(float(scores[edge])))
        return cls(scores, surprises, edge, max(scale, smallest))

    def __call__(self, scores: Array) -> Array:
        """Return the surprise of each score, `(m,)`; it grows without end the lower the score is."""
        start = self.scores[self.edge]
        inside = np.interp(scores, self.scores, self.surprises)
        tail = self.surprises[self.edge] + (start - scores) / self.scale
        return np.where(scores < start, tail, inside)


def _spread(scores: Array) -> float:
    """Return the interquartile range, the standard deviation where half of the scores are equal, or 0 for none."""
    if not len(scores):
        return 0.0
    low, high = np.quantile(scores, [0.25, 0.75])
    return float(high - low) or float(scores.std())


@dataclass(frozen=True)
class TwoPart:
    """Distance to the manifold and density on it as one score, with conformal p-values.

    Args:
        surprises: by score and side, those sides that count.
        calibration: the score of the second half of the held-out rows, `(n,)`.
    """

    surprises: Mapping[tuple[str, int], Surprise]
    calibration: Array

    @classmethod
    def fit(cls, held_out: Mapping[str, Array], seed: int) -> Self:
        """Fit the scales on a half of the held-out rows, drawn by the seed, and calibrate on the other.

        Args:
            held_out: by name of `WEIGHTS`, the scores of the same in-distribution rows, `(n,)`, n >= `FEWEST`.
            seed: of the halves.
        """
        order = np.random.default_rng(seed).permutation(len(next(iter(held_out.values()))))
        first, second = np.array_split(order, 2)
        surprises = {
            (name, side): Surprise.fit(side * held_out[name][first])
            for (name, side), share in SIDES.items()
            if share > 0.5 or share * len(first) >= SUPPORT
        }
        calibration = cls(surprises, np.empty(0)).score({name: rows[second] for name, rows in held_out.items()})
        return cls(surprises, calibration)

    def score(self, rows: Mapping[str, Array]) -> Array:
        """Return T, `(m,)`: higher means more in-distribution."""
        odd = {key: surprise(key[1] * rows[key[0]]) + np.log(SIDES[key]) for key, surprise in self.surprises.items()}
        parts = {name: np.max([odd[key] for key in odd if key[0] == name], 0) for name in WEIGHTS}
        return -np.sum([weight * parts[name] for name, weight in WEIGHTS.items()], 0)

    def p_values(self, rows: Mapping[str, Array]) -> Array:
        """Return the conformal p-value of each row, `(m,)`."""
        return p_values(self.calibration, self.score(rows))
