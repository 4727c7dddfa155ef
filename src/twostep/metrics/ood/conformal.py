"""Conformal p-values: how often a new in-distribution row looks at least as unusual as a given row.

With scores s_1..s_n of held-out in-distribution rows and the score s of a new row, lower being more unusual,

    p(s) = (1 + #{i: s_i <= s}) / (n + 1).

If the new row has the same distribution, the n + 1 scores are exchangeable, and `p <= a` has probability at most a,
for any distribution of the scores; without ties it is `⌊a (n + 1)⌋ / (n + 1)`. Ties count in favour of the new row, so
discrete scores give fewer false positives. If scores can be too high as well as too low, both sides are tested at a/2:

    p₂(s) = min(1, 2 min(p(s), p of -s among -s_i)).

The probability is over the held-out rows, too: given n of them, the false-positive rate has a beta distribution with
standard deviation about sqrt(a (1 - a) / n). The held-out rows must be like new ones *for the model*, so they can't be
training rows. Early stopping uses validation rows, which changes the rate slightly if they are few.

`TwoPart` combines two scores: a point is unusual if it is far from the manifold, or if the density of its projection is
too low or too high. On one half of the held-out rows, each side of each score gets a smooth scale, its surprise
S = -log P(score <= s): interpolated ranks, with an exponential tail beyond the outer tenth. The scale of the tail is
the mean excess of its rows, shrunk towards that of a Gaussian with the same interquartile range (with the weight of two
rows). Low and high densities share the false positives nine to one (weighted Bonferroni),

    S_density = max(S_low + log 0.9, S_high + log 0.1),

if the half has at least 30 rows, so that three are expected in the share of the high ones; else S_density is
S_low + log 0.9. The score is the log of the weighted geometric mean of the two p-values (Good, 1955):

    T(x) = -(3/4 S_distance(x) + 1/4 S_density(x)).

On the other half T becomes a conformal p-value as above; T depends on the first half only, so the level holds for any
dependence of the scores. Unlike the minimum of two p-values, T adds up weak evidence of both; and the surprise of a
point far from the manifold is unbounded, so an uninformative density with a quarter of the weight costs little.

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

TAIL = 0.1
WEIGHTS = {"reconstruction_error": 0.75, "log_prob": 0.25}

SIDES = {("reconstruction_error", 1): 1.0, ("log_prob", 1): 0.9, ("log_prob", -1): 0.1}
"""Share of the false positives of a score by side: 1 for too low, -1 for too high."""

MIN_ROWS = 4
"""Held-out rows that a `TwoPart` needs, two in each half."""

SUPPORT = 3
"""Rows expected in the share of a side for the side to be used, unless its share is the largest."""

SHRINKAGE = 2
"""Weight of the Gaussian tail in the scale of a tail, in rows."""

GAUSSIAN_EXCESS = 0.35
"""Mean excess of a Gaussian beyond its outer tenth, in interquartile ranges."""


def p_values(held_out: Array, scores: Array, two_sided: bool = False) -> Array:
    """Return the conformal p-value of each score.

    Args:
        held_out: scores of in-distribution rows that the model was not trained on, `(n,)`, none NaN.
        scores: scores of new rows, `(m,)`, none NaN.
        two_sided: whether scores can be too high as well as too low.

    Returns:
        `(m,)`, in [1/(n+1), 1].
    """
    low = (1 + np.searchsorted(np.sort(held_out), scores, "right")) / (len(held_out) + 1)
    if not two_sided:
        return low
    return np.minimum(1.0, 2 * np.minimum(low, p_values(-held_out, -scores)))


def smallest_p_value(held_out: int, two_sided: bool = False) -> float:
    """Return the smallest possible p-value with this number of held-out rows."""
    return min(1.0, (1 + two_sided) / (held_out + 1))


@dataclass(frozen=True)
class Surprise:
    """A smooth `-log P(score <= s)`: interpolated ranks, and an exponential tail below the outer tenth.

    Args:
        scores: distinct held-out scores, ascending, `(k,)`.
        surprises: surprise of each, `(k,)`, descending.
        edge: index of the score where the tail begins.
        scale: scale of the tail.
    """

    scores: Array
    surprises: Array
    edge: int
    scale: float

    @classmethod
    def fit(cls, held_out: Array) -> Self:
        """Fit the scale of held-out scores `(n,)`, n > 1."""
        scores, counts = np.unique(held_out, return_counts=True)
        surprises = -np.log((np.cumsum(counts) - 0.5) / len(held_out))
        edge = min(int(np.searchsorted(np.cumsum(counts), TAIL * len(held_out))), len(scores) - 1)
        usual = held_out[np.abs(held_out) < FAR]
        excess = scores[edge] - usual[usual < scores[edge]]
        scale = float(excess.sum() + SHRINKAGE * GAUSSIAN_EXCESS * _dispersion(usual)) / (len(excess) + SHRINKAGE)
        smallest = np.finfo(float).eps * max(1.0, abs(float(scores[edge])))
        return cls(scores, surprises, edge, max(scale, smallest))

    def __call__(self, scores: Array) -> Array:
        """Return the surprise of each score, `(m,)`, which is unbounded for low scores."""
        start = self.scores[self.edge]
        inside = np.interp(scores, self.scores, self.surprises)
        tail = self.surprises[self.edge] + (start - scores) / self.scale
        return np.where(scores < start, tail, inside)


def _dispersion(scores: Array) -> float:
    """Return the interquartile range, or the standard deviation if that is 0, or 0 without scores."""
    if not len(scores):
        return 0.0
    low, high = np.quantile(scores, [0.25, 0.75])
    return float(high - low) or float(scores.std())


@dataclass(frozen=True)
class TwoPart:
    """Distance to the manifold and density on it as one score, with conformal p-values.

    Args:
        surprises: by score and side, for the sides that are used.
        calibration: scores of the second half of the held-out rows, `(n,)`.
    """

    surprises: Mapping[tuple[str, int], Surprise]
    calibration: Array

    @classmethod
    def fit(cls, held_out: Mapping[str, Array], seed: int) -> Self:
        """Fit the scales on a random half of the held-out rows, and calibrate on the other.

        Args:
            held_out: by name in `WEIGHTS`, scores of the same in-distribution rows, `(n,)`, n >= `MIN_ROWS`.
            seed: seed of the halves.
        """
        order = np.random.default_rng(seed).permutation(len(next(iter(held_out.values()))))
        first, second = np.array_split(order, 2)
        surprises = {
            (name, side): Surprise.fit(side * held_out[name][first])
            for (name, side), share in SIDES.items()
            if share > 0.5 or share * len(first) >= SUPPORT
        }
        calibration = cls(surprises, np.empty(0)).score({name: scores[second] for name, scores in held_out.items()})
        return cls(surprises, calibration)

    def score(self, rows: Mapping[str, Array]) -> Array:
        """Return T, `(m,)`; higher means more in-distribution."""
        sides = {key: surprise(key[1] * rows[key[0]]) + np.log(SIDES[key]) for key, surprise in self.surprises.items()}
        worst = {name: np.max([sides[key] for key in sides if key[0] == name], 0) for name in WEIGHTS}
        return -np.sum([weight * worst[name] for name, weight in WEIGHTS.items()], 0)

    def p_values(self, rows: Mapping[str, Array]) -> Array:
        """Return the conformal p-value of each row, `(m,)`."""
        return p_values(self.calibration, self.score(rows))
