"""A trained density is warned of where a mixture of Gaussians beats it; nothing else is."""

import logging

import numpy as np
import pytest
import torch

from helpers.experiments import asked, start
from twostep.experiment.mixture_floor import mixture_log_likelihood
from twostep.models import GaussianMixture
from twostep.models.base import evaluating
from twostep.nn.transforms import Chain, Whiten

pytestmark = pytest.mark.usefixtures("advice")
SAYS = "a mixture of Gaussians has a log-likelihood"


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Give a file of 300 rows of two distant clusters in the plane."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 2)) * 0.1 + 3 * random.integers(0, 2, (300, 1))
    path = tmp_path_factory.mktemp("clusters") / "clusters.npy"
    np.save(path, rows.astype(np.float32))
    return path


def run_and_test(models, path, root, caplog, **keys):
    with caplog.at_level(logging.WARNING, "twostep"):
        experiment = start(asked(models, path, root, **keys))
        experiment.fit()
        results = experiment.test()
    experiment.run.close()
    return experiment, results, [line for line in caplog.messages if SAYS in line]


def test_a_density_that_has_learned_little_is_warned_of_by_what_beats_it(clusters, tmp_path, caplog):
    keys = {"max_epochs": 1, "lr": 1e-6, "test_metrics": ("log_likelihood",)}
    experiment, results, warned = run_and_test(("flow",), clusters, tmp_path, caplog, model=keys)
    (line,) = warned
    found = results["model"]["log_likelihood"]
    floor = float(found.note.rpartition(": ")[2])
    assert floor > found.value + 1
    assert line.startswith("model: ")
    assert "take gmm" in line
    (one,) = experiment.evaluator.models
    assert mixture_log_likelihood(one, experiment.evaluator) == pytest.approx(floor, rel=1e-3)
    splits = experiment.splits
    mixture = GaussianMixture((2,), 16, transform=Chain([Whiten((2,))]))
    torch.manual_seed(1)
    mixture.fit_transform([splits.train.float()])
    with evaluating(mixture):
        assert float(mixture.log_prob(splits.test.float()).mean()) == pytest.approx(floor, abs=0.5)


@pytest.mark.parametrize("models", [("gmm",), ("ebm",)], ids=" + ".join)
def test_neither_a_mixture_itself_nor_an_unnormalised_density_is_compared(models, clusters, tmp_path, caplog):
    _, results, warned = run_and_test(models, clusters, tmp_path, caplog, model={"test_metrics": ("log_likelihood",)})
    assert warned == []
    assert "mixture" not in results["model"]["log_likelihood"].note


def test_a_density_as_likely_as_the_mixture_is_not_warned_of(clusters, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("twostep.experiment.mixture_floor.mixture_log_likelihood", lambda *_: -1e3)
    _, results, warned = run_and_test(
        ("flow",), clusters, tmp_path, caplog, model={"test_metrics": ("log_likelihood",)}
    )
    assert warned == []
    assert results["model"]["log_likelihood"].note.endswith("a mixture of Gaussians: -1000")


def test_columns_of_few_values_on_which_a_gaussian_can_collapse_are_not_compared(tmp_path, caplog):
    path = tmp_path / "counts.npy"
    np.save(path, np.random.default_rng(0).integers(0, 5, (300, 2)).astype(np.float32))
    keys = {"max_epochs": 1, "test_metrics": ("log_likelihood",)}
    _, results, warned = run_and_test(("flow",), path, tmp_path, caplog, model=keys)
    assert warned == []
    assert results["model"]["log_likelihood"].note == ""
