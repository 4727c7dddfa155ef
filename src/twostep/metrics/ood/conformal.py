"""Conformal p-values: how often a new in-distribution row looks at least as unusual as a given row.

With scores s_1..s_n of held-out in-distribution rows and the score s of a new row, lower being more unusual,

    p(s) = (1 + #{i: s_i <= s}) / (n + 1).

If the new row has the same distribution, the n + 1 scores are exchangeable, and `p <= a` has probability at most a,
for any distribution of the scores; without ties it is `⌊a (n + 1)⌋ / (n + 1)`. If scores can be too high as well as too
low, both sides are tested at a/2:

    p₂(s) = min(1, 2 min(p(s), p of -s among -s_i)).

The probability is over the held-out rows, too: given n of them, the false-positive rate has a beta distribution with
standard deviation about sqrt(a (1 - a) / n). The held-out rows must be like new ones *for the model*, so they can't be
training rows. Early stopping by the same rows changes the rate slightly if they are few.

`TwoPart` combines the scores of a two-step model: a point is unusual if it is far from the manifold, or if the density
of its projection is too low or too high. On one half of the held-out rows, each side of each score gets a smooth scale,
its surprise S = -log P(score <= s): interpolated ranks, with an exponential tail beyond the outer tenth. The scale of
the tail is the mean excess of its rows, shrunk towards that of a Gaussian with the same interquartile range (with the
weight of two rows). Sides share the false positives of a part (weighted Bonferroni), low and high densities nine to
one,

    S_density = max(S_low + log 0.9, S_high + log 0.1),

and so do, of images, a large distance, one that is large for so simple an image, and one that is suspiciously small,

    S_distance = max(S_far + log 0.45, S_relatively_far + log 0.45, S_near + log 0.1),

as far as the half has three rows in the share of a side. The score is the log of the weighted geometric mean of the
p-values (Good, 1955):

    T(x) = -(3/4 S_distance(x) + 1/4 S_density(x)).

Of vectors, the distance to the nearest training row, if it is known, has half of the weight of the distance
(benchmarks/adbench.py).

On the other half T becomes a conformal p-value as above; T depends on the first half only, so the level holds for any
dependence of the scores. T adds up weak evidence of its parts; and the surprise of a point far from the manifold is
unbounded, so an uninformative density with a quarter of the weight costs little.

Sources: Algorithmic Learning in a Random World (Vovk, Gammerman & Shafer, 2005); Testing for Outliers with Conformal
p-values (Bates, Candès, Lei, Romano & Sesia, 2023, arXiv 2104.08279); On the Weighted Combination of Significance Tests
(Good, 1955); False Discovery Control with p-value Weighting (Genovese, Roeder & Wasserman, 2006).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import nn

from twostep.core.schema import UserError
from twostep.metrics.ood.knn import KNN, KNN_LATENT
from twostep.metrics.ood.many import Shift, shift_of
from twostep.metrics.ood.scores import DISTANCE, FAR, LATENT, NEAREST, RELATIVE, TWO_PART, Array, finite
from twostep.models.two_step import TwoStep

TAIL = 0.1  # share of the rows
Sides = dict[tuple[str, int], float]
"""Share of the false positives by score and side: 1 for too low, -1 for too high."""
DENSITY: Sides = {("log_prob", 1): 0.9, ("log_prob", -1): 0.1}
OF_VECTORS: Sides = {(DISTANCE, 1): 1.0}
OF_ROWS: Sides = {(NEAREST, 1): 1.0}
OF_IMAGES: Sides = {(DISTANCE, 1): 0.45, (RELATIVE, 1): 0.45, (DISTANCE, -1): 0.1}
ON_DISTANCE = 0.75  # weight
ONE_SIDED = (DISTANCE, RELATIVE, NEAREST, KNN.name, KNN_LATENT.name)
MIN_ROWS = 4  # held-out rows that a `TwoPart` needs, two in each half
SUPPORT = 3  # rows expected in the share of a side for the side to be used, unless it is the first
SHRINKAGE = 2  # weight of the Gaussian tail in the scale of a tail, in rows
GAUSSIAN_EXCESS = 0.35  # mean excess of a Gaussian beyond its outer tenth, in interquartile ranges


class ConformalCalibrator:
    """Converts scores of rows to p-values, by each score of a model.

    One of the scores is the model's headline, whose p-value decides:

        two-step model   the two-part score, whose halves follow from the seed
        density          log-density, two-sided: too high a density is unusual as well
        autoencoder      distance, one-sided

    It is calibrated on `calibrated_on` of the held-out rows, which the model was not trained on, of at least four; its
    smallest possible p-value is `smallest`. Without a density on the manifold, that of the embeddings takes its place;
    without a distance it is the headline.
    """

    def __init__(self, model: nn.Module, held_out: Mapping[str, Array], seed: int) -> None:
        self.held_out = held_out
        self.calibrated_on = len(next(iter(held_out.values())))
        if self.calibrated_on < MIN_ROWS:
            raise UserError(f"p-values need at least {MIN_ROWS} validation rows, not {self.calibrated_on}")
        density = next((name for name in ("log_prob", LATENT) if name in held_out), None)
        self.headline = density or DISTANCE
        self.two_part = None
        if isinstance(model, TwoStep) and DISTANCE in held_out:
            self.headline, self.two_part = TWO_PART.name, TwoPart(held_out, seed)
            self.calibrated_on = len(self.two_part.calibration)
        self.smallest = (1 + (self.headline == density)) / (self.calibrated_on + 1)

    def p_values(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Return the p-values of rows by score, `(m,)` each, given the scores that held-out rows have."""
        found = {
            name: p_values(self.held_out[name], scores, two_sided=name not in ONE_SIDED)
            for name, scores in rows.items()
            if name in self.held_out
        }
        if self.two_part is not None:
            found[TWO_PART.name] = self.two_part.p_values(rows)
        return found

    @property
    def calibration(self) -> Array:
        """The headline scores that calibrate, `(n,)`."""
        return self.held_out[self.headline] if self.two_part is None else self.two_part.calibration

    def headline_scores(self, rows: Mapping[str, Array]) -> Array:
        """Return the headline scores of rows, `(m,)`, given their scores."""
        return rows[self.headline] if self.two_part is None else self.two_part.score(rows)

    def shift(self, rows: Mapping[str, Array]) -> Shift:
        """Return how the headline scores of rows as a whole compare with those of the held-out ones."""
        return shift_of(self.calibration, self.headline_scores(rows))


