"""How well scores tell two sets of rows apart, each figure with a 95 % interval. Higher score = more in-distribution.

    AUROC  P(score of an in-distribution row > score of an OOD row), ties count half
    AUPR   average precision Σ (R_k - R_k-1) P_k over thresholds, in-distribution rows being the positives, or OOD rows
    FPR95  share of OOD rows at or above the highest threshold that keeps 95 % of in-distribution rows

None of them is turned round: scores that are upside down get an AUROC below 1/2.

The AUROC is a U-statistic. With the placements V_i = share of OOD rows below in-distribution row i, W_j = share of
in-distribution rows above OOD row j, its variance is `Var(V) / n_in + Var(W) / n_out`; the interval is symmetric on
the logit scale, so it stays within [0, 1]. Where the sets are apart altogether the variance is 0, and the limit is
that of the min(n_in, n_out) disjoint pairs, each of which was ordered rightly: `0.025^(1/min)`. The other figures
have percentile intervals of a bootstrap that draws rows anew within each set. Where the sets are nearly apart, what is
drawn anew is apart as well and tells nothing of the rare rows that were not met, so these intervals are no narrower
than Wilson's for a share of the figure's own rows (binomial intervals of the AUPR: Boyd, Eng & Page).

Sources: Comparing the Areas under Two or More Correlated ROC Curves (DeLong, DeLong & Clarke-Pearson, 1988); A
Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks (Hendrycks & Gimpel, 2017,
arXiv 1610.02136); Area under the Precision-Recall Curve: Point Estimates and Confidence Intervals (Boyd, Eng & Page,
2013).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twostep.metrics.samples.estimates import NORMAL, wilson

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

REPLICATES = 200


class Figure(NamedTuple):
    """A figure and its 95 % interval, if it has one."""

    value: float
    interval: tuple[float, float] | None


def detection_figures(inside: Array, outside: Array, seed: int) -> dict[str, Figure]:
    """Return `auroc`, `aupr`, `aupr_out` and `fpr95`.

    Args:
        inside: finite scores of in-distribution rows, `(n,)`.
        outside: finite scores of OOD rows, `(m,)`.
        seed: of the bootstrap.
    """
    values, places = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    of_inside, of_outside = np.split(places, [len(inside)])
    random = np.random.default_rng(seed)

    def counts(rows: Counts, again: bool) -> Counts:
        drawn = rows[random.integers(len(rows), size=len(rows))] if again else rows
        return np.bincount(drawn, minlength=len(values))

    def curve(again: bool) -> tuple[float, float, float]:
        kept, passed = counts(of_inside, again), counts(of_outside, again)
        return (
            _average_precision(kept[::-1], passed[::-1]),
            _average_precision(passed, kept),
            _passed(kept[::-1], passed[::-1]),
        )

    replicates = np.array([curve(again=True) for _ in range(REPLICATES)])
    ends = np.quantile(replicates, [0.025, 0.975], axis=0).T.tolist()
    rows = {"aupr": len(inside), "aupr_out": len(outside), "fpr95": len(outside)}
    figures = {"auroc": auroc(inside, outside)}
    for (name, n), value, drawn in zip(rows.items(), curve(again=False), ends, strict=True):
        every = (value, *drawn, *wilson(value, n))
        figures[name] = Figure(value, (min(every), max(every)))
    return figures


def auroc(inside: Array, outside: Array) -> Figure:
    """Return the AUROC with DeLong's interval, from finite scores `(n,)` and `(m,)`."""
    above = _share_below(outside, inside)
    area = float(above.mean())
    variance = _variance_of_mean(above) + _variance_of_mean(_share_below(inside, outside))
    if 0 < area < 1:
        centre, half = math.log(area / (1 - area)), NORMAL * math.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-min(max(limit, -700.0), 700.0))) for limit in (centre - half, centre + half))
        return Figure(area, (low, high))
    limit = 0.025 ** (1 / min(len(inside), len(outside)))
    return Figure(area, (limit, 1.0) if area else (0.0, 1 - limit))


class Stump(NamedTuple):
    """A decision stump: rows with `score > threshold` count as in-distribution; infinite if it has no split."""

    threshold: float
    accuracy: float


def stump(inside: tuple[Array, Array], outside: tuple[Array, Array]) -> Stump:
    """Return a decision stump and its balanced accuracy on test rows.

    The stump (Gini impurity, the sets weighted alike) is fitted to training rows of both sets, as the paper's code does
    (Loaiza-Ganem et al., 2022, arXiv 2204.07172): it has seen OOD data, which a detector in use never has.

    Args:
        inside: finite scores of in-distribution training rows and test rows.
        outside: those of the OOD set.
    """
    threshold = _split(inside[0], outside[0])
    return Stump(threshold, float(np.mean(inside[1] > threshold) + np.mean(outside[1] <= threshold)) / 2)


def _share_below(others: Array, scores: Array) -> Array:
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(others))


def _variance_of_mean(values: Array) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.25


def _average_precision(positives: Counts, negatives: Counts) -> float:
    """Average precision of counts by distinct score, the most positive first."""
    found, wrong = np.cumsum(positives), np.cumsum(negatives)
    precision = found / np.maximum(found + wrong, 1)
    return float((positives * precision).sum() / found[-1])


def _passed(kept: Counts, passed: Counts) -> float:
    """Share passed at the highest threshold that keeps 95 %, of counts by distinct score, the highest first."""
    found = np.cumsum(kept)
    at = int(np.argmax(found / found[-1] >= 0.95))
    return float(passed[: at + 1].sum() / passed.sum())


def _split(inside: Array, outside: Array) -> float:
    from sklearn.tree import DecisionTreeClassifier  # here because it takes a second

    labels = np.repeat([1, 0], [len(inside), len(outside)])
    classifier: Any = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    tree = classifier.fit(np.concatenate([inside, outside])[:, None], labels).tree_
    # where scores are all alike there is no split
    return float(tree.threshold[0]) if tree.node_count > 1 else np.inf
