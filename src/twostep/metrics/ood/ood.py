"""Out-of-distribution detection: do a model's scores tell its test rows from those of other data sets?

Every score has the direction *in-distribution = higher*, and none of the figures turns it round.

    <score>_ood_auroc, _aupr, _aupr_out, _fpr95   see `detection`: no threshold, no tuning
    <score>_ood_false_positive_rate               in-distribution rows with a conformal p-value <= 0.05, see `conformal`
    <score>_ood_detection_rate                    OOD rows with such a p-value; calibrated on validation rows only
    likelihood_ood_acc[_low_dim]                  the reference's accuracy of a decision stump, which has seen OOD data

where <score> is `likelihood` (a log-density; `..._low_dim`: that of embeddings), `distance` (to the manifold) or
`two_part` (both). A log-density on a learned manifold is that of a point's projection: far outliers can have high ones.

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172), for the stump and the two densities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from twostep.data.base import Splits
from twostep.data.batches import subsample
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.ood.calibrator import TWO_PART, ConformalCalibrator
from twostep.metrics.ood.conformal import FEWEST
from twostep.metrics.ood.detection import Figure, detection_figures, stump
from twostep.metrics.ood.scores import MAX_ROWS, Array, Score, finite, scores_of
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep

DIRECTION = "in-distribution = higher score"
LEVEL = 0.05


class OODAccuracy(Metric):
    """A figure of the OOD test: named in `test_metrics`, it asks for that test, which gives all of its figures."""

    lower_is_better = False

    def __init__(self, name: str, summary: str, models: tuple[type[nn.Module], ...], refused: str) -> None:
        self.name, self.summary = name, summary
        self._models, self._refused = models, refused

    @property
    def stops(self) -> bool:
        """Never: validation has no other data set."""
        return False

    def refusal(self, model: nn.Module) -> str:
        """Refuse models without such a density."""
        return "" if isinstance(model, self._models) else self._refused


for metric in (
    OODAccuracy(
        "likelihood_ood_acc",
        "balanced accuracy of a threshold on log-densities, tuned on both data sets",
        (DensityEstimator, TwoStep),
        "it has no density",
    ),
    OODAccuracy(
        "likelihood_ood_acc_low_dim",
        "the same on log-densities of embeddings",
        (TwoStep,),
        "it is one of a two-step model",
    ),
):
    METRICS.register(metric.name)(metric)


def asks_for_ood(names: Iterable[str]) -> bool:
    """Whether one of these metrics is a figure of the OOD test."""
    return any(isinstance(METRICS[name], OODAccuracy) for name in names)


@dataclass(frozen=True)
class OODComparison:
    """Names of one comparison.

    Args:
        own: the data set that the model was trained on.
        other: the data set that it is told from.
        label: what distinguishes the names of its splits and figures; empty if there is no other comparison.
    """

    own: str
    other: str
    label: str = ""

    def split(self, name: str) -> str:
        """Return the name of a split of the other set: `ood_train` or `ood_test`, labelled."""
        return f"ood_{name}{self.label}"


def comparisons(own: Splits, others: Mapping[str, Splits]) -> list[OODComparison]:
    """Return the comparisons with each of the other sets; their labels are the keys where there are several."""
    return [
        OODComparison(own.spec.name, splits.spec.name, f"@{name}" if len(others) > 1 else "")
        for name, splits in others.items()
    ]


def rows_to_score(own: Splits, others: Mapping[str, Splits]) -> dict[str, Tensor]:
    """Return the rows to score by split: `in_train`, `in_valid` if there are enough, `in_test`, `ood_train`, ..."""
    rows = {"in_train": own.train, "in_valid": own.valid, "in_test": own.test}
    for against, other in zip(comparisons(own, others), others.values(), strict=True):
        rows |= {against.split("train"): other.train, against.split("test"): other.test}
    if own.valid is None or len(own.valid) < FEWEST:
        rows["in_valid"] = None
    return {name: subsample(data, MAX_ROWS) for name, data in rows.items() if data is not None}


def calibrate(
    model: nn.Module, scored: Mapping[str, Mapping[str, Array]], seed: int
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
    """Return the scores by name and split, the two-part score among them, and the p-values of test rows likewise.

    Without validation rows the scores come back as they are, and there are no p-values.
    """
    scores = {name: dict(rows) for name, rows in scored.items()}
    held_out = {name: rows["in_valid"] for name, rows in scores.items() if "in_valid" in rows}
    if not held_out:
        return scores, {}
    judge = ConformalCalibrator.of(model, held_out, seed)
    by_split = {
        split: {name: rows[split] for name, rows in scored.items()}
        for split in next(iter(scored.values()))
        if split != "in_valid"
    }
    found = {
        split: judge.p_values(rows) for split, rows in by_split.items() if split.startswith(("in_test", "ood_test"))
    }
    p_values = {name: {split: found[split][name] for split in found} for name in found["in_test"]}
    if judge.two_part is not None:
        scores[TWO_PART.name] = {split: judge.two_part_score(rows) for split, rows in by_split.items()}
    return scores, p_values


def detection(
    model: nn.Module,
    scores: Mapping[str, Mapping[str, Array]],
    p_values: Mapping[str, Mapping[str, Array]],
    against: OODComparison,
    seed: int,
) -> dict[str, Result]:
    """Return how well each score tells the test rows of two sets apart.

    Args:
        model: whose scores these are.
        scores: by score and split, what `judged` returned.
        p_values: of test rows, what `judged` returned.
        against: what is compared.
        seed: of the bootstrap.
    """
    results: dict[str, Result] = {}
    for score in (*scores_of(model), TWO_PART):
        if score.name in scores:
            rows = scores[score.name]
            results |= _told_apart(score, rows, against, seed)
            if score.name in p_values:
                held_out = len(next(iter(scores.values()))["in_valid"])
                calibrated_on = held_out // 2 if score is TWO_PART else held_out
                results |= _alarms(score, p_values[score.name], calibrated_on, against)
    return results


def _told_apart(score: Score, rows: Mapping[str, Array], against: OODComparison, seed: int) -> dict[str, Result]:
    names = {"in_train": "in_train", "in_test": "in_test"} | {
        f"ood_{name}": against.split(name) for name in ("train", "test")
    }
    mine = {name: rows[split] for name, split in names.items()}
    clipped = {name: finite(values) for name, values in mine.items()}
    odd = _not_finite(mine)
    n = len(mine["in_test"]) + len(mine["ood_test"])
    share = len(mine["in_test"]) / n

    def result(figure: Figure, unit: str, note: str) -> Result:
        about = f"{against.own} against {against.other}; {DIRECTION}; {note}{odd}"
        value, interval = figure
        return Result(value, unit, n, kind=score.kind, measure=score.measure, note=about, interval=interval)

    figures = detection_figures(clipped["in_test"], clipped["ood_test"], seed)
    found = {
        "auroc": result(figures["auroc"], "area under the ROC curve", "chance 0.5"),
        "aupr": result(figures["aupr"], "average precision", f"in-distribution rows are positives, chance {share:.3g}"),
        "aupr_out": result(figures["aupr_out"], "average precision", f"OOD rows are positives, chance {1 - share:.3g}"),
        "fpr95": result(figures["fpr95"], "of OOD rows", "those kept beside 95 % of in-distribution rows, chance 0.95"),
    }
    if score.kind:
        accuracy = stump(
            (clipped["in_train"], clipped["in_test"]), (clipped["ood_train"], clipped["ood_test"])
        ).accuracy
        tuned = f"uses OOD data: threshold tuned on training rows of both, also of {against.other}; chance 0.5"
        found = {"acc": result(Figure(accuracy, None), "balanced accuracy", tuned)} | found
    return {f"{score.figure.format(name)}{against.label}": value for name, value in found.items()}


def _alarms(
    score: Score, p_values: Mapping[str, Array], calibrated_on: int, against: OODComparison
) -> dict[str, Result]:
    results: dict[str, Result] = {}
    choice = float(np.sqrt(LEVEL * (1 - LEVEL) / calibrated_on))  # see `conformal`
    expected = f"expected {LEVEL:g} ± {choice:.2g} by the choice of {calibrated_on:,} validation rows"
    for name, split, whose, told in (
        ("false_positive_rate", "in_test", f"{against.own}'s", expected),
        ("detection_rate", against.split("test"), f"{against.other}'s", f"chance {LEVEL:g}"),
    ):
        alarms = p_values[split] <= LEVEL
        note = f"{whose} rows with a conformal p-value <= {LEVEL:g}, from validation rows alone; {told}"
        error = float(np.sqrt(alarms.mean() * (1 - alarms.mean()) / len(alarms)))
        results[f"{score.figure.format(name)}{against.label}"] = Result(
            float(alarms.mean()), "of test rows", len(alarms), error, score.kind, score.measure, note
        )
    return results


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