def p_values(held_out: Array, scores: Array, two_sided: bool = False) -> Array:
    """Return the conformal p-values, in [1/(n+1), 1], of scores `(m,)` by those of held-out rows, `(n,)`."""
    held_out, scores = finite(held_out), finite(scores)
    low = (1 + np.searchsorted(np.sort(held_out), scores, "right")) / (len(held_out) + 1)
    if not two_sided:
        return low
    return np.minimum(1.0, 2 * np.minimum(low, p_values(-held_out, -scores)))


class Surprise:
    """A smooth `-log P(score <= s)`: interpolated ranks of held-out scores `(n,)`, n > 1, and an exponential tail."""

    def __init__(self, held_out: Array) -> None:
        self.scores, counts = np.unique(held_out, return_counts=True)
        self.surprises = -np.log((np.cumsum(counts) - 0.5) / len(held_out))
        # the tail begins at the score with this index
        self.edge = min(int(np.searchsorted(np.cumsum(counts), TAIL * len(held_out))), len(self.scores) - 1)
        start = self.scores[self.edge]
        usual = held_out[np.abs(held_out) < FAR]
        dispersion = 0.0
        if len(usual):
            low, high = np.quantile(usual, [0.25, 0.75])
            dispersion = float(high - low) or float(usual.std())
        excess = start - usual[usual < start]
        scale = float(excess.sum() + SHRINKAGE * GAUSSIAN_EXCESS * dispersion) / (len(excess) + SHRINKAGE)
        self.scale = max(scale, np.finfo(float).eps * max(1.0, abs(float(start))))

    def __call__(self, scores: Array) -> Array:
        """Return the surprise of each score, `(m,)`, which is unbounded for low scores."""
        start = self.scores[self.edge]
        inside = np.interp(scores, self.scores, self.surprises)
        tail = self.surprises[self.edge] + (start - scores) / self.scale
        return np.where(scores < start, tail, inside)


class TwoPart:
    """Distance to the manifold and density on it as one score, with conformal p-values.

    The scales are fitted to a random half of the held-out rows, and the p-values calibrated on the other. Scores of the
    same rows come by their names, `(n,)`, n >= `MIN_ROWS`; of new rows the same ones are needed.
    """

    def __init__(self, held_out: Mapping[str, Array], seed: int) -> None:
        held_out = _with_density(held_out)
        order = np.random.default_rng(seed).permutation(len(held_out[DISTANCE]))
        first, second = np.array_split(order, 2)
        self.parts = [(weight, _supported(sides, len(first))) for weight, sides in parts_of(held_out)]
        both = [one for _, sides in self.parts for one in sides]
        self.surprises = {(name, side): Surprise(side * finite(held_out[name])[first]) for name, side in both}
        self.calibration = self.score({name: held_out[name][second] for name in dict(both)})

    def score(self, rows: Mapping[str, Array]) -> Array:
        """Return T, `(m,)`; higher means more in-distribution."""
        total, rows = 0.0, _with_density(rows)
        for weight, sides in self.parts:
            found = [
                self.surprises[name, side](side * finite(rows[name])) + np.log(share)
                for (name, side), share in sides.items()
            ]
            total = total - weight * np.max(found, 0)
        return np.asarray(total)

    def p_values(self, rows: Mapping[str, Array]) -> Array:
        """Return the conformal p-value of each row, `(m,)`."""
        return p_values(self.calibration, self.score(rows))


def parts_of(names: Collection[str]) -> list[tuple[float, Sides]]:
    """Return the parts of the two-part score, with their weights, given the names of the scores that a model has."""
    manifold = OF_IMAGES if RELATIVE in names else OF_VECTORS
    rows = 0.5 if NEAREST in names else 0.0
    parts = [(ON_DISTANCE * (1 - rows), manifold), (ON_DISTANCE * rows, OF_ROWS), (1 - ON_DISTANCE, DENSITY)]
    return [(weight, sides) for weight, sides in parts if weight]


def _supported(sides: Sides, count: int) -> Sides:
    """Leave out sides in whose share too few of so many rows are expected, but for the first."""
    first = next(iter(sides))
    return {side: share for side, share in sides.items() if side == first or share * count >= SUPPORT}


def _with_density(rows: Mapping[str, Array]) -> Mapping[str, Array]:
    """Let the density of embeddings stand for one on the manifold where there is none."""
    return rows if "log_prob" in rows else {**rows, "log_prob": rows[LATENT]}
