"""Out-of-distribution detection: do log-densities tell test rows of two data sets apart?

Every score has the direction *in-distribution = higher*, and none of the figures turns it round: a model that gives
the other data set the higher densities gets an AUROC below 1/2.

    likelihood_ood_acc    balanced accuracy of `score > t`; t is the one split of a decision stump (Gini impurity, the
                          sets weighted alike) on the training rows of both sets
    likelihood_ood_auroc  P(score of an in-distribution row > score of an OOD row), ties count half
    likelihood_ood_aupr   average precision, in-distribution rows are the positives
    likelihood_ood_fpr95  share of OOD rows above the highest threshold that keeps 95 % of in-distribution rows

The accuracy has seen training rows of the other set, which a detector in use never has; the others need no threshold.
A log-density on a learned manifold is that of a point's projection: far outliers can have high ones.

Sources: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172), for the stump; A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks
(Hendrycks and Gimpel, 2017, arXiv 1610.02136), for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twostep.data.batches import Batches
from twostep.data.rows import Points
from twostep.metrics.base import Result, SumOverRanks
from twostep.models.base import DensityEstimator, evaluating
from twostep.models.two_step import TwoStep

Array = NDArray[np.float64]

MAX_ROWS = 10_000
"""Rows of each split that are scored at most: a density on a manifold needs the decoder's Jacobian at each."""

SPLITS = ("in_train", "in_test", "ood_train", "ood_test")
DIRECTION = "in-distribution = higher score"
FAR = 1e30


@dataclass(frozen=True)
class Score:
    """A log-density that points are told apart by.

    Args:
        name: of the arrays it leaves.
        suffix: of its figures' names.
        of: maps points `(B, *S)` to scores `(B,)`.
        kind: exact, bound or unnormalised.
        measure: what the density refers to.
    """

    name: str
    suffix: str
    of: Callable[[Tensor], Tensor]
    kind: str
    measure: str


def scores_of(model: nn.Module) -> tuple[Score, ...]:
    """Return the scores that a model has: none without a density; a two-step model has one on its embeddings too."""
    if isinstance(model, TwoStep):
        latent = f"Lebesgue on R^{model.de.spec.dim}"
        return (
            Score("log_prob", "", model.log_prob, model.likelihood, "volume of the learned manifold"),
            Score("log_prob_latent", "_low_dim", model.log_prob_latent, model.likelihood, latent),
        )
    if isinstance(model, DensityEstimator):
        measure = f"Lebesgue on R^{model.spec.dim}"
        return (Score("log_prob", "", lambda x: model.log_prob(model.noise.fill_bins(x)), model.likelihood, measure),)
    return ()


def spread(data: Points) -> Tensor:
    """Return `MAX_ROWS` rows, evenly spaced in the data's order, or all where there are no more."""
    rows = min(len(data), MAX_ROWS)
    return data[torch.arange(rows) * len(data) // rows]


def score_splits(
    model: nn.Module, splits: Mapping[str, Batches], sum_over_ranks: SumOverRanks, seed: int
) -> dict[str, dict[str, Array]]:
    """Score the rows of every split, in eval mode, with the same random numbers for the same seed.

    Returns:
        by score and split, the scores of all ranks' rows in the order of the split's rows.
    """
    scored: dict[str, dict[str, Array]] = {}
    with evaluating(model):
        for score in scores_of(model):
            scored[score.name] = {}
            for split, batches in splits.items():
                torch.manual_seed(seed)
                scored[score.name][split] = _score(score, batches, sum_over_ranks)
    return scored


def detection(model: nn.Module, scored: Mapping[str, Mapping[str, Array]], names: tuple[str, str]) -> dict[str, Result]:
    """Return how well each score tells the test rows apart.

    Args:
        model: whose scores these are.
        scored: what `score_splits` returned, for the splits `SPLITS`.
        names: of the data set the model was trained on and of the other.
    """
    results: dict[str, Result] = {}
    for score in scores_of(model):
        rows = scored[score.name]
        n = len(rows["in_test"]) + len(rows["ood_test"])
        odd = _not_finite(rows)

        def result(value: float, unit: str, note: str, score: Score = score, n: int = n, odd: str = odd) -> Result:
            about = f"{names[0]} against {names[1]}; {DIRECTION}; {note}{odd}"
            return Result(value, unit, n, kind=score.kind, measure=score.measure, note=about)

        figures = figures_of({split: _ranked(values) for split, values in rows.items()})
        tuned = f"threshold tuned on training rows of both, also of {names[1]}"
        share = len(rows["in_test"]) / n
        found = {
            "acc": result(figures["acc"], "balanced accuracy", tuned),
            "auroc": result(figures["auroc"], "area under the ROC curve", "chance 0.5"),
            "aupr": result(
                figures["aupr"], "average precision", f"in-distribution rows are positives, chance {share:.3g}"
            ),
            "fpr95": result(
                figures["fpr95"], "of OOD rows", "those kept beside 95 % of in-distribution rows, chance 0.95"
            ),
        }
        results |= {f"likelihood_ood_{name}{score.suffix}": value for name, value in found.items()}
    return results


def figures_of(rows: Mapping[str, Array]) -> dict[str, float]:
    """Return `acc`, `auroc`, `aupr` and `fpr95` of finite scores by split."""
    from sklearn import metrics  # here because it takes a second

    inside, outside = rows["in_test"], rows["ood_test"]
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    threshold = _stump(rows["in_train"], rows["ood_train"])
    curve: Any = metrics.roc_curve(labels, scores, drop_intermediate=False)
    false_positives, true_positives, _ = curve
    return {
        "acc": float(np.mean(inside > threshold) + np.mean(outside <= threshold)) / 2,
        "auroc": float(metrics.roc_auc_score(labels, scores)),
        "aupr": float(metrics.average_precision_score(labels, scores)),
        "fpr95": float(false_positives[true_positives >= 0.95].min()),
    }


def _stump(inside: Array, outside: Array) -> float:
    from sklearn.tree import DecisionTreeClassifier

    labels = np.repeat([1, 0], [len(inside), len(outside)])
    stump: Any = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    tree = stump.fit(np.concatenate([inside, outside])[:, None], labels).tree_
    # where scores are all alike there is no split
    return float(tree.threshold[0]) if tree.node_count > 1 else np.inf


def _score(score: Score, batches: Batches, sum_over_ranks: SumOverRanks) -> Array:
    parts = [score.of(x) for x in batches]
    order = torch.arange(len(batches.data))
    mine = [batches.rows_of(order, index)[batches.rank :: batches.world_size] for index in range(len(batches))]
    every = torch.zeros(len(order), device=batches.device)
    if parts:
        scores = torch.cat(parts)
        every = every.to(scores.dtype)
        every[torch.cat(mine).to(every.device)] = scores
    return sum_over_ranks(every).cpu().double().numpy()


def _ranked(values: Array) -> Array:
    """Put infinite scores above or below all others, and those that are no numbers below."""
    return np.nan_to_num(values, nan=-FAR, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)


def _not_finite(rows: Mapping[str, Array]) -> str:
    found = ""
    for split, values in rows.items():
        for what, count in (
            ("+inf, highest", np.isposinf(values).sum()),
            ("-inf, lowest", np.isneginf(values).sum()),
            ("no number, taken for lowest", np.isnan(values).sum()),
        ):
            found += f"; {count:,} scores of {split}: {what}" if count else ""
    return found
