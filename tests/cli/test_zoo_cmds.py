"""Whole commands over the registry: every density alone, every autoencoder pretrained, every pair in every order.

Commands of the level `cmd` are processes of their own, those of `cmd_exhaustive` run in the process of the tests. A run
counts as good only by what its directory holds: epochs, finite weights, results of every test row, images.
"""

import functools
import itertools

import numpy as np
import pytest
import torch

from helpers.arguments import only_run, repeated
from helpers.commands import check_finished, epochs, results, run_here, tensors
from helpers.experiments import BY_STEPS, DES, GAES, PAIRS, keys_of
from twostep.experiment.load import load_module
from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.runs.directory import Run
from twostep.runs.overrides import Request

ORDERS = {
    "sequential": (),
    "by epoch": ("sequential_training=False",),
    "by iteration": ("sequential_training=False", "alternate_by_epoch=False"),
}
BOTH = ("gae", "de", "two_step")


def keys(flag, name):
    """Return the flags that make a model small and train it for two epochs."""
    small = keys_of(name, {"max_epochs": 2, "denoising_sigma": 0.0})
    return repeated(flag, [f"{key}={value!r}" for key, value in small.items()])


def train_alone(shell, dataset, name, *flags):
    shell("single_main.py", "--dataset", dataset, "--model", name, *flags, *keys("--config", name))


def train_pair(shell, dataset, gae, de, order=()):
    models = ("--gae-model", gae, "--de-model", de, *keys("--gae-config", gae), *keys("--de-config", de))
    shell("main.py", "--dataset", dataset, *models, *repeated("--shared-config", order))


def check_samples(run):
    """Check that a run gives a module whose samples lie in data space, and vary."""
    samples = load_module(run).sample(20, torch.Generator().manual_seed(0))
    assert samples.shape == (20, 1, 10, 10)
    assert samples.isfinite().all()
    assert samples.std(0).max() > 0


def check_raised_limit(shell, run, parts, limit):
    """Train a finished run further, and check that every part that is trained has had its epochs."""
    before = {name: value.copy() for name, value in tensors(run).items()}
    script = "single_main.py" if parts == ("model",) else "main.py"
    shell(script, "--load-dir", run, "--max-epochs-loaded", limit)
    check_finished(run, parts, ())
    by_steps = [part for part in epochs(run) if Run.open(run).settings.models[part].rates]
    assert all(done == (limit if part in by_steps else 1) for part, done in epochs(run).items())
    after = tensors(run)
    for part in by_steps:
        moved = [name for name in before if name.startswith(f"{part}.model.") and (before[name] != after[name]).any()]
        assert moved, f"{part} was not trained further"


@pytest.mark.cmd
@pytest.mark.parametrize("name", DES)
def test_every_density_alone_and_reloaded(shell, tmp_path, blobs, name):
    train_alone(shell, blobs, name)
    run = only_run(tmp_path / "runs")
    check_finished(run, ("model",), ("samples",))
    first = results(run, "model")
    shell("single_main.py", "--load-dir", run, "--only-test")
    assert results(run, "model") == first
    check_raised_limit(shell, run, ("model",), 3)
    check_samples(run)


@pytest.mark.cmd
@pytest.mark.parametrize(("gae", "de", "order"), [*zip(GAES, DES, itertools.cycle(ORDERS), strict=False)])
def test_every_order_of_training(shell, tmp_path, blobs, gae, de, order):
    train_pair(shell, blobs, gae, de, ORDERS[order])
    run = only_run(tmp_path / "runs")
    check_finished(run, BOTH)
    check_raised_limit(shell, run, BOTH, 3)
    check_samples(run)


