"""Two ranks are one process with the same global batch: weights, metrics, files."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.experiments import ALONE, DES, GAES, asked, trained
from twostep.experiment.load import load_module
from twostep.runs.directory import Run

# As torchrun starts two processes, but the second one is a fork that needs no imports; `make cmd` runs torchrun itself.
RANKS = """
import json, logging, os, socket, sys
from pathlib import Path
import torch
sys.path[:0] = json.loads(sys.argv[1])
from helpers.experiments import asked, trained
logging.getLogger("twostep").setLevel(logging.ERROR)
with socket.create_server(("127.0.0.1", 0)) as free:
    port = str(free.getsockname()[1])
second = os.fork()
rank = "0" if second else "1"
os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
asked_for, dataset, root, out, keys = json.loads(sys.argv[2])
for number, models in enumerate(asked_for):
    experiment = trained(asked(tuple(models), dataset, Path(root), **keys))
    experiment.test()
    experiment.draw()
    experiment.run.close()
    state = experiment.state()
    ended = {"tensors": state.tensors, "values": state.values, "path": str(experiment.run.path)}
    torch.save(ended, f"{out}/{number}-{experiment.engine.rank}.pt")
torch.distributed.destroy_process_group()
if second:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))
"""
# Nothing draws noise; 23 rows in batches of 8 leave one of 7, shared unevenly.
PART = {
    **{"lr": 1e-3, "max_epochs": 3, "denoising_sigma": 0.0},
    **{"early_stopping_metric": "loss", "max_bad_valid_epochs": 3},
}
KEYS = {**dict.fromkeys(("model", "gae", "de"), PART), "run": {"train_batch_size": 8, "valid_batch_size": 4}}


def on_two_ranks(asked_for, dataset, tmp_path, keys):
    """Train each of some models on two ranks; return for each the states of both ranks, and the run."""
    out = tmp_path / "out"
    out.mkdir()
    paths = json.dumps([str(Path(__file__).parents[1])])
    what = json.dumps([asked_for, str(dataset), str(tmp_path / "runs"), str(out), keys])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", RANKS, paths, what]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = first.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert first.returncode == 0, errors[-2000:]
    for number in range(len(asked_for)):
        ranks = [torch.load(out / f"{number}-{rank}.pt", weights_only=True) for rank in range(2)]
        assert ranks[0]["path"] == ranks[1]["path"]
        yield ranks, Run.open(Path(ranks[0]["path"]))


def assert_same(ranks):
    """Check that two ranks are equal to the bit."""
    for key, tensor in ranks[0]["tensors"].items():
        assert torch.equal(tensor, ranks[1]["tensors"][key]), key
    assert ranks[0]["values"] == ranks[1]["values"]


def rows_in(tmp_path, rows):
    dataset = tmp_path / "rows.npz"
    points = np.random.default_rng(0).normal(size=(rows + 9, 3)).astype(np.float32)
    np.savez(dataset, train=points[:rows], test=points[rows:])
    return dataset


def check(models, rows, tmp_path, **run):
    dataset = rows_in(tmp_path, rows)
    keys = {**KEYS, "run": {**KEYS["run"], **run}}
    ((ranks, run),) = on_two_ranks([models], dataset, tmp_path, keys)
    assert_same(ranks)
    # equal to one process
    whole = trained(asked(models, dataset, tmp_path / "alone", **keys))
    results = whole.test()
    state = whole.state()
    for key, tensor in state.tensors.items():
        torch.testing.assert_close(ranks[0]["tensors"][key], tensor, rtol=1e-5, atol=1e-5, msg=key)
    for trainer in whole.trainers:
        for one, other in zip(ranks[0]["values"][f"{trainer.name}.history"], trainer.history, strict=True):
            assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
    # metrics count every row once
    measured = run.read_metrics("test")
    assert measured.keys() == results.keys()
    for part, found in results.items():
        for name, result in found.items():
            assert measured[part][name].n == result.n == 9
            assert measured[part][name].value == pytest.approx(result.value, rel=1e-4)
            if result.standard_error is not None:
                assert measured[part][name].standard_error == pytest.approx(result.standard_error, rel=1e-3)
    # one directory, written by one rank
    assert list((tmp_path / "runs").iterdir()) == [run.path]
    assert run.read_environment()["ranks"] == 2
    assert len({file.name.split(".")[-2] for file in run.path.glob("events.*")}) == 1, "of one process"
    assert not [file for file in run.path.rglob("*") if file.name.startswith(".")]
    assert {file.name for file in (run.path / "checkpoints").iterdir()} == {
        "latest.safetensors",
        "best_valid.safetensors",
    }
    load_module(run.path)


def test_two_ranks_train_as_one(tmp_path):
    """26 rows leave 24 for training and 2 for validation: three batches of 8."""
    check(("ae",), 26, tmp_path)


@pytest.mark.cmd
def test_every_model_is_the_same_on_both_ranks(tmp_path):
    """Also where losses draw noise, models keep buffers, and the last batch, of 7, is shared unevenly."""
    pairs = list(zip(GAES, DES, strict=False))
    for ranks, run in on_two_ranks([*ALONE, *pairs], rows_in(tmp_path, 25), tmp_path, {"run": {"train_batch_size": 8}}):
        assert_same(ranks)
        found = [one for part in run.read_metrics("test").values() for one in part.items()]
        assert all(result.n == 9 or name == "log_normalizer" for name, result in found)


@pytest.mark.slow
def test_both_ranks_take_the_dimension_that_the_first_one_estimates(tmp_path):
    keys = {"model": {"latent_dim": "auto", "max_epochs": 1}, "run": {"train_batch_size": 8}}
    ((ranks, run),) = on_two_ranks([("ae",)], rows_in(tmp_path, 80), tmp_path, keys)
    assert_same(ranks)
    assert run.settings.models["model"].latent_dim == 3
    assert json.loads((run.path / "dimension.json").read_text())["latent_dim"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("by_epoch", [True, False], ids=["by epoch", "by iteration"])
def test_two_ranks_take_turns_as_one(by_epoch, tmp_path):
    check(("ae", "flow"), 25, tmp_path, sequential_training=False, alternate_by_epoch=by_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [26, 25, 20])
@pytest.mark.parametrize("models", [("ae",), ("flow",), ("ae", "flow")], ids=" + ".join)
def test_every_model_on_uneven_batches(models, rows, tmp_path):
    """25 rows leave 23 for training, a last batch of 7; 20 leave 18, a last one of 2."""
    check(models, rows, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("models", [("ae",), ("flow",)], ids=" + ".join)
def test_a_last_batch_with_fewer_rows_than_ranks(models, tmp_path):
    """27 rows leave 25 for training: the last batch is one row, and the second rank has none."""
    check(models, 27, tmp_path)
