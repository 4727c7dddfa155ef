"""`TwoStepOutlierDetector`: p-values, verdicts, and their calibration, split or crossed."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from helpers.estimators import DE, GAE, circle
from twostep.core.schema import UserError
from twostep.estimators import TwoStepOutlierDetector

X, NEW = circle(200), circle(100, seed=1)
FAR = circle(20, seed=2) + 3
TRAINED = {"gae_config": {**GAE, "max_epochs": 20, "lr": 0.02}, "batch_size": 90}


def detector(**keys):
    keys = {"latent_dim": 2, "device": "cpu", "random_state": 0, "gae_config": GAE, "de_config": DE, **keys}
    return TwoStepOutlierDetector(**keys)


@pytest.fixture(scope="module", params=["split", "cross"])
def fitted(request):
    return detector(calibration=request.param, alpha=0.1, **TRAINED).fit(X)


def test_the_number_of_models_and_the_smallest_p_value(fitted):
    crossed = fitted.calibration == "cross"
    assert len(fitted.densities_) == (5 if crossed else 1)
    assert fitted.smallest_p_value_ == pytest.approx(1 / 101 if crossed else 1 / 11)


def test_p_values_decide_at_alpha_and_far_rows_are_outliers(fitted):
    rows = np.concatenate([NEW, FAR])
    p = fitted.p_values(rows)
    assert np.array_equal(fitted.predict(rows), np.where(p <= 0.1, -1, 1))
    assert (fitted.predict(FAR) == -1).all()
    assert ((p >= fitted.smallest_p_value_ - 1e-12) & (p <= 1)).all()
    labels = np.repeat([0, 1], [len(NEW), len(FAR)])
    assert roc_auc_score(labels, -fitted.decision_function(rows)) > 0.99


def test_scores_have_the_order_of_p_values_and_no_ties(fitted):
    rows = np.concatenate([NEW, FAR])
    scores, p = fitted.score_samples(rows), fitted.p_values(rows)
    order = np.argsort(scores)
    assert (np.diff(p[order]) >= -1e-12).all()
    assert len(np.unique(scores)) == len(rows)
    np.testing.assert_allclose(fitted.decision_function(rows), scores - fitted.offset_)


def test_components_and_q_values(fitted):
    rows = np.concatenate([NEW, FAR])
    parts = fitted.score_components(rows)
    scores = {"log_prob", "log_prob_latent", "distance", "nearest_distance", "two_part"}
    assert parts.keys() == {*scores, *(f"p_value_{name}" for name in scores), "p_value"}
    assert parts["distance"][len(NEW) :].min() > parts["distance"][: len(NEW)].max()
    p, q = fitted.p_values(rows), fitted.q_values(rows)
    expected = [min(1, min(p[j] * len(p) / (p <= p[j]).sum() for j in np.flatnonzero(p >= one))) for one in p]
    np.testing.assert_allclose(q, expected)


def test_a_stored_detector_is_the_same(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.score_samples(NEW), fitted.score_samples(NEW))
    assert clone(fitted).get_params() == fitted.get_params()


def test_calibration_is_crossed_where_few_rows_are_below_the_level():
    folds = {n: len(detector(alpha=0.05)._folds(n, 0)) for n in (8, 12, 200, 960, 1000)}
    assert folds == {8: 2, 12: 3, 200: 5, 960: 5, 1000: 1}
    assert len(detector(alpha=0.01)._folds(1000, 0)) == 5
    held_out = np.concatenate(detector()._folds(57, 0))
    assert np.array_equal(np.sort(held_out), np.arange(57))


def test_contamination_sets_the_share_of_the_rows_themselves():
    rows = np.concatenate([X, FAR])
    found = detector(contamination=len(FAR) / len(rows), **TRAINED).fit(rows)
    assert len(found.densities_) == 5, "each row has a model that has not seen it"
    assert (found.predict(rows) == -1).sum() == len(FAR)
    labels = np.repeat([0, 1], [len(X), len(FAR)])
    assert roc_auc_score(labels, -found.training_scores_) > 0.95


def test_rows_of_the_fit_are_compared_with_the_others(fitted):
    distances = fitted.score_components(X)["nearest_distance"]
    assert (distances > 0).all()


def test_too_few_rows_for_the_level_are_warned_of():
    with pytest.warns(UserWarning, match="none is an outlier at alpha=0.01"):
        found = detector(alpha=0.01, calibration="split").fit(X)
    assert (found.predict(FAR) == 1).all()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"contamination": 0.7}, "contamination=0.7"),
        ({"calibration": "both"}, "calibration='both'"),
        ({"calibration": "split", "validation_fraction": 0.01}, "too few"),
        ({"run_dir": "run"}, "calibration='split'"),
        ({"gae": "vea"}, "did you mean vae"),
    ],
)
def test_mistakes_are_one_line(keys, says):
    with pytest.raises(UserError) as caught, warnings.catch_warnings():
        detector(**keys).fit(X)
    assert says in str(caught.value)
