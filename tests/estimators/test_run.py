"""A fit with `run_dir`: the run that the same keys and seed give, which everything for runs opens."""

import csv

import numpy as np
import pytest
from torch import nn

import twostep
from helpers.estimators import DE, GAE, circle, density, two_step
from helpers.toys import same
from twostep.core.schema import UserError
from twostep.estimators import TwoStepOutlierDetector
from twostep.models import Autoencoder

X = circle(200)


def test_a_run_is_written_that_is_the_same_model(tmp_path):
    fitted = two_step(run_dir=tmp_path / "run").fit(X)
    assert np.array_equal(fitted.score_samples(X), two_step().fit(X).score_samples(X))
    module, trainer, (train, valid, _) = twostep.load_run(np.str_(tmp_path / "run"), device="cpu")
    assert trainer.de.finished
    assert sorted(len(part.data) for part in (train, valid)) == [20, 180]
    assert same(module.state_dict(), fitted.model_.state_dict())
    assert twostep.load_module(np.str_(tmp_path / "run")).gae.latent_dim == 2


def test_a_run_of_a_density_alone_opens(tmp_path):
    fitted = density(run_dir=str(tmp_path / "run"), validation_fraction=0.25).fit(X)
    module = twostep.load_module(tmp_path / "run")
    assert same(module.state_dict(), fitted.model_.state_dict())
    assert len(twostep.load_run(tmp_path / "run").loaders[1].data) == 50


def test_a_detector_gives_the_p_values_and_verdicts_of_score(tmp_path, twostep):
    keys = {"gae_config": GAE, "de_config": DE, "latent_dim": 2, "random_state": 0, "device": "cpu"}
    detector = TwoStepOutlierDetector(calibration="split", alpha=0.2, run_dir=tmp_path / "run", **keys).fit(X)
    new = np.concatenate([circle(30, seed=1), circle(10, seed=2) + 0.4]).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    to = tmp_path / "scores.csv"
    outcome = twostep("score", tmp_path / "run", tmp_path / "new.npy", "--alpha", 0.2, "--to", to)
    assert outcome.status == 0, outcome.err
    with to.open() as file:
        rows = list(csv.DictReader(file))
    found = {name: np.array([float(row[name]) for row in rows]) for name in ("p_value", "log_prob")}
    np.testing.assert_allclose(found["p_value"], detector.p_values(new), atol=1e-6)
    np.testing.assert_allclose(found["log_prob"], detector.score_components(new)["log_prob"], rtol=1e-3, atol=1e-3)
    assert [row["verdict"] == "out" for row in rows] == (detector.predict(new) == -1).tolist()


def test_a_folder_that_exists_and_objects_are_refused(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    with pytest.raises(UserError, match="kept"):
        two_step(run_dir=tmp_path / "kept").fit(X)
    own = Autoencoder(nn.Linear(3, 2), nn.Linear(2, 3), 2)
    with pytest.raises(UserError, match="run_dir"):
        two_step(gae=own, gae_config=None, run_dir=tmp_path / "run").fit(X)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
