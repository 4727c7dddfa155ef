"""Runs on a folder of images from the command line to the end, resumed from elsewhere, and compared with another."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.arguments import SMALL_FLOW, only_run, repeated, single_arguments, two_step_arguments
from twostep.data.files import cache
from twostep.experiment.load import load_run
from twostep.runs.directory import Run

pytestmark = pytest.mark.cmd

BATCHES = ("train_batch_size=16", "device=cpu", "logdir_root=out")


def save_all(folder, every):
    folder.mkdir(parents=True)
    for number, pixels in enumerate(every):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """Give a folder of 50 training and 10 test images, 6 x 6, grey, called `mine` in the current one."""
    monkeypatch.chdir(tmp_path)
    every = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    save_all(tmp_path / "mine" / "train", every[:50])
    save_all(tmp_path / "mine" / "test", every[50:])
    return tmp_path / "mine"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Give a function that goes into another folder."""
    (tmp_path / "elsewhere").mkdir()
    return lambda: monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("large", [False, True])
def test_a_run_on_a_folder_is_that_on_its_array(twostep, own_images, mine, elsewhere, monkeypatch, large):
    if large:
        monkeypatch.setattr(cache, "LARGE", 0)
    assert twostep(*two_step_arguments(own_images, "array")).status == 0
    outcome = twostep(*two_step_arguments("mine", "out"))
    assert (outcome.status, outcome.err) == (0, "")
    run, other = (only_run(root).absolute() for root in ("out", "array"))
    config = json.loads((run / "shared_config.json").read_text())
    assert config["dataset"] == str(mine)
    facts = [json.loads((path / "data.json").read_text()) for path in (run, other)]
    assert facts[0] == facts[1] | {"name": str(mine)}
    results = [Run.open(path).read_metrics("test") for path in (run, other)]
    for part in ("gae", "de", "two_step"):
        for name, result in results[0][part].items():
            assert result.value == results[1][part][name].value
    elsewhere()
    assert twostep("train", "--load-dir", run, "--max-epochs-loaded", 3).status == 0
    module, _, (train, valid, test) = load_run(run)
    assert [len(batches.data) for batches in (train, valid, test)] == [45, 5, 10]
    assert torch.isfinite(module.log_prob(next(iter(test)))).all()


def test_a_pretrained_autoencoder_brings_its_folder_and_its_keys(twostep, mine, elsewhere):
    arguments = single_arguments("mine", "gae")
    assert twostep(*arguments, "--config", "dataset_kwargs={'image_size': [3, 4]}").status == 0
    gae = only_run("gae").absolute()
    elsewhere()
    outcome = twostep(
        *("train", "--load-dir", gae, "--load-pretrained-gae", "--freeze-pretrained-gae", "--de-model", "flow"),
        *repeated("--de-config", SMALL_FLOW),
        *repeated("--shared-config", BATCHES),
    )
    assert outcome.status == 0, outcome.err
    run = Run.open(only_run("out"))
    assert run.spec.shape == (1, 3, 4)
    assert run.settings.run.dataset == str(mine)
    assert run.digest == Run.open(gae).digest


def test_another_folder_is_separated(twostep, mine, elsewhere):
    save_all(Path("others"), np.zeros((20, 9, 9), dtype=np.uint8))
    flags = ("ood_dataset=others", "ood_dataset_kwargs={'image_size': 6}")
    outcome = twostep(*two_step_arguments("mine", "out"), *repeated("--shared-config", flags), "--test-ood")
    assert outcome.status == 0, outcome.err
    run = only_run("out").absolute()
    assert json.loads((run / "shared_config.json").read_text())["ood_dataset"] == str(mine.parent / "others")
    before = Run.open(run).read_metrics("test")["two_step"]["likelihood_ood_auroc"]
    elsewhere()
    assert twostep("evaluate", run, "--test-ood").status == 0
    assert Run.open(run).read_metrics("test")["two_step"]["likelihood_ood_auroc"] == before


def test_images_that_changed_or_are_gone_are_noticed(twostep, mine):
    assert twostep(*single_arguments("mine", "out")).status == 0
    run = only_run("out")
    image = mine / "test" / "00.png"
    before = image.read_bytes()
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(image)
    changed = twostep("evaluate", run)
    assert changed.status == 2
    assert f"{mine} does not hold the data" in changed.err
    image.write_bytes(before)
    assert twostep("evaluate", run).status == 0
    mine.rename(mine.parent / "moved")
    gone = twostep("evaluate", run)
    assert gone.status == 2
    assert gone.err.startswith(f"{mine}: no such file or folder; ")
    assert "dataset=PATH" in gone.err
    assert twostep("evaluate", run, "--config", "dataset=moved").status == 0


def test_a_folder_that_will_not_do_leaves_no_run(twostep, mine):
    (mine / "train" / "00.png").write_bytes(b"no image")
    outcome = twostep(*single_arguments("mine", "out"))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"{mine / 'train' / '00.png'}: not an image, or damaged")
    assert not Path("out").exists()
