"""Figures of detection, each with a 95 % interval.

    AUROC  P(score of an in-distribution row > score of an OOD row), ties count half
    AUPR   average precision Σ (R_k - R_k-1) P_k over thresholds, with in-distribution or OOD rows as positives
    FPR95  share of OOD rows at or above the highest threshold that keeps 95 % of in-distribution rows

Higher scores mean more in-distribution; they are never negated: anti-correlated ones get an AUROC below 1/2. The AUROC
is a U-statistic. With the placements V_i = share of OOD rows below in-distribution row i, W_j = share of
in-distribution rows above OOD row j, its variance is `Var(V) / n_in + Var(W) / n_out`; the interval is symmetric on
the logit scale, so it stays within [0, 1]. For separated sets the variance is 0, and the limit is that of the
min(n_in, n_out) disjoint pairs, all in the right order: `0.025^(1/min)`. The other figures have percentile intervals of
a bootstrap within each set. As resamples of nearly separated sets are separated as well, these intervals are at least
as wide as Wilson's for a share of the rows of the figure.

Sources: Comparing the Areas under Two or More Correlated ROC Curves (DeLong et al., 1988); A Baseline for Detecting
Misclassified and Out-of-Distribution Examples in Neural Networks (Hendrycks & Gimpel, 2017, arXiv 1610.02136); Area
under the Precision-Recall Curve: Point Estimates and Confidence Intervals (Boyd et al., 2013).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twostep.core.estimate import NORMAL, Estimate, wilson
from twostep.metrics.ood.scores import Array

RESAMPLES = 200


def detection_figures(inside: Array, outside: Array, seed: int) -> dict[str, Estimate]:
    """Return `auroc`, `aupr`, `aupr_out` and `fpr95` of finite scores `(n,)` of in-distribution and `(m,)` OOD rows."""
    values, ranks = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    sets = np.split(ranks, [len(inside)])
    random = np.random.default_rng(seed)

    def figures(resample: bool) -> tuple[float, float, float]:
        # counts by distinct score, descending: 20 to 50 times faster than scikit-learn's functions with sample weights
        drawn = [rows[random.integers(len(rows), size=len(rows))] if resample else rows for rows in sets]
        kept, passed = (np.bincount(rows, minlength=len(values))[::-1] for rows in drawn)
        found = np.cumsum(kept)
        threshold = int(np.argmax(found / found[-1] >= 0.95))
        rate = float(passed[: threshold + 1].sum() / passed.sum())
        return _average_precision(kept, passed), _average_precision(passed[::-1], kept[::-1]), rate

    resampled = np.array([figures(resample=True) for _ in range(RESAMPLES)])
    ends = np.quantile(resampled, [0.025, 0.975], axis=0).T.tolist()
    rows = {"aupr": len(inside), "aupr_out": len(outside), "fpr95": len(outside)}
    found = {"auroc": auroc(inside, outside)}
    for (name, n), value, interval in zip(rows.items(), figures(resample=False), ends, strict=True):
        every = (value, *interval, *wilson(value, n))
        found[name] = Estimate(value, min(every), max(every))
    return found


def auroc(inside: Array, outside: Array) -> Estimate:
    """Return the AUROC with DeLong's interval, from finite scores `(n,)` and `(m,)`."""
    above, below = share_below(outside, inside), share_below(inside, outside)
    area = float(above.mean())
    if 0 < area < 1:
        # the largest possible variance for a set of one row
        variance = sum(float(x.var(ddof=1)) / len(x) if len(x) > 1 else 0.25 for x in (above, below))
        centre, half = math.log(area / (1 - area)), NORMAL * math.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-min(max(limit, -700.0), 700.0))) for limit in (centre - half, centre + half))
        return Estimate(area, low, high)
    limit = 0.025 ** (1 / min(len(inside), len(outside)))
    return Estimate(area, limit, 1.0) if area else Estimate(area, 0.0, 1 - limit)


def stump(inside: tuple[Array, Array], outside: tuple[Array, Array]) -> tuple[float, float]:
    """Return the threshold of a decision stump, infinite without a split, and its balanced accuracy on test rows.

    Rows with `score > threshold` count as in-distribution. The stump (Gini impurity, equal weights of the sets) is
    fitted to finite scores of training rows of both sets, the first of each pair, as in the paper's code
    (Loaiza-Ganem et al., 2022, arXiv 2204.07172): it uses OOD data, which a detector in use does not have.
    """
    from sklearn.tree import DecisionTreeClassifier  # here because it takes a second

    labels = np.repeat([1, 0], [len(inside[0]), len(outside[0])])
    classifier: Any = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    tree = classifier.fit(np.concatenate([inside[0], outside[0]])[:, None], labels).tree_
    threshold = float(tree.threshold[0]) if tree.node_count > 1 else np.inf  # equal scores have no split
    return threshold, float(np.mean(inside[1] > threshold) + np.mean(outside[1] <= threshold)) / 2


def share_below(others: Array, scores: Array) -> Array:
    """Return for each score `(m,)` the share of the others `(n,)` that are smaller; equal ones count half."""
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(others))


def _average_precision(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Return the average precision from counts by distinct score, the most positive first."""
    found, wrong = np.cumsum(positives), np.cumsum(negatives)
    precision = found / np.maximum(found + wrong, 1)
    return float((positives * precision).sum() / found[-1])
