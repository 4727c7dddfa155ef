"""The name FID: only the distance in Inception's features bears it, and a run keeps to what it started with."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch

from helpers.experiments import asked, trained
from helpers.feature_sets import feature_sets
from twostep.analysis.evaluate import evaluate_run
from twostep.core.keys import MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.experiment.prepare import resume, start
from twostep.metrics import evaluate
from twostep.metrics.features import choice as extractors
from twostep.metrics.features import inception
from twostep.metrics.features.base import Extractor
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.features.inception_network import network
from twostep.models import MODELS

PICTURES = DataSpec(name="pictures", shape=(1, 6, 6), size=60, low=0, high=255, discrete=True)
VECTORS = DataSpec(name="rows", shape=(3,), size=60, low=-9, high=9)


def unlabelled(spec):
    return Splits(spec, torch.zeros(8, *spec.shape), None, torch.zeros(8, *spec.shape))


@pytest.fixture
def weights(tmp_path):
    """Give a file of Inception's weights that takes little room."""
    path = tmp_path / "inception.pth"
    torch.save({name: torch.full((), 0.01).expand(one.shape) for name, one in network().state_dict().items()}, path)
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """Let means of rows of pixels stand in for Inception's features, and count how often they are made."""
    made = []

    def features(low, high, path):
        made.append(path)
        return Extractor("inception", "", "", lambda x: x.float().mean(3).flatten(1))

    monkeypatch.setattr(extractors, "inception", features)
    return made


# ---- the choice of features


def test_defaults_follow_from_the_data(monkeypatch):
    labels = torch.arange(8) % 2
    pictures, rows = torch.zeros(8, 1, 6, 6, dtype=torch.uint8), torch.zeros(8, 3)
    keys = MetricKeys.parse({}, "keys")
    labelled = Splits(PICTURES, pictures, None, pictures, labels)
    assert FeatureChoice(PICTURES, keys, labelled).name == "classifier"
    unlabelled = FeatureChoice(PICTURES, keys, Splits(PICTURES, pictures, None, pictures))
    assert unlabelled.name == "efficientnet-lite0"
    monkeypatch.setattr("twostep.metrics.features.choice.is_installed", lambda: False)
    assert unlabelled.name == "pca"
    assert FeatureChoice(VECTORS, keys, labelled).name == "standardised", "labels are not those of embeddings"
    assert FeatureChoice(VECTORS, keys, Splits(VECTORS, rows, None, rows, labels)).name == "standardised"


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("pixels", VECTORS.model_copy(update={"high": float("inf")}), "pixels: .* no finite range"),
        ("classifier", PICTURES, "features=classifier: pictures has no labels"),
        ("efficientnet-lite0", VECTORS, "features=efficientnet-lite0: rows has no images"),
        ("inception", VECTORS, "features=inception: rows has no images"),
        ("inception", PICTURES, "features=inception: its weights are missing: set inception_weights of metric_kwargs"),
    ],
)
def test_each_kind_says_what_it_lacks_before_there_are_training_batches(name, spec, says):
    with pytest.raises(UserError, match=says):
        FeatureChoice(spec, MetricKeys.parse({"features": name}, "keys"), unlabelled(spec)).check()


def test_missing_weights_are_looked_for_where_the_key_says_then_where_the_environment_does(weights, monkeypatch):
    keys = MetricKeys.parse({"features": "inception"}, "keys")
    monkeypatch.setenv("TWOSTEP_INCEPTION", "/nowhere/else.pth")
    with pytest.raises(UserError, match=r"inception: /nowhere/else\.pth: no such file"):
        FeatureChoice(PICTURES, keys, unlabelled(PICTURES)).check()
    both = MetricKeys.parse({"features": "inception", "inception_weights": str(weights)}, "keys")
    FeatureChoice(PICTURES, both, unlabelled(PICTURES)).check()
    monkeypatch.setenv("TWOSTEP_INCEPTION", str(weights))
    FeatureChoice(PICTURES, keys, unlabelled(PICTURES)).check()
    monkeypatch.chdir(weights.parent)
    assert MetricKeys.parse({"inception_weights": weights.name}, "keys").inception_weights == weights


