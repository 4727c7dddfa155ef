"""`IntrinsicDimension`: the estimates of `diagnose` as an estimator."""

import numpy as np
import pandas as pd
import pytest

from helpers.estimators import circle
from twostep.core.schema import UserError
from twostep.diagnosis import dimension_of
from twostep.estimators import IntrinsicDimension

X = circle(400)


def test_the_consensus_is_that_of_the_diagnosis():
    found, expected = IntrinsicDimension(random_state=0).fit(X), dimension_of(X, seed=0)
    assert (found.dimension_, found.interval_) == (expected.recommended, (expected.low, expected.high))
    assert found.n_features_in_ == 3
    assert any("maximum likelihood" in reason for reason in found.reasons_)


@pytest.mark.parametrize("method", ["mle", "twonn", "pca"])
def test_a_single_method_gives_its_estimate_and_interval(method):
    noiseless = np.stack([X[:, 0], X[:, 0] ** 2, np.exp(X[:, 0])], 1)  # a curve
    found = IntrinsicDimension(method, random_state=0).fit(noiseless)
    low, high = found.interval_
    assert low <= found.dimension_ <= high
    assert found.dimension_ == pytest.approx(1, abs=0.3)


def test_few_rows_have_linear_dimensions_and_all_that_are_possible():
    flat = np.random.default_rng(0).normal(size=(30, 2)) @ np.random.default_rng(1).normal(size=(2, 6))
    found = IntrinsicDimension().fit(flat)
    assert (found.dimension_, found.interval_) == (2, (1, 6))


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="method='two'"):
        IntrinsicDimension("two").fit(X)


def test_the_dimension_around_each_row_is_given():
    found = IntrinsicDimension(random_state=0).fit(X)
    assert found.local_.shape == found.local_errors_.shape == (400,)
    assert np.median(found.local_) == pytest.approx(1, abs=0.6)
    few = IntrinsicDimension().fit(X[:20])
    assert (few.local_ == few.dimension_).all()


def test_columns_of_other_units_are_standardised():
    wide = X * [1, 1000, 1]
    found, expected = (IntrinsicDimension("mle", random_state=0).fit(rows) for rows in (wide, X))
    assert found.reasons_[-1] == "columns were standardised"
    assert found.dimension_ == pytest.approx(expected.dimension_, abs=0.2)
    assert expected.reasons_[-1] != found.reasons_[-1]
    assert IntrinsicDimension("mle", preprocessing=None, random_state=0).fit(wide).dimension_ != found.dimension_


def test_a_frame_with_words_and_gaps_has_the_dimension_of_its_features():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=300), "word": random.choice(["x", "y"], 300)})
    frame["b"] = frame["a"] ** 3
    frame.loc[::10, "b"] = np.nan
    found = IntrinsicDimension(random_state=0).fit(frame)
    assert found.dimension_ <= 2
    assert found.local_.shape == (300,)
    assert list(found.feature_names_in_) == list(frame)
    with pytest.raises(UserError, match=r"contains NaN: .*pandas"):
        IntrinsicDimension().fit(frame[["a", "b"]].to_numpy())