@pytest.mark.cmd
@pytest.mark.parametrize(("gae", "de"), [*zip(GAES, DES[1:] + DES[:1], strict=False)])
def test_every_autoencoder_pretrained_frozen_and_trained_further(shell, tmp_path, blobs, gae, de):
    train_alone(shell, blobs, gae, "--is-gae")
    pretrained = only_run(tmp_path / "runs")
    taken = ("--load-dir", pretrained, "--load-pretrained-gae", "--de-model", de, *keys("--de-config", de))
    shell("main.py", *taken, "--freeze-pretrained-gae", "--shared-config", "logdir_root=frozen")
    frozen = only_run(tmp_path / "frozen")
    check_finished(frozen, BOTH)
    of_density = 2 if de in BY_STEPS else 1
    assert epochs(frozen) == {"de": of_density}
    taken_over = {name: value for name, value in tensors(frozen).items() if name.startswith("gae.model.")}
    before = tensors(pretrained)
    best = "best" if any(name.startswith("model.best.") for name in before) else "model"
    assert taken_over
    for name, value in taken_over.items():
        assert (before[f"model.{best}.{name.removeprefix('gae.model.')}"] == value).all()
    shell("main.py", *taken, "--max-epochs-loaded-gae", 3, "--shared-config", "logdir_root=further")
    further = only_run(tmp_path / "further")
    check_finished(further, BOTH)
    assert epochs(further) == {"gae": 3, "de": of_density}
    check_samples(further)


@pytest.fixture(autouse=True)
def _no_curves():
    """Draw them all."""


@pytest.fixture
def here(sets, tmp_path):
    """Give a function that does in this process what `shell` does in another."""
    return functools.partial(run_here, sets, tmp_path)


@pytest.mark.cmd_exhaustive
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("gae", "de"), PAIRS)
def test_every_pair_in_every_order(here, tmp_path, blobs, gae, de, order):
    train_pair(here, blobs, gae, de, ORDERS[order])
    run = only_run(tmp_path / "runs")
    check_finished(run, BOTH)
    assert epochs(run) == {"gae": 2, "de": 2 if de in BY_STEPS else 1}
    check_raised_limit(here, run, BOTH, 3)
    check_samples(run)


@pytest.fixture(scope="session")
def pretrained(sets, blobs, tmp_path_factory):
    """Give the run of an autoencoder alone, trained once for each kind."""

    @functools.cache
    def give(gae):
        folder = tmp_path_factory.mktemp(gae)
        train_alone(functools.partial(run_here, sets, folder), blobs, gae, "--is-gae")
        return only_run(folder / "runs")

    return give


@pytest.mark.cmd_exhaustive
@pytest.mark.parametrize(("gae", "de"), PAIRS)
def test_every_density_on_every_pretrained_autoencoder(here, tmp_path, pretrained, gae, de):
    flags = ("--load-dir", pretrained(gae), "--load-pretrained-gae", "--freeze-pretrained-gae")
    here("main.py", *flags, "--de-model", de, *keys("--de-config", de))
    run = only_run(tmp_path / "runs")
    check_finished(run, BOTH)
    assert epochs(run) == {"de": 2 if de in BY_STEPS else 1}
    check_raised_limit(here, run, BOTH, 3)
    check_samples(run)


@pytest.mark.cmd_exhaustive
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gae", "de"), PAIRS)
def test_every_pair_of_default_size_takes_turns_by_batches_on_digits(tmp_path, gae, de, seed):
    """The density is never far from a Gaussian fitted to the embeddings, 4 nats a coordinate after 44 steps.

    Embeddings by an untrained autoencoder have a hundredth of the standard deviation that a trained one's have.
    """
    run = {"dataset": "digits", "logdir_root": tmp_path, "seed": seed, "device": "cpu"}
    run |= {"sequential_training": False, "alternate_by_epoch": False}
    experiment = start(Request({"gae": gae, "de": de}, {"run": run, "gae": {"max_epochs": 4}, "de": {"max_epochs": 4}}))
    experiment.fit()
    experiment.run.close()
    with evaluating(experiment.module):
        train, test = (
            experiment.module.gae.encode(rows.float()) for rows in (experiment.splits.train, experiment.splits.test)
        )
        found = experiment.module.de.log_prob(test)
    gaussian = torch.distributions.MultivariateNormal(train.double().mean(0), torch.cov(train.double().T))
    expected = gaussian.log_prob(test.double()).mean()
    assert [trainer.epochs_done for trainer in experiment.trainers] == [4, 4 if de in BY_STEPS else 1]
    assert found.isfinite().all()
    assert (found.mean() - expected).abs() < 4 * train.shape[1], (found.mean(), expected)
    assert all(
        np.isfinite(value)
        for trainer in experiment.trainers
        for epoch in trainer.history
        for values in epoch.values()
        for value in values.values()
    )
