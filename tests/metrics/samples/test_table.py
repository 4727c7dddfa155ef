"""Metrics of samples: what they compare, in which features, and that each set is made once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.experiments import asked, trained
from helpers.feature_sets import feature_sets
from twostep.core.keys import MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.data.load import load_data
from twostep.experiment.prepare import start
from twostep.metrics import METRICS, evaluate
from twostep.metrics.samples.checks import check_features
from twostep.metrics.samples.table import SampleMetric
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder
from twostep.models.two_step import TwoStep

PLANE = DataSpec(name="plane", shape=(2,), size=1000, low=-9, high=9)
OTHERS = ("fid", "column_errors", "fd_reconstruction")  # of images, of tables, and of autoencoders
NAMES = [name for name in METRICS if isinstance(METRICS[name], SampleMetric) and name not in OTHERS]
FIGURES = {
    "precision_recall_density_coverage": ["precision", "recall", "density", "coverage"],
    "memorisation": ["farther", "c_t", "copies"],
}


class Given(DensityEstimator):
    """A density that samples a Gaussian around `mean`, and counts what it draws."""

    likelihood = "exact"
    mean, drawn = 0.0, 0

    def __init__(self, config, spec):
        super().__init__(spec.shape, **config.data_arguments(spec))
        self.spec = spec

    def log_density(self, x):
        raise NotImplementedError

    def sample(self, n, generator=None):
        assert not torch.is_grad_enabled()
        self.drawn += n
        return self.mean + torch.randn(n, *self.spec.shape, generator=generator)

    def objectives(self):
        return ()


def given(mean=0.0, spec=PLANE):
    model = Given(MODELS["flow"].for_data(spec, "de"), spec)
    model.mean = mean
    return model


def normal(n, seed, shape=(2,)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def sets(model, keys=None, rank=0, ranks=1, gather=lambda rows: rows, with_reference=True, labels=None):
    splits = Splits(model.spec, normal(1000, 1), None, normal(600, 2), labels)
    training, held_out = (Batches(rows, 128, rank, ranks) for rows in (splits.train, splits.test))
    keys = MetricKeys.parse({"gen_samples": 800, "gen_batch_size": 300, **(keys or {})}, "keys")
    return feature_sets(model, splits, lambda: training, held_out, keys, gather, with_reference)


def measured(names, model, **keys):
    shown = sets(model, **keys)
    return evaluate(names, model, shown.held_out, lambda values: values, 0, shown)


@pytest.fixture(scope="module")
def perfect():
    """Give the results of a perfect model, and the number of its samples."""
    model = given()
    return measured(NAMES, model), model.drawn


def test_a_perfect_model_scores_what_held_out_data_score(perfect):
    found, _ = perfect
    assert sorted(found) == sorted(figure for name in NAMES for figure in FIGURES.get(name, [name]))
    for name, result in found.items():
        low, high = result.interval
        assert low <= result.value <= high
        room = 2 * (high - low) + 0.02
        assert result.value == pytest.approx(result.reference, abs=room), name
        assert "standardised features" in result.note


def test_a_shifted_model_scores_worse_by_every_metric(perfect):
    shifted = measured(NAMES, given(mean=1.0))
    for name in NAMES:
        figure = FIGURES.get(name, [name])[-1 if name != "memorisation" else 0]
        better, worse = perfect[0][figure], shifted[figure]
        assert worse.reference == better.reference, "the reference value does not depend on the model"
        if name == "nearer_to_training":  # of a wrong distribution, no copies
            assert worse.interval[0] < 0.5 < worse.interval[1]
        elif name == "memorisation" or METRICS[name].lower_is_better:
            assert worse.interval[0] > better.interval[1], name
        else:
            assert worse.interval[1] < better.interval[0], name


def test_samples_are_drawn_once_for_all_metrics_from_the_seed(perfect):
    first, drawn = perfect
    assert drawn == 600, "as many as held-out rows, with which they share their bias"
    assert measured(["fd"], given())["fd"] == first["fd"], "alone or with other metrics, the same digits"


@pytest.mark.parametrize("name", NAMES)
def test_the_least_rows_are_those_that_a_comparison_takes(name):
    metric, keys = METRICS[name], {"nearest_k": 3}
    least = metric.min_rows(3)
    metric(sets(given(), {**keys, "gen_samples": least}))
    with pytest.raises(UserError, match="are too few"):
        metric(sets(given(), {**keys, "gen_samples": least - 1}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_values_that_are_not_finite_are_refused(bad):
    model, samples = given(), normal(100, 3)
    samples[3, 1] = bad
    model.sample = lambda n, generator: samples[:n]
    with pytest.raises(UserError, match=r"^samples: features are not finite"):
        METRICS["fd"](sets(model, {"gen_samples": 100}))


def test_features_of_two_extractors_are_refused():
    with pytest.raises(UserError, match=r"one shape .*, not data \(9, 2\), samples \(9, 3\)"):
        check_features(2, data=normal(9, 1), samples=normal(9, 2, (3,)))


def test_training_rows_are_asked_for_once():
    """Embeddings are made for them."""
    asked_for = []
    splits = Splits(PLANE, normal(300, 1), None, normal(100, 2))
    keys = MetricKeys.parse({"gen_samples": 100}, "keys")
    held_out = Batches(splits.test, 50)

    def training():
        asked_for.append(1)
        return Batches(splits.train, 50)

    shown = feature_sets(given(), splits, training, held_out, keys)
    assert asked_for == []
    evaluate(["fd", "kid"], shown.model, held_out, lambda values: values, 0, shown)
    assert asked_for == [1]


def test_without_reference_values_held_out_data_are_not_used():
    model = given()
    shown = sets(model, with_reference=False)
    result = evaluate(["fd"], model, shown.held_out, lambda values: values, 0, shown)["fd"]
    assert result.reference is None
    assert "unseen" not in vars(shown)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_draw_a_share_each(ranks):
    shares = []
    for rank in range(ranks):
        model = given()
        shares.append(sets(model, rank=rank, ranks=ranks).samples)
        assert model.drawn == len(shares[-1])
        assert len(sets(model, rank=rank, ranks=ranks).data) == 800, "every rank sees the data"
    assert sum(map(len, shares)) == 600
    assert len(torch.cat(shares).unique(dim=0)) == 600, "no two ranks draw the same"


def test_at_most_so_many_rows_of_data_count():
    shown = sets(given(), {"gen_samples": 100})
    assert (len(shown.data), len(shown.unseen), len(shown.samples)) == (100, 100, 100)


@pytest.mark.parametrize("encode", [None, lambda x: 2 * x])
def test_copies_of_training_rows_beyond_those_compared_are_seen(monkeypatch, encode):
    monkeypatch.setattr("twostep.metrics.samples.feature_sets.BLOCK", 300)
    model, train = given(), normal(1000, 1)
    splits = Splits(PLANE, train, None, normal(600, 2))
    keys = MetricKeys.parse({"gen_samples": 100}, "keys")
    training, held_out = Batches(train, 128, encode=encode), Batches(splits.test, 128, encode=encode)
    monkeypatch.setattr(model, "sample", lambda n, _: (encode or (lambda x: x))(train[-n:]))
    shown = feature_sets(model, splits, lambda: training, held_out, keys)
    assert [len(block) for block in shown.all_data()] == [300, 300, 300, 100]
    assert torch.equal(torch.cat(list(shown.all_data())), shown.extractor(torch.cat(list(training))))
    assert evaluate(["memorisation"], model, held_out, lambda values: values, 0, shown)["copies"].value == 1.0


# ---- features


def test_a_classifier_does_not_depend_on_how_rows_were_split(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path))
    digests = set()
    for seed in (0, 1):
        splits = load_data("digits", seed=seed)
        model = given(spec=splits.spec)
        train, test = (Batches(rows, 128) for rows in (splits.train, splits.test))
        keys = MetricKeys.parse({"gen_samples": 300}, "keys")
        shown = feature_sets(model, splits, lambda rows=train: rows, test, keys)
        assert shown.extractor.name == "classifier"
        digests.add(shown.extractor.digest)
    assert len(digests) == 1


def test_features_of_data_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path))
    splits = load_data("digits")
    model, seen = given(spec=splits.spec), []
    for change in (0, 0, 1):
        rows = splits.train.clone()
        rows[0, 0, 0, 0] += change
        keys = MetricKeys.parse({"gen_samples": 2000}, "keys")
        training, held_out = Batches(rows, 128), Batches(splits.test, 128)
        shown = feature_sets(model, splits, lambda training=training: training, held_out, keys)
        of = shown.extractor.of
        object.__setattr__(shown.extractor, "of", lambda x, of=of: (seen.append(len(x)), of(x))[1])
        assert len(shown.data) == len(rows)
        seen.append("")
    assert [one for one in seen if one == ""] == ["", "", ""]
    first, second, third = "".join("." if one else "|" for one in seen).split("|")[:3]
    assert first == third
    assert second == "", "the second time they come from the cache"


# ---- runs


def test_a_run_can_be_stopped_and_tested_by_samples(tmp_path):
    keys = {
        "early_stopping_metric": "fid",
        "valid_metrics": ("loss", "fid"),
        "test_metrics": ["fid", "kid"],
        "metric_kwargs": {"gen_samples": 200},
    }
    np.save(tmp_path / "rows.npy", normal(300, 0).numpy())
    run = {"test_metrics": "fid", "metric_kwargs": {"gen_samples": 150}}
    experiment = trained(asked(("ae", "vae"), tmp_path / "rows.npy", tmp_path, run=run, de=keys))
    trainer = experiment.trainer.de
    values = [epoch["valid"]["fd"] for epoch in trainer.history]
    assert trainer.best_value == min(values)
    results = experiment.test()
    assert list(results["de"]) == ["fd", "kid"]
    assert results["de"]["fd"].n == results["two_step"]["fd"].n == 60, "as many as test rows"
    again = start(asked(("ae", "vae"), tmp_path / "rows.npy", tmp_path, run=run, de=keys))
    again.fit()
    again.run.close()
    assert again.test() == results, "the same seed gives the same digits"


def test_few_held_out_data_score_like_a_perfect_model():
    """Coverage by few rows is low; it is compared with that of as few samples."""
    every = sets(given())
    few = replace(every, held_out=replace(every.held_out, data=every.held_out.data[:120]))
    coverage = evaluate(["precision_recall_density_coverage"], few.model, few.held_out, lambda x: x, 0, few)["coverage"]
    assert coverage.value < 0.6
    assert coverage.value == pytest.approx(coverage.reference, abs=0.1)


class Rounded(GeneralizedAutoencoder):
    """An autoencoder that keeps a share of each point."""

    def __init__(self, share):
        super().__init__((2,))
        self.share, self.latent_dim, self.spec = share, 2, PLANE

    def encode(self, x):
        return x

    def decode(self, z):
        return self.share * z

    def objectives(self):
        return ()


def test_the_distance_of_reconstructions_is_that_of_held_out_data_where_they_are_perfect():
    names = ["fd_reconstruction"]
    found = {share: measured(names, Rounded(share))["fd_reconstruction"] for share in (1.0, 0.9, 0.5)}
    assert found[1.0].value == found[1.0].reference
    assert found[1.0].value < found[0.9].value < found[0.5].value
    both = measured(names, with_spec(TwoStep(Rounded(0.9), given())))["fd_reconstruction"]
    assert both.value == found[0.9].value, "whatever the density"
    assert "does not reconstruct" in METRICS["fd_reconstruction"].refusal(given())


def with_spec(model):
    model.spec = PLANE
    return model
