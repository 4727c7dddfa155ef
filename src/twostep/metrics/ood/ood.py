"""Out-of-distribution detection: whether the scores of a model separate its test rows from those of other datasets.

    <score>_ood_auroc, _aupr, _aupr_out, _fpr95   see `detection`: without a threshold
    <score>_ood_false_positive_rate               in-distribution test rows with a conformal p-value <= 0.05
    <score>_ood_detection_rate                    OOD test rows with such a p-value; calibrated on validation rows only
    likelihood_ood_acc[_low_dim]                  the reference's accuracy of a decision stump, which uses OOD data

with <score> being `likelihood` (a log-density; `..._low_dim`: of embeddings), `distance` (to the manifold),
`two_part` (both) or `knn` (to the fifth nearest training row; `..._low_dim`: among embeddings). On a learned
manifold, a log-density is that of the projection: it can be high far from the manifold.

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172), for the stump and the two densities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from twostep.data.base import Splits
from twostep.data.batches import subsample
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.ood.conformal import MIN_ROWS, ConformalCalibrator
from twostep.metrics.ood.detection import detection_figures, stump
from twostep.metrics.ood.knn import KNN, KNN_LATENT
from twostep.metrics.ood.scores import MAX_ROWS, NEAREST_SCORE, TWO_PART, Array, finite, scores_of
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep

LEVEL = 0.05

Scores = dict[str, dict[str, Array]]  # or p-values, by name of the score and split


@dataclass(frozen=True)
class OODAccuracy(Metric):
    """A figure of OOD detection by name: among the test metrics, it asks for OOD detection, with all its figures."""

    name: str
    summary: str
    models: tuple[type, ...]
    refused: str
    lower_is_better: bool = False
    stops: bool = False
    needs: Literal["", "decoder", "volume"] = ""


for _metric in (
    OODAccuracy(
        "likelihood_ood_acc",
        "OOD detection: balanced accuracy of a threshold on log-densities, tuned on both datasets",
        (DensityEstimator, TwoStep),
        "it has no density",
        needs="volume",
    ),
    OODAccuracy(
        "likelihood_ood_acc_low_dim",
        "OOD detection: the same on log-densities of embeddings",
        (TwoStep,),
        "only two-step models have it",
    ),
):
    METRICS.register(_metric.name)(_metric)


def asks_for_ood(names: Iterable[str]) -> bool:
    """Return whether one of these metrics is a figure of OOD detection."""
    return any(isinstance(METRICS[name], OODAccuracy) for name in names)


@dataclass(frozen=True)
class OODComparison:
    """Names of a model's own dataset and another one, whose splits and figures have names that end in `label`."""

    own: str
    other: str
    label: str = ""


def comparisons(own: Splits, others: Mapping[str, Splits]) -> list[OODComparison]:
    """Return the comparisons with the other datasets, labelled by their keys if there are several."""
    return [
        OODComparison(own.spec.name, splits.spec.name, f"@{name}" if len(others) > 1 else "")
        for name, splits in others.items()
    ]


def rows_to_score(own: Splits, others: Mapping[str, Splits]) -> dict[str, Tensor]:
    """Return the rows to score by split: `in_train`, `in_valid` if there are enough, `in_test`, `ood_train`, ..."""
    enough = own.valid is not None and len(own.valid) >= MIN_ROWS
    rows = {"in_train": own.train, "in_valid": own.valid if enough else None, "in_test": own.test}
    for comparison, other in zip(comparisons(own, others), others.values(), strict=True):
        rows |= {f"ood_train{comparison.label}": other.train, f"ood_test{comparison.label}": other.test}
    return {name: subsample(data, MAX_ROWS) for name, data in rows.items() if data is not None}


def calibrate(model: nn.Module, scored: Scores, seed: int) -> tuple[Scores, Scores]:
    """Return the scores by name and split, with the two-part score, and the p-values of test rows likewise.

    Without validation rows the scores are returned unchanged, without p-values.
    """
    splits = list(next(iter(scored.values())))
    if "in_valid" not in splits:
        return scored, {}
    by_split = {split: {name: rows[split] for name, rows in scored.items()} for split in splits}
    calibrator = ConformalCalibrator(model, by_split.pop("in_valid"), seed)
    tested = [split for split in by_split if split.startswith(("in_test", "ood_test"))]
    found = {split: calibrator.p_values(by_split[split]) for split in tested}
    p_values = {name: {split: found[split][name] for split in found} for name in found["in_test"]}
    if calibrator.two_part is not None:
        scored = scored | {TWO_PART.name: {split: calibrator.two_part.score(rows) for split, rows in by_split.items()}}
    return scored, p_values