# ---- what fid becomes


def config(spec=PICTURES, **keys):
    given = MODELS["vae"].for_data(spec, "de", valid_metrics=("loss", "fid"), test_metrics=("fid", "fd"), **keys)
    return given.valid_metrics, given.test_metrics, given.early_stopping_metric, given.metric_kwargs.features


def test_fid_stays_where_there_are_weights_and_images_and_no_other_features(weights, monkeypatch):
    kept = (("loss", "fid"), ("fid", "fd"), "fid", "inception")
    lost = (("loss", "fd"), ("fd",), "fd", None)
    stop = {"early_stopping_metric": "fid"}
    assert config(**stop) == lost
    assert config(**stop, metric_kwargs={"inception_weights": str(weights)}) == kept
    assert config(**stop, metric_kwargs={"features": "inception"}) == kept, "and the run is refused"
    monkeypatch.setenv("TWOSTEP_INCEPTION", str(weights))
    assert config(**stop) == kept
    assert config(VECTORS, **stop) == lost
    assert config(**stop, metric_kwargs={"features": "pca"}) == (*lost[:3], "pca")
    assert config()[2] == MODELS["vae"].for_data(PICTURES, "de").early_stopping_metric


def test_weights_alone_change_no_features(weights, monkeypatch):
    monkeypatch.setenv("TWOSTEP_INCEPTION", str(weights))
    keys = MODELS["vae"].for_data(PICTURES, "de", test_metrics=("fd", "kid")).metric_kwargs
    assert keys.features is None


def test_no_other_distance_is_called_so():
    class Given(torch.nn.Module):
        event_shape = VECTORS.shape

    rows = torch.randn(50, 3)
    splits, batches = Splits(VECTORS, rows, None, rows), Batches(rows, 10)
    shown = feature_sets(Given(), splits, lambda: batches, batches, MetricKeys.parse({}, "keys"), with_reference=False)
    with pytest.raises(UserError, match=r"fid: .*inception.*standardised"):
        evaluate(["fid"], Given(), batches, lambda x: x, 0, shown)


def test_a_note_says_whose_weights_they_are(weights, monkeypatch):
    monkeypatch.setattr(inception, "SIDE", 75)
    pixels = torch.randint(0, 256, (6, 1, 6, 6), dtype=torch.uint8)
    model = MODELS["vae"].for_data(PICTURES, "de", encoder_net="mlp", decoder_net="mlp").build(PICTURES)
    keys = MetricKeys.parse({"gen_samples": 6, "features": "inception", "inception_weights": weights}, "keys")
    splits, batches = Splits(PICTURES, pixels, None, pixels), Batches(pixels, 3)
    shown = feature_sets(model, splits, lambda: batches, batches, keys)
    note = evaluate(["kid"], model, batches, lambda x: x, 0, shown)["kid"].note
    file = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (
        f"inception features {shown.extractor.digest[:12]} (weights {file[:8]}, not those of published FIDs; " in note
    )
    assert shown.data.shape == shown.unseen.shape == shown.samples.shape == (6, 2048)


# ---- runs


KEYS = {
    "early_stopping_metric": "fid",
    "valid_metrics": ("loss", "fid"),
    "test_metrics": ("fid", "kid"),
    "metric_kwargs": {"gen_samples": 20},
}


