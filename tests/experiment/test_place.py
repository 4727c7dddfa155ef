"""Finished runs on another machine: their data lie elsewhere, their device is not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.arguments import only_run, repeated, two_step_arguments
from twostep import cli, load_module, load_run, save_pretrained
from twostep.analysis.diagnose import diagnose_run
from twostep.analysis.score import score
from twostep.core.checkpoint import fingerprint
from twostep.core.files import write_json
from twostep.core.schema import UserError
from twostep.experiment.calibration import read_calibration, write_calibration
from twostep.experiment.resolve import moved as moved_keys
from twostep.runs.config import RunConfig
from twostep.runs.directory import Run

COMMANDS = {
    "score": ("rows.npy", "--to", "scores.csv", "--alpha", 0.5),
    "diagnose": ("--to", "diagnosis"),
    "evaluate": (),
    "evaluate a metric": ("--metrics", "l2_reconstruction_error"),
}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Give a folder with data, and the run that was trained on them."""
    folder = tmp_path_factory.mktemp("there")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 6, 6), dtype=np.uint8)
    np.savez(folder / "data.npz", train=pixels[:70], test=pixels[70:])
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in two_step_arguments(folder / "data.npz", folder / "runs")])
    assert ended.value.code == 0
    return folder


@pytest.fixture
def moved(there, tmp_path, monkeypatch):
    """Give a run whose data lie elsewhere than its config says and whose device is cuda, and those data."""
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(only_run(there / "runs"), tmp_path / "run"))
    shared = json.loads((run / "shared_config.json").read_text())
    shared |= {"dataset": str(tmp_path / "not" / "here.npz"), "device": "cuda"}
    (run / "shared_config.json").write_text(json.dumps(shared))
    np.save("rows.npy", np.load(there / "data.npz")["test"])
    return run, there / "data.npz"


@pytest.mark.parametrize("name", COMMANDS)
def test_data_and_device_are_said_anew(twostep, moved, name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run, data = moved
    (run / "calibration.safetensors").unlink()
    command, *arguments = (name.split()[0], run, *COMMANDS[name])
    without_data = twostep(command, *arguments, "--device", "cpu")
    assert without_data.status == 2
    assert ("--shared-config dataset=" if name == "evaluate" else "--data") in without_data.err
    without_device = twostep(command, *arguments, "--data", data)
    assert without_device.status == 2
    assert "--device" in without_device.err
    done = twostep(command, *arguments, "--data", data, "--device", "cpu")
    assert done.status == 0, done.err
    again = twostep(command, *arguments, "--device", "cpu", *(["--force"] if command in ("score", "diagnose") else []))
    assert again.status == 0, "the place of the data is remembered"


def test_rows_are_scored_without_the_data(moved):
    """By the scores of validation rows that the test has kept, to the bit; not by those of other weights."""
    run, data = moved
    here = score(run, Path("rows.npy"), 0.5, device="cpu")
    there = score(run, Path("rows.npy"), 0.5, device="cpu", data=data)
    assert set(there.columns) - set(here.columns) == {"nearest_training_distance"}
    for name, values in here.columns.items():
        assert (values == there.columns[name]).all(), name
    (run / "place.json").unlink()
    held_out = read_calibration(Run.open(run), fingerprint(load_module(run)))
    write_calibration(Run.open(run), held_out, "other weights")
    assert read_calibration(Run.open(run), fingerprint(load_module(run))) == {}
    assert "p_value" not in score(run, Path("rows.npy"), device="cpu").columns
    (run / "calibration.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        score(run, Path("rows.npy"), device="cpu")
    assert "decays" in " ".join(diagnose_run(run, device="cpu").lines())


def test_the_noted_place_is_used_while_it_is_there(moved, tmp_path):
    run, data = moved
    assert Run.open(run).read_place() == {}
    load_run(run, device="cpu", data=data)
    assert Run.open(run).read_place() == {"dataset": str(data)}
    assert "place.json" not in {path.name for path in save_pretrained(run, tmp_path / "shared").rglob("*")}
    write_json(run / "place.json", {"dataset": str(tmp_path / "gone.npz"), "seed": "3"})
    assert Run.open(run).read_place() == {}
    with pytest.raises(UserError):
        load_run(run, device="cpu")


def test_samples_need_neither_data_nor_the_device_of_training(twostep, moved, there):
    run, _ = moved
    for path, to in ((run, "one.npy"), (only_run(there / "runs"), "other.npy")):
        assert twostep("sample", path, "--to", to, "-n", 5).status == 0
    assert np.array_equal(np.load("one.npy"), np.load("other.npy"))
    assert twostep("report", run).status == 0


def test_a_moved_run_in_python(moved):
    run, data = moved
    with pytest.raises(UserError):
        load_run(run)
    assert len(load_run(run, device="cpu", data=data).loaders[2].data) == len(np.load("rows.npy"))


def test_data_and_device_of_data_are_none_of_a_run(twostep):
    for flag in (("--device", "cpu"), ("--data", "x.npy")):
        outcome = twostep("diagnose", "--dataset", "circles", *flag)
        assert (outcome.status, flag[0] in outcome.err) == (2, True)


def test_the_folder_of_data_sets_is_kept_whole(tmp_path, monkeypatch, twostep, own_images):
    monkeypatch.chdir(tmp_path)
    run = ("data_root=there", "logdir_root=out", "train_batch_size=16")
    arguments = two_step_arguments(own_images, "out")
    assert twostep(*arguments, *repeated("--shared-config", run[:1])).status == 0
    stored = json.loads((only_run("out") / "shared_config.json").read_text())
    assert stored["data_root"] == str(tmp_path / "there")
    named = RunConfig(dataset="mnist", data_root=Path("there"))
    assert moved_keys(named, None, tmp_path / "now") == {"data_root": tmp_path / "now"}
