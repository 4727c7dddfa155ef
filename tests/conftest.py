"""Settings of all tests: one thread a worker, a cache of their own, no network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import functools
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from twostep.cli import main

SMALL_GAE = ("latent_dim=2", "encoder_hidden_dims=[8]", "decoder_hidden_dims=[8]", "max_epochs=2")
SMALL_FLOW = ("hidden_units=4", "num_layers=1", "num_blocks_per_layer=1", "max_epochs=2")

pytest.register_assert_rewrite("contracts", "commands")


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
def _no_weights(monkeypatch):
    monkeypatch.delenv("TWOSTEP_INCEPTION", raising=False)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Leave the curves out of reports, half the time of a small run; who looks at them overrides this."""
    monkeypatch.setattr("twostep.report._curve", lambda *_: "")


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
def own_pictures(tmp_path_factory):
    """Give a file of 50 training and 10 test pictures, 6 x 6, grey."""
    path = tmp_path_factory.mktemp("own") / "pictures.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    np.savez(path, train=pixels[:50], test=pixels[50:])
    return path


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """Give a file of 200 training and 60 test pictures of a bright spot, 10 x 10, grey."""
    from commands import blob

    random = np.random.default_rng(1)
    pictures = np.stack([blob(random, (28, 28))[4:24:2, 4:24:2] for _ in range(260)])
    path = tmp_path_factory.mktemp("blobs") / "blobs.npz"
    np.savez(path, train=pictures[:200], test=pictures[200:])
    return path


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Give a folder with small picture sets."""
    from commands import make_sets

    folder = tmp_path_factory.mktemp("sets")
    make_sets(folder)
    return folder


@pytest.fixture
def shell(sets, tmp_path):
    """Give a function that runs one of the scripts in an empty folder and returns the finished process."""
    from commands import run_script

    return functools.partial(run_script, sets, tmp_path)


def repeated(flag, items):
    """Return `flag item flag item ...`."""
    return [part for item in items for part in (flag, item)]


def two_step_arguments(dataset, root):
    """Return what trains a small VAE + flow, the flow with early stopping, in a moment."""
    return [
        *("train", "--dataset", dataset, "--gae-model", "vae", "--de-model", "flow"),
        *repeated("--gae-config", SMALL_GAE),
        *repeated("--de-config", (*SMALL_FLOW, "early_stopping_metric=loss")),
        *repeated("--shared-config", ("train_batch_size=16", f"logdir_root={root}", "device=cpu")),
    ]


def single_arguments(dataset, root, model="ae"):
    """Return what trains a small model alone, in a moment."""
    keys = {"ae": SMALL_GAE, "vae": SMALL_GAE, "flow": SMALL_FLOW}[model]
    config = (*keys, "train_batch_size=16", f"logdir_root={root}", "device=cpu")
    return ["train-single", "--dataset", dataset, "--model", model, *repeated("--config", config)]


def only_run(root):
    """Return the one run directory in a folder."""
    (path,) = Path(root).iterdir()
    return path


def _trained(arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0
    return only_run(str(next(item for item in arguments if item.startswith("logdir_root="))).partition("=")[2])


@pytest.fixture(scope="session")
def two_step_run(own_pictures, tmp_path_factory):
    """Give the directory of a two-step run; copy it before changing it."""
    return _trained(two_step_arguments(str(own_pictures), tmp_path_factory.mktemp("two-step")))


@pytest.fixture(scope="session")
def ae_run(own_pictures, tmp_path_factory):
    """Give the directory of a run of an autoencoder alone; copy it before changing it."""
    return _trained(single_arguments(str(own_pictures), tmp_path_factory.mktemp("ae")))
