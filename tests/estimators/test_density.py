"""`TwoStepDensity` and `DensityModel`: arrays and frames in, densities, embeddings and samples out."""

import logging
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.estimators import DE, GAE, circle, density, two_step
from twostep.core.schema import UserError
from twostep.estimators import DensityModel, TwoStepDensity
from twostep.models import Autoencoder, Couplings, Flow, vector_layers
from twostep.models.ae import AutoencoderConfig
from twostep.nn.transforms import Chain, Whiten

X = circle(120)


@pytest.fixture(scope="module")
def fitted():
    return two_step().fit(X)


@pytest.fixture(scope="module")
def by_half():
    """An estimator with a density for each half of the circle, right and left, and the labels of its rows."""
    y = np.where(X[:, 0] > 0, "right", "left")
    model = two_step(gae=PCA(2), gae_config=None, de="gmm", de_config={"condition": "label"})
    return model.fit(X, y), y


def test_a_density_is_conditioned_on_labels_by_their_names(by_half):
    model, y = by_half
    assert model.classes_.tolist() == ["left", "right"]
    each = np.stack([model.score_samples(X, name) for name in model.classes_], 1)
    np.testing.assert_allclose(model.score_samples(X, y), each[np.arange(len(X)), (y == "right").astype(int)])
    kept = np.delete(np.arange(len(X)), model.held_out_)
    shares = np.array([(y[kept] == name).mean() for name in model.classes_])
    np.testing.assert_allclose(model.score_samples(X), np.logaddexp(*(each + np.log(shares)).T), atol=1e-5)
    assert (model.classes_[each.argmax(1)] == y).mean() > 0.9
    wanted = np.repeat(["left", "right"], 100)
    side = model.sample(200, random_state=0, y=wanted)[:, 0]
    assert ((side > 0) == (wanted == "right")).mean() > 0.75  # Gaussians of half circles overlap
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.sample(5, random_state=0, y="left"), model.sample(5, random_state=0, y="left"))


def test_labels_are_refused_where_there_are_none_or_others(by_half, fitted):
    model, y = by_half
    for wrong in ("up", y[:5], 3):
        with pytest.raises(UserError, match="label"):
            model.score_samples(X, wrong)
    for call in (lambda: fitted.sample(3, y="left"), lambda: fitted.score_samples(X, y)):
        with pytest.raises(UserError, match="condition=label"):
            call()
    for wrong in (None, y[:5]):
        with pytest.raises(UserError, match="give y"):
            clone(model).fit(X, wrong)
    with pytest.raises(UserError, match="run_dir"):
        clone(model).set_params(run_dir="run").fit(X, y)


def test_without_the_key_labels_change_nothing(fitted):
    other = two_step().fit(X, np.arange(len(X)))
    np.testing.assert_array_equal(other.score_samples(X), fitted.score_samples(X))


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_scores_embeddings_and_samples_are_numpy_arrays(fitted):
    scores = fitted.score_samples(X)
    assert scores.shape == (120,)
    assert scores.dtype == np.float64
    assert fitted.score(X) == pytest.approx(scores.mean())
    z = fitted.transform(X)
    assert (z.shape, z.dtype) == ((120, 2), np.float64)
    assert fitted.inverse_transform(z).shape == X.shape
    assert fitted.sample(5, random_state=0).shape == (5, 3)
    assert np.array_equal(fitted.sample(5, random_state=0), fitted.sample(5, random_state=0))
    assert fitted.reconstruction_error(X[:1]).shape == (1,)
    assert fitted.latent_dim_ == fitted.gae_.latent_dim == 2
    assert fitted.likelihood_ == "exact"
    assert fitted.n_features_in_ == 3


def test_the_density_is_that_of_the_formula_in_the_units_of_the_rows(fitted):
    """log p(x) = log p(z) - ½ log det JᵀJ, with the Jacobian of the whole way back to the units of X."""
    z = torch.from_numpy(fitted.transform(X[:4]))
    gae, de = fitted._double.gae, fitted._double.de
    with torch.no_grad():
        for row, (point, score) in enumerate(zip(z, fitted.score_samples(X[:4]), strict=True)):
            J = torch.autograd.functional.jacobian(lambda v: gae.decode(v[None])[0], point)
            expected = de.log_prob(point[None])[0] - 0.5 * torch.logdet(J.T @ J)
            assert score == pytest.approx(float(expected), abs=1e-6), row


def test_other_units_shift_the_log_density_by_the_jacobian():
    """Columns in other units: the same model, whose densities have the units' Jacobian; errors are unit-free."""
    scale = 8.0  # a power of two, so that the standardised rows are the same bits
    one, two = two_step().fit(X), two_step().fit(scale * X)
    np.testing.assert_allclose(two.score_samples(scale * X), one.score_samples(X) - 2 * np.log(scale), atol=1e-4)
    np.testing.assert_allclose(two.reconstruction_error(scale * X), one.reconstruction_error(X), rtol=1e-4)
    alone, scaled = density().fit(X), density().fit(scale * X)
    np.testing.assert_allclose(scaled.score_samples(scale * X), alone.score_samples(X) - 3 * np.log(scale), atol=1e-4)


