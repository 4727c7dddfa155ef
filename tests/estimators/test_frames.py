"""Frames with words, gaps and dates: rows of the original names, types and order come back."""

import pickle

import numpy as np
import pandas
import polars
import pytest

from helpers.estimators import DE, GAE, two_step
from twostep.core.schema import UserError
from twostep.estimators import TwoStepOutlierDetector

RANDOM = np.random.default_rng(0)
SIZE = RANDOM.normal(size=80)
FRAME = pandas.DataFrame(
    {
        "size": np.where(np.arange(80) % 9 == 0, np.nan, SIZE),
        "colour": pandas.Series(np.where(SIZE > 0, "red", "blue"), dtype="str"),
        "count": RANDOM.poisson(4, 80),
        "flag": SIZE > 1,
    }
)


@pytest.fixture(scope="module")
def fitted():
    return two_step(gae="vae", latent_dim="auto").fit(FRAME)


def test_samples_and_reconstructions_are_rows_of_the_frame(fitted):
    for rows in (fitted.sample(20, random_state=0), fitted.inverse_transform(fitted.transform(FRAME))):
        assert list(rows.columns) == list(FRAME.columns)
        assert (rows.dtypes == FRAME.dtypes).all()
        assert set(rows["colour"].dropna()) <= {"red", "blue"}
    assert list(fitted.feature_names_in_) == list(FRAME.columns)


def test_scores_take_the_frame_in_any_library(fitted):
    scores = fitted.score_samples(FRAME)
    assert scores.shape == (80,)
    assert np.isfinite(scores).all()
    assert fitted.likelihood_ == "bound"
    assert np.array_equal(fitted.reconstruction_error(polars.from_pandas(FRAME)), fitted.reconstruction_error(FRAME))
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).score_samples(FRAME), scores)


def test_a_detector_takes_it_too():
    found = TwoStepOutlierDetector("vae", gae_config=GAE, de_config=DE, calibration="split", validation_fraction=0.3)
    found.set_params(random_state=0, device="cpu", alpha=0.2).fit(FRAME)
    assert found.predict(FRAME[:5]).shape == (5,)
    assert found.p_values(FRAME).min() >= found.smallest_p_value_


def test_other_columns_are_refused(fitted):
    with pytest.raises(ValueError, match="colour"):
        fitted.score_samples(FRAME.drop(columns="colour"))
    with pytest.raises(UserError, match="frame"):
        fitted.score_samples(np.zeros((3, 4)))
    with pytest.raises(UserError, match="run_dir"):
        two_step(gae="vae", run_dir="run").fit(FRAME)
