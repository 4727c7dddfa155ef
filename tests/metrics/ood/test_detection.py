"""Detection figures against closed forms, brute force, scikit-learn and planted mistakes; their intervals cover."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from sklearn import metrics

from helpers.known_models import SPLITS, normal, rows
from twostep.metrics.ood import detection
from twostep.metrics.ood.detection import auroc, detection_figures, stump


def figures_of(scored):
    found = detection_figures(scored["in_test"], scored["ood_test"], seed=0)
    pairs = [tuple(scored[f"{kind}_{split}"] for split in ("train", "test")) for kind in ("in", "ood")]
    return {name: figure.value for name, figure in found.items()} | {"acc": stump(*pairs)[1]}


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n_out", [4000, 400])
def test_figures_of_two_normal_distributions_are_those_of_the_closed_form(gap, n_out):
    figures = figures_of(rows(gap, n_out=n_out))
    standard = NormalDist()
    error = 4 * math.sqrt(0.25 / n_out)
    assert figures["auroc"] == pytest.approx(standard.cdf(gap / math.sqrt(2)), abs=error)
    assert figures["fpr95"] == pytest.approx(1 - standard.cdf(gap + standard.inv_cdf(0.05)), abs=error)
    if gap:
        # the best threshold lies half-way, also where one set is ten times the other
        assert figures["acc"] == pytest.approx(standard.cdf(gap / 2), abs=error)
    else:
        assert figures["aupr"] == pytest.approx(4000 / (4000 + n_out), abs=error)


def test_figures_are_those_of_brute_force():
    scored = {key: np.round(values[:60], 1) for key, values in rows(0.7).items()}
    figures = figures_of(scored)
    inside, outside = scored["in_test"], scored["ood_test"]
    wins = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    assert figures["auroc"] == pytest.approx(wins, abs=1e-12)
    thresholds = sorted({*inside, *outside}, reverse=True)
    kept = next(t for t in thresholds if (inside >= t).mean() >= 0.95)
    assert figures["fpr95"] == pytest.approx((outside >= kept).mean(), abs=1e-12)
    recalls = [0, *((inside >= t).mean() for t in thresholds)]
    precisions = [(inside >= t).sum() / ((inside >= t).sum() + (outside >= t).sum()) for t in thresholds]
    assert figures["aupr"] == pytest.approx(np.dot(np.diff(recalls), precisions), abs=1e-12)
    assert figures["acc"] == pytest.approx(
        ((inside > best_split(scored)).mean() + (outside <= best_split(scored)).mean()) / 2
    )


def best_split(scored):
    """Find by trial the threshold of least Gini impurity, the two sets weighted alike."""
    inside, outside = scored["in_train"], scored["ood_train"]
    values = np.unique(np.concatenate([inside, outside]))
    middles = (values[1:] + values[:-1]) / 2

    def impurity(threshold):
        total = 0.0
        for side in (np.greater, np.less_equal):
            a, b = side(inside, threshold).mean(), side(outside, threshold).mean()
            total += 2 * a * b / (a + b)
        return total

    return min(middles, key=impurity)


def test_an_anti_correlated_density_is_not_negated():
    figures = figures_of(rows(-2.0))
    assert figures["auroc"] < 0.1
    assert figures["acc"] < 0.2
    assert figures["fpr95"] > 0.99


def test_the_threshold_is_tuned_on_training_rows_alone():
    scored = rows(2.0)
    scored["in_train"], scored["ood_train"] = scored["in_train"] + 100, scored["ood_train"] + 100
    figures = figures_of(scored)
    assert figures["acc"] == 0.5  # no test row comes near the threshold of such training rows
    assert figures["auroc"] > 0.9


def test_equal_scores_are_chance():
    figures = figures_of({split: np.zeros(20) for split in SPLITS})
    assert figures == {"acc": 0.5, "auroc": 0.5, "aupr": 0.5, "aupr_out": 0.5, "fpr95": 1.0}


def test_figures_are_those_of_scikit_learn():
    inside, outside = (np.round(values[:500], 1) for values in (normal(500, 1), normal(300, 0, seed=1)))
    figures = detection_figures(inside, outside, seed=0)
    labels, scores = np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
    assert figures["auroc"].value == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert figures["aupr"].value == pytest.approx(metrics.average_precision_score(labels, scores), abs=1e-12)
    assert figures["aupr_out"].value == pytest.approx(metrics.average_precision_score(1 - labels, -scores), abs=1e-12)
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert figures["fpr95"].value == pytest.approx(false[true >= 0.95].min(), abs=1e-12)


# ---- intervals


@pytest.mark.parametrize(("gap", "n"), [(0.0, 40), (1.0, 60), (2.5, 100)])
def test_delongs_interval_covers_the_truth_as_often_as_it_says(gap, n):
    truth, random = NormalDist().cdf(gap / math.sqrt(2)), np.random.default_rng(0)
    trials = [auroc(random.normal(gap, 1, n), random.normal(0, 1, 2 * n)).interval for _ in range(600)]
    covered = np.mean([low <= truth <= high for low, high in trials])
    assert 0.92 < covered < 0.985


def test_delongs_variance_is_that_of_the_pairs():
    inside, outside = np.round(normal(30, 1), 1), np.round(normal(40, 0, seed=1), 1)
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    variance = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 40
    found = auroc(inside, outside)
    area, low, high = found.value, found.low, found.high
    half = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    assert [math.log(limit / (1 - limit)) - math.log(area / (1 - area)) for limit in (low, high)] == pytest.approx(
        [-half, half], rel=1e-9
    )


def test_separated_sets_have_an_uncertain_auroc():
    found = auroc(np.arange(10.0), np.arange(-20.0, -5))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025**0.1)
    assert auroc(np.arange(-20.0, -5), np.arange(10.0)).interval == (0.0, pytest.approx(1 - 0.025**0.1))


@pytest.mark.cmd
def test_bootstrap_intervals_cover_and_repeat(monkeypatch):
    monkeypatch.setattr(detection, "RESAMPLES", 100)
    standard, gap = NormalDist(), 1.5
    truth = 1 - standard.cdf(gap + standard.inv_cdf(0.05))
    covered = []
    for trial in range(60):
        inside, outside = normal(200, gap, seed=2 * trial), normal(200, 0, seed=2 * trial + 1)
        low, high = detection_figures(inside, outside, seed=trial)["fpr95"].interval
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.85
    first, again, other = (detection_figures(inside, outside, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["fpr95"].value == other["fpr95"].value
    assert first["fpr95"].interval != other["fpr95"].interval


def test_intervals_of_nearly_separated_sets_cover(monkeypatch):
    monkeypatch.setattr(detection, "RESAMPLES", 100)
    standard, gap, n = NormalDist(), 5.0, 100
    scores = np.linspace(-8, gap + 8, 20001)
    recall, false_positives = (1 - np.vectorize(standard.cdf)(scores - shift) for shift in (gap, 0.0))
    precision = recall / np.maximum(recall + false_positives, 1e-300)
    area = -float(np.trapezoid(precision, recall))
    truths = {"aupr": area, "aupr_out": area, "fpr95": 1 - standard.cdf(gap + standard.inv_cdf(0.05))}
    random = np.random.default_rng(0)
    trials = [detection_figures(random.normal(gap, 1, n), random.normal(0, 1, n), seed) for seed in range(30)]
    for name, truth in truths.items():
        assert np.mean([low <= truth <= high for low, high in (trial[name].interval for trial in trials)]) > 0.9, name


def test_intervals_shrink_as_the_root_of_the_rows():
    few, many = (detection_figures(normal(n, 1), normal(n, 0, seed=1), seed=0) for n in (250, 4000))
    for name in few:
        ratio = np.ptp(few[name].interval) / np.ptp(many[name].interval)
        assert 2.5 < ratio < 6.5, name