def test_a_seed_fixes_everything_and_other_generators_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = two_step().fit(X), two_step().fit(X)
    other = two_step(random_state=1).fit(X)
    one.sample(3, random_state=0)
    assert np.array_equal(one.score_samples(X), two.score_samples(X))
    assert not np.array_equal(one.score_samples(X), other.score_samples(X))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_fit_writes_and_prints_nothing_unless_asked(tmp_path, capfd, caplog):
    two_step(latent_dim="auto", schedule="by_epoch").fit(X)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not logging.getLogger("twostep").disabled
    two_step(verbose=1).fit(X)
    assert "epoch 1/2" in capfd.readouterr().out


def test_history_has_an_entry_for_each_epoch_of_each_model(fitted):
    assert [(entry["model"], entry["epoch"]) for entry in fitted.history_] == [
        ("gae", 1),
        ("gae", 2),
        ("de", 1),
        ("de", 2),
    ]
    assert all({"loss", "valid_loss"} <= entry.keys() for entry in fitted.history_)


@pytest.mark.parametrize("store", [pickle, "joblib"], ids=["pickle", "joblib"])
def test_a_stored_estimator_scores_the_same(fitted, store, tmp_path):
    if store == "joblib":
        joblib.dump(fitted, tmp_path / "model.joblib")
        again = joblib.load(tmp_path / "model.joblib")
    else:
        again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.score_samples(X), fitted.score_samples(X))
    assert np.array_equal(again.sample(3, random_state=0), fitted.sample(3, random_state=0))
    assert b"torch" not in pickle.dumps(fitted)


def test_frames_give_names_and_frames_come_back_where_asked():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    fitted = two_step().set_output(transform="pandas").fit(frame)
    assert list(fitted.feature_names_in_) == ["a", "b", "c"]
    assert list(fitted.transform(frame).columns) == ["twostepdensity0", "twostepdensity1"]
    assert list(fitted.sample(2, random_state=0).columns) == ["a", "b", "c"]
    assert list(fitted.inverse_transform(fitted.transform(frame)).columns) == ["a", "b", "c"]
    fitted.set_output(transform="polars")
    table = polars.DataFrame(dict(zip("abc", X.T, strict=True)))
    assert isinstance(fitted.sample(2), polars.DataFrame)
    assert np.array_equal(fitted.score_samples(table), fitted.score_samples(frame))
    with pytest.raises(ValueError, match="feature names"):
        fitted.score_samples(frame[["b", "a", "c"]])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int32])
def test_rows_may_have_any_number_type(kind):
    rows = (100 * X).astype(kind)
    rows.flags.writeable = False
    fitted = two_step().fit(rows)
    wide = np.float32 if kind == np.float32 else np.float64
    assert fitted.transform(rows).dtype == fitted.sample(2).dtype == wide
    assert fitted.score_samples(rows).dtype == np.float64
    assert fitted.score_samples(rows[:1]).shape == (1,)


def test_scores_of_a_row_do_not_depend_on_the_rows_beside_it(fitted):
    alone = [fitted.score_samples(row[None])[0] for row in X[:5]]
    np.testing.assert_allclose(fitted.score_samples(X)[:5], alone, rtol=1e-9, atol=1e-9)


