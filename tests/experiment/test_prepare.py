"""Checks before training: latent coordinates, batches, scales of columns; data that moved, changed or are gone."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch

from helpers.experiments import asked, trained
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.load import load_data, located
from twostep.experiment.prepare import resume, start
from twostep.models import MODELS
from twostep.models.two_step import latent_spec
from twostep.runs.directory import Run
from twostep.runs.overrides import Request

VECTORS = DataSpec(name="mine", shape=(3,), size=40, low=-1, high=1)


@pytest.fixture
def mine(tmp_path):
    """Give a file of 60 vectors of length 3."""
    file = tmp_path / "data" / "mine.npy"
    file.parent.mkdir()
    np.save(file, np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    return file


def runs(root):
    return list(root.glob("runs/*"))


# ---- latent coordinates


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_an_autoencoder_has_by_default_fewer_latents_than_its_data_have_coordinates(name):
    preset = MODELS[name].for_data
    for dim, latent in ((2, 1), (3, 2), (8, 4), (21, 11), (39, 20), (50, 20)):
        assert preset(DataSpec(name="wide", shape=(dim,), size=9, low=0, high=1), "gae").latent_dim == latent
    assert preset(VECTORS, "gae", preset="reference").latent_dim == 3
    assert preset(VECTORS, "gae", latent_dim=2).latent_dim == 2


def test_a_density_may_have_more_latents_than_coordinates():
    assert MODELS["vae"].for_data(VECTORS, "de").latent_dim == 20
    assert MODELS["vae"].for_data(latent_spec(VECTORS, 2), "de").latent_dim == 20


@pytest.mark.parametrize("models", [("ae", "flow"), ("vae", "flow"), ("ae",), ("vae",)])
def test_more_latents_than_coordinates_are_refused_for_an_autoencoder(mine, tmp_path, models):
    part = "gae" if len(models) == 2 else "model"
    with pytest.raises(UserError) as caught:
        start(asked(models, mine, tmp_path / "runs", **{part: {"latent_dim": 4}}))
    assert str(caught.value) == (
        f"latent_dim=4 of {models[0]} is more than the 3 coordinates of {mine}: set latent_dim=3 or less"
    )
    assert not runs(tmp_path)


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_as_many_latents_as_coordinates_give_a_finite_density(mine, tmp_path, name):
    experiment = trained(asked((name, "flow"), mine, tmp_path / "runs", gae={"latent_dim": 3}))
    assert torch.isfinite(experiment.module.eval().log_prob(experiment.splits.test)).all()


# ---- batches


def test_the_default_batch_gives_way_to_small_data_and_the_run_says_so(mine, tmp_path):
    request = Request(
        {"model": "flow"},
        {"run": {"dataset": str(mine), "logdir_root": tmp_path / "runs", "device": "cpu"}, "model": {"max_epochs": 1}},
    )
    experiment = start(request)
    experiment.fit()
    assert experiment.trainer.steps_done == 1
    experiment.run.close()
    assert Run.open(experiment.run.path).settings.run.train_batch_size == len(experiment.splits.train) == 44
    resume(experiment.run.path).run.close()


def test_a_batch_that_was_asked_for_must_fit(mine, tmp_path):
    start(asked(("flow",), mine, tmp_path / "runs", run={"train_batch_size": 44})).run.close()
    with pytest.raises(UserError, match=r"train_batch_size=45 is more than the 44 training rows of .*=44 or less"):
        start(asked(("flow",), mine, tmp_path / "runs", run={"train_batch_size": 45}))


# ---- scales of columns


@pytest.mark.parametrize(
    ("models", "std", "keys", "hinted"),
    [
        (("ae", "flow"), 2e3, {}, True),
        (("ae",), 2e3, {}, True),
        (("ae", "flow"), 2e2, {}, False),
        (("ae",), 2e3, {"whitening_transform": True, "scale_data": False}, False),
        (("flow",), 2e3, {}, False),
        (("flow",), 2e3, {"whitening_transform": False, "scale_data": True}, True),
    ],
)
def test_columns_that_one_scale_makes_too_small_are_reported_once(tmp_path, caplog, models, std, keys, hinted):
    file = tmp_path / "mine.npy"
    np.save(file, np.random.default_rng(0).normal(size=(60, 3)) * [1, std, 1])
    with caplog.at_level(logging.WARNING, "twostep"):
        start(asked(models, file, tmp_path / "runs", model=keys)).run.close()
    hints = [line for line in caplog.messages if "whitening_transform=True" in line]
    assert len(hints) == hinted
    assert all(line.startswith(f"{file}: the standard deviations") for line in hints)


# ---- data that moved, changed or are gone


def test_only_files_are_located(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    assert located("mine.npy") == located(str(mine)) == str(mine)
    assert located("none.npz") == str(mine.parent / "none.npz")
    shutil.copy(mine, "numbers")
    shutil.copy(mine, "digits")
    assert located("numbers") == str(mine.parent / "numbers")
    assert located("digits") == "digits"
    assert located("nothing") == "nothing"


def test_a_run_on_a_relative_path_resumes_from_another_folder(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(mine.parent)
    path = trained(asked(("flow",), "mine.npy", tmp_path / "runs")).run.path
    monkeypatch.chdir(tmp_path)
    again = resume(path)
    assert again.settings.run.dataset == again.splits.spec.name == str(mine)


def test_data_that_are_gone_are_asked_for_and_found_in_their_new_place(mine, tmp_path, monkeypatch):
    path = trained(asked(("flow",), mine, tmp_path / "runs")).run.path
    rows = load_data(str(mine)).train
    moved = mine.rename(tmp_path / "elsewhere.npy")
    for writing, advice in ((True, "dataset=PATH"), (False, "--data PATH")):
        with pytest.raises(UserError) as caught:
            resume(path, writing=writing)
        assert str(caught.value).startswith(f"{mine}: no such file")
        assert advice in str(caught.value)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(resume(path, {"run": {"dataset": moved.name}}).splits.train, rows)


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("change", ["one value", "order", "another file", "another set"])
def test_other_data_are_refused_as_far_as_they_can_be_known(mine, tmp_path, hashed, change):
    path = trained(asked(("flow",), mine, tmp_path / "runs")).run.path
    if not hashed:
        facts = json.loads((path / "data.json").read_text())
        (path / "data.json").write_text(json.dumps({key: facts[key] for key in facts if key != "sha256"}))
    rows = np.load(mine)
    dataset = {}
    if change == "one value":
        middle = np.argsort(rows[:, 1])[30]
        rows[middle, 1] = np.nextafter(rows[middle, 1], np.float32(np.inf))
        np.save(mine, rows)
    elif change == "order":
        np.save(mine, rows[::-1])
    elif change == "another file":
        np.save(tmp_path / "other.npy", rows + np.float32(1))
        dataset = {"dataset": str(tmp_path / "other.npy")}
    else:
        dataset = {"dataset": "digits"}
    if change == "one value" and not hashed:
        resume(path)
        return
    with pytest.raises(UserError) as caught:
        resume(path, {"run": dataset})
    place = dataset.get("dataset", mine)
    assert str(caught.value).startswith(f"{path}: {place} does not hold the data")
    assert "\n" not in str(caught.value)


def test_a_run_without_a_hash_opens_under_a_relative_name(mine, tmp_path, monkeypatch):
    path = trained(asked(("flow",), mine, tmp_path / "runs")).run.path
    facts = json.loads((path / "data.json").read_text())
    assert len(facts.pop("sha256")) == 64
    (path / "data.json").write_text(json.dumps({**facts, "name": "mine.npy"}))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "dataset": "mine.npy"}))
    resume(path, {"run": {"dataset": str(mine)}})
    monkeypatch.chdir(mine.parent)
    resume(path)


def test_a_digest_shows_every_change_of_rows_and_nothing_else():
    train, valid, test = torch.arange(12.0).view(4, 3), torch.ones(1, 3), torch.zeros(2, 3)
    spec, digest = VECTORS, Splits(VECTORS, train, valid, test).digest()
    assert Splits(spec.model_copy(update={"name": "x"}), train.clone(), valid, test).digest() == digest
    assert Splits(spec, train.t().contiguous().t(), valid, test).digest() == digest
    others = [
        Splits(spec, train.flip(0), valid, test),
        Splits(spec, train, None, test),
        Splits(spec, train, test[:1], test),
        Splits(spec, train, valid, test[:1]),
        Splits(spec, train.view(2, 6), valid, test),
        Splits(spec, train.to(torch.uint8), valid, test),
        Splits(spec, train, test, valid),
    ]
    assert len({digest, *(other.digest() for other in others)}) == 1 + len(others)
