"""Settings of all tests: one thread a worker, a cache of their own, no network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import functools
import itertools
import logging
from dataclasses import dataclass

import numpy as np
import pytest

from helpers.arguments import only_run, single_arguments, two_step_arguments
from twostep.cli import main

pytest.register_assert_rewrite("helpers.contracts", "helpers.commands")


def pytest_configure(config):
    # torch warns of itself when forward-mode differentiation is first used.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(scope="session", autouse=True)
def _no_stacks():
    """Spare `torch.manual_seed` the text of the stack: it keeps one for each kind of device that is not there."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for device in (torch.cuda, torch.xpu, torch.mtia):
            if not device.is_available():
                patch.setattr(device, "manual_seed_all", lambda seed: None)
        yield


@pytest.fixture(scope="session")
def _caches(tmp_path_factory):
    """Give names of folders that no test has had; few tests make theirs."""
    root = tmp_path_factory.mktemp("caches")
    return (str(root / str(number)) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_caches, monkeypatch):
    monkeypatch.setenv("TWOSTEP_CACHE", next(_caches))


@pytest.fixture(autouse=True)
def _every_epoch_saved(monkeypatch):
    """Save after every epoch, however short it is."""
    monkeypatch.setattr("twostep.experiment.progress.RARELY", 0)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    monkeypatch.delenv("TWOSTEP_INCEPTION", raising=False)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Leave the figures out of reports and tests, half the time of a small run; who looks at them overrides this."""
    monkeypatch.setattr("twostep.analysis.report.content.curves", lambda *_: [])
    monkeypatch.setattr("twostep.analysis.report.content.figures", lambda *_: {})
    monkeypatch.setattr("twostep.experiment.artifacts.histogram", lambda series, label, path: path.touch())


ADVICE = {
    "twostep.experiment.progress.FEW_STEPS": 0,
    "twostep.experiment.reconstructions.EXPLAINS_NOTHING": -float("inf"),
    "twostep.experiment.mixture_floor.MOST_DIM": 0,
    "twostep.experiment.length.LEAST": 10**9,
    "twostep.experiment.normaliser.MOST_DIM": 0,  # seconds
}


@pytest.fixture(scope="session", autouse=True)
def _no_advice():
    """Say nothing of short training, which is that of nearly every test."""
    with pytest.MonkeyPatch.context() as patch:
        for place, limit in ADVICE.items():
            patch.setattr(place, limit)
        yield


@pytest.fixture
def advice(monkeypatch):
    """Give advice on short training all the same."""
    monkeypatch.setattr("twostep.experiment.progress.FEW_STEPS", 500)
    monkeypatch.setattr("twostep.experiment.reconstructions.EXPLAINS_NOTHING", 0.1)
    monkeypatch.setattr("twostep.experiment.mixture_floor.MOST_DIM", 64)
    monkeypatch.setattr("twostep.experiment.length.LEAST", 10)


@pytest.fixture(autouse=True)
def _own_log_files():
    """Take away what experiments add to the log, so that none writes into the files of another."""
    logger = logging.getLogger("twostep")
    before = logger.handlers[:]
    yield
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture
def twostep(capfd):
    """Give the command line, in this process: `twostep("train", "--dataset", ...)` returns an `Outcome`."""

    def call(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Outcome(ended.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def own_images(tmp_path_factory):
    """Give a file of 50 training and 10 test images, 6 x 6, grey."""
    path = tmp_path_factory.mktemp("own") / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    np.savez(path, train=pixels[:50], test=pixels[50:])
    return path


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """Give a file of 200 training and 60 test images of a bright spot, 10 x 10, grey."""
    from helpers.commands import blob

    random = np.random.default_rng(1)
    images = np.stack([blob(random, (28, 28))[4:24:2, 4:24:2] for _ in range(260)])
    path = tmp_path_factory.mktemp("blobs") / "blobs.npz"
    np.savez(path, train=images[:200], test=images[200:])
    return path


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Give a folder with small image sets."""
    from helpers.commands import make_sets

    folder = tmp_path_factory.mktemp("sets")
    make_sets(folder)
    return folder


@pytest.fixture
def shell(sets, tmp_path):
    """Give a function that runs one of the scripts in an empty folder and returns the finished process."""
    from helpers.commands import run_script

    return functools.partial(run_script, sets, tmp_path)


def _trained(arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0
    return only_run(str(next(item for item in arguments if item.startswith("logdir_root="))).partition("=")[2])


@pytest.fixture(scope="session")
def two_step_run(own_images, tmp_path_factory):
    """Give the directory of a two-step run; copy it before changing it."""
    return _trained(two_step_arguments(str(own_images), tmp_path_factory.mktemp("two-step")))


@pytest.fixture(scope="session")
def ae_run(own_images, tmp_path_factory):
    """Give the directory of a run of an autoencoder alone; copy it before changing it."""
    return _trained(single_arguments(str(own_images), tmp_path_factory.mktemp("ae")))