def test_a_transformer_of_scikit_learn_is_fitted_as_the_first_step():
    """As PCA of the standardised training rows, with its exact log-volume; that of the user is not touched."""
    rows, pca = X * [1, 10, 100], PCA(2)
    fitted = two_step(gae=pca, gae_config=None).fit(rows)
    known = np.delete(rows, fitted.held_out_, 0)
    scaled = StandardScaler().fit(known)
    own = PCA(2).fit(scaled.transform(known))
    z = fitted.transform(rows)
    assert np.abs(np.corrcoef(z.T, own.transform(scaled.transform(rows)).T)[:2, 2:]).max(1) == pytest.approx(
        1, abs=1e-4
    )
    back = scaled.inverse_transform(own.inverse_transform(own.transform(scaled.transform(rows))))
    assert fitted.inverse_transform(z) == pytest.approx(back, rel=1e-3, abs=1e-2)
    assert np.isfinite(fitted.score_samples(rows)).all()
    assert not hasattr(pca, "components_")
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).score_samples(rows), fitted.score_samples(rows))
    assert clone(fitted).get_params()["gae__n_components"] == 2
    with pytest.raises(UserError, match="numbers alone"):
        two_step(gae=pca, gae_config=None).fit(pd.DataFrame({"a": rows[:, 0], "b": ["x", "y"] * (len(rows) // 2)}))


def test_images_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    fitted = two_step(gae="vae").fit(images)
    assert fitted.sample(2).shape == (2, 1, 6, 6)
    assert fitted.inverse_transform(fitted.transform(images)).shape == images.shape
    assert fitted.spec_.discrete
    assert fitted.reconstruction_error(images).shape == (40,)
    with pytest.raises(ValueError, match="shape"):
        fitted.transform(images[..., :5])


def test_models_may_be_configs_or_objects_which_do_not_change():
    config = AutoencoderConfig(latent_dim=1, encoder_hidden_dims=(8,), max_epochs=2)
    fitted = TwoStepDensity(config, "flow", de_config=DE, random_state=0, device="cpu").fit(X)
    assert fitted.latent_dim_ == 1
    encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    gae = Autoencoder(encoder, nn.Linear(2, 3), 2, transform=Chain([Whiten((3,))]))
    de = Flow(vector_layers(2, Couplings(num_layers=1, hidden_units=4, num_blocks_per_layer=1)), (2,))
    before = [value.clone() for value in (*gae.state_dict().values(), *de.state_dict().values())]
    keys = {"gae_config": {"max_epochs": 2, "lr": 0.01}, "de_config": {"max_epochs": 2}}
    fitted = TwoStepDensity(gae, de, random_state=0, device="cpu", **keys).fit(X)
    after = (*gae.state_dict().values(), *de.state_dict().values())
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert not torch.equal(fitted.gae_.encoder[0].weight, encoder[0].weight)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.score_samples(X), fitted.score_samples(X))
    assert np.array_equal(clone(fitted).fit(X).score_samples(X), fitted.score_samples(X))


def test_it_is_searched_over_and_a_step_of_a_pipeline():
    search = GridSearchCV(two_step(), {"latent_dim": [2]}, cv=2).fit(X)
    assert search.best_params_ == {"latent_dim": 2}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipeline = make_pipeline(StandardScaler(), two_step(preprocessing=None)).fit(X)
    assert pipeline.score_samples(X[:3]).shape == (3,)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"gae": "vea"}, "did you mean vae"),
        ({"gae": "flow"}, "not an autoencoder"),
        ({"gae": 3}, "gae=3"),
        ({"de": nn.Linear(2, 2)}, "DensityEstimator"),
        ({"latent_dim": 9}, "latent_dim=9"),
        ({"latent_dim": "some"}, "latent_dim"),
        ({"gae_config": {"latnt_dim": 2}}, "did you mean latent_dim"),
        ({"gae_config": 3}, "gae_config=3"),
        ({"schedule": "both"}, "schedule='both'"),
        ({"preprocessing": "whiten"}, "preprocessing='whiten'"),
        ({"validation_fraction": 1.5}, "validation_fraction=1.5"),
    ],
)
def test_mistakes_are_one_line_and_value_errors(keys, says):
    with pytest.raises(UserError) as caught:
        two_step(**keys).fit(X)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_cannot_be_learned_are_refused_or_warned_of():
    with pytest.raises(ValueError, match="all rows"):
        two_step().fit(np.ones((30, 3)))
    with pytest.raises(ValueError, match="range of float32"):
        two_step().fit(X * 1e39)
    with pytest.raises(ValueError, match="NaN"):
        two_step().fit(np.where(X[3, 1] == X, np.nan, X))
    with pytest.warns(UserWarning, match="columns 0 vary too little"):
        two_step().fit(X + np.array([1e9, 0, 0]))


def test_a_density_alone_has_no_embeddings():
    fitted = density().fit(X)
    assert isinstance(fitted, DensityModel)
    assert not hasattr(fitted, "transform")
    assert fitted.score_samples(X).shape == (120,)
    assert fitted.sample(3).shape == (3, 3)
    assert fitted.de_ is fitted.model_


def test_a_constant_column_and_few_rows_are_taken():
    rows = np.column_stack([X, np.full(len(X), 7.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(two_step().fit(rows).score_samples(rows)).all()
        assert np.isfinite(two_step(latent_dim="auto").fit(X[:8]).score_samples(X)).all()
    assert GAE["max_epochs"] == 2


def test_auto_takes_the_dimension_or_half_of_the_columns_if_there_is_no_manifold():
    random = np.random.default_rng(0)
    keys = {"latent_dim": "auto", "de_config": {**DE, "max_epochs": 1}, "gae_config": {**GAE, "max_epochs": 1}}
    flat = random.normal(size=(200, 2)) @ random.normal(size=(2, 6))
    found = [two_step(**keys).fit(rows).latent_dim_ for rows in (flat, random.normal(size=(200, 6)))]
    assert found == [2, 3]