def detection(
    model: nn.Module, scores: Scores, p_values: Scores, comparison: OODComparison, seed: int
) -> dict[str, Result]:
    """Return how well each score, from `calibrate`, separates the test rows of two datasets."""
    results: dict[str, Result] = {}
    for score in (*scores_of(model), NEAREST_SCORE, KNN, KNN_LATENT, TWO_PART):
        found: dict[str, Result] = {}
        if score.name in scores:
            found |= _figures(scores[score.name], comparison, seed, with_accuracy=bool(score.kind))
        if score.name in p_values:
            held_out = len(next(iter(scores.values()))["in_valid"])
            found |= _rates(p_values[score.name], held_out // 2 if score is TWO_PART else held_out, comparison)
        for name, result in found.items():
            figure = f"{score.figure.format(name)}{comparison.label}"
            results[figure] = replace(result, kind=score.kind, measure=score.measure)
    return results


def _figures(rows: Mapping[str, Array], comparison: OODComparison, seed: int, with_accuracy: bool) -> dict[str, Result]:
    mine = {split: rows[split] for split in ("in_train", "in_test")}
    mine |= {split: rows[f"{split}{comparison.label}"] for split in ("ood_train", "ood_test")}
    in_train, in_test, ood_train, ood_test = (finite(values) for values in mine.values())
    figures = {name: (one.value, one.interval) for name, one in detection_figures(in_test, ood_test, seed).items()}
    if with_accuracy:
        figures = {"acc": (stump((in_train, in_test), (ood_train, ood_test))[1], None), **figures}
    n = len(in_test) + len(ood_test)
    share = len(in_test) / n
    tuned = f"threshold tuned on training rows of both, also of {comparison.other}"
    about = {
        "acc": ("balanced accuracy", f"uses OOD data: {tuned}; chance 0.5"),
        "auroc": ("area under the ROC curve", "chance 0.5"),
        "aupr": ("average precision", f"in-distribution rows are positives, chance {share:.3g}"),
        "aupr_out": ("average precision", f"OOD rows are positives, chance {1 - share:.3g}"),
        "fpr95": ("of OOD rows", "at the threshold that keeps 95 % of in-distribution rows, chance 0.95"),
    }
    direction, odd = f"{comparison.own} against {comparison.other}; in-distribution = higher score", ""
    for split, values in mine.items():
        for what, test in (("+inf, highest", np.isposinf), ("-inf, lowest", np.isneginf), ("NaN, lowest", np.isnan)):
            count = test(values).sum()
            odd += f"; {count:,} scores of {split}: {what}" if count else ""
    return {
        name: Result(value, about[name][0], n, note=f"{direction}; {about[name][1]}{odd}", interval=interval)
        for name, (value, interval) in figures.items()
    }


def _rates(p_values: Mapping[str, Array], calibrated_on: int, comparison: OODComparison) -> dict[str, Result]:
    results: dict[str, Result] = {}
    deviation = float(np.sqrt(LEVEL * (1 - LEVEL) / calibrated_on))  # see `conformal`
    expected = f"expected {LEVEL:g} ± {deviation:.2g} with {calibrated_on:,} validation rows"
    for name, split, dataset, about in (
        ("false_positive_rate", "in_test", comparison.own, expected),
        ("detection_rate", f"ood_test{comparison.label}", comparison.other, f"chance {LEVEL:g}"),
    ):
        n, share = len(p_values[split]), float((p_values[split] <= LEVEL).mean())
        note = f"rows of {dataset} with a conformal p-value <= {LEVEL:g}, calibrated on validation rows only; {about}"
        results[name] = Result(share, "of test rows", n, float(np.sqrt(share * (1 - share) / n)), note=note)
    return results