@pytest.fixture
def data(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", train=pixels[:60], test=pixels[60:])
    return tmp_path / "pictures.npz"


def test_a_run_without_weights_says_so_before_it_starts(data, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="twostep")
    monkeypatch.setattr("twostep.metrics.features.choice.is_installed", lambda: False)
    run = {"test_metrics": "fid", "metric_kwargs": {"gen_samples": 20}}
    experiment = start(asked(("vae", "flow"), data, tmp_path / "runs", run=run, gae=KEYS, de=KEYS))
    experiment.run.close()
    said = [(record.levelno, record.message) for record in caplog.records if record.message.startswith("fd")]
    logged, warned = ([text for level, text in said if level == one] for one in (logging.INFO, logging.WARNING))
    weightless = ", whose weights are missing (key inception_weights, or TWOSTEP_INCEPTION)"
    no_fid = "; fd is not FID, which needs Inception's features"
    assert logged == [
        f"fd, kid: in pca features of {data} (key metric_kwargs){no_fid}{weightless}",
        f"fd, kid: in standardised features of embeddings of {data} (key metric_kwargs){no_fid}",
        f"fd: in pca features of {data} (key metric_kwargs){no_fid}{weightless}",
    ]
    assert [one.partition(":")[0] for one in warned] == ["fd, kid", "fd"], "beside pca features, and only there"
    assert experiment.settings.run.test_metrics == ("fd",)


def test_a_run_with_weights_stops_and_is_tested_by_fid_and_keeps_to_it(
    data, tmp_path, weights, stand_in, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, logger="twostep")
    monkeypatch.setenv("TWOSTEP_INCEPTION", str(weights))
    run = {"test_metrics": "fid", "metric_kwargs": {"gen_samples": 20}}
    experiment = trained(asked(("vae", "flow"), data, tmp_path / "runs", run=run, gae=KEYS, de=KEYS))
    assert f"fid, kid: in inception features of {data} (key metric_kwargs)" in caplog.messages
    trainer = experiment.trainer.gae
    assert trainer.best_value == min(epoch["valid"]["fid"] for epoch in trainer.history)
    results = experiment.test()
    assert (list(results["gae"]), list(results["de"]), list(results["two_step"])) == (
        ["fid", "kid"],
        ["fd", "kid"],
        ["fid"],
    )
    assert "inception features" in results["two_step"]["fid"].note
    assert set(stand_in) == {weights}
    path = experiment.run.path
    assert json.loads((path / "gae_config.json").read_text())["metric_kwargs"]["features"] == "inception"
    found, file = evaluate_run(path, ("fid",), keys={"gen_samples": 20})
    assert found["fid"].value == results["two_step"]["fid"].value
    assert json.loads(file.read_text())["metric_kwargs"]["inception_weights"] is None
    assert resume(path).settings == experiment.settings
    monkeypatch.delenv("TWOSTEP_INCEPTION")
    with pytest.raises(UserError, match="features=inception: its weights are missing"):
        resume(path, writing=True)
    assert "log_likelihood" in evaluate_run(path, ("log_likelihood",))[0], "which needs no features"


def test_a_finished_run_is_measured_by_fid_where_the_weights_are_given(data, tmp_path, weights, stand_in, caplog):
    path = trained(asked(("vae",), data, tmp_path / "runs", model={"test_metrics": ("loss",)})).run.path
    few = {"gen_samples": 20}
    caplog.set_level(logging.INFO, logger="twostep")
    assert list(evaluate_run(path, ("fid", "fd"), keys=few)[0]) == ["fd"]
    assert "fd is not FID" in caplog.text
    assert list(evaluate_run(path, ("fid",), keys={**few, "features": "pca"})[0]) == ["fd"]
    with pytest.raises(UserError, match="features=inception: its weights are missing"):
        evaluate_run(path, ("fid",), keys={**few, "features": "inception"})
    keys = {**few, "inception_weights": str(weights)}
    results, file = evaluate_run(path, ("fid", "kid"), keys=keys)
    assert list(results) == ["fid", "kid"]
    kept = json.loads(file.read_text())["metric_kwargs"]
    assert (kept["features"], kept["inception_weights"]) == ("inception", str(weights))
