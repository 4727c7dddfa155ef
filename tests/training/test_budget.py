"""Limits in steps and in minutes: what is trained, at which rates, and what a resumed run keeps."""

import time

import numpy as np
import pytest
import torch

from helpers.experiments import asked, break_off, differences, snapshot, trained
from helpers.toys import Watcher, build, trainer_of
from twostep.core.keys import FitKeys, with_epochs_for_steps
from twostep.core.schema import UserError
from twostep.experiment.prepare import resume, start
from twostep.models.base import OptimizerConfig
from twostep.training import trainer as training
from twostep.training.budget import gae_share
from twostep.training.fit import fit
from twostep.training.optim import cosine


class Slow(Watcher):
    """Lets the clock go on by a number of seconds a step."""

    def __init__(self, monkeypatch, seconds):
        super().__init__()
        self.now = 0.0
        self.seconds = seconds
        monkeypatch.setattr(training.time, "monotonic", lambda: self.now)

    def step(self, trainer, losses):
        super().step(trainer, losses)
        self.now += self.seconds


def test_steps_end_training_inside_of_an_epoch_and_the_schedule_with_it():
    """20 rows in batches of 8 are 3 steps an epoch; 7 steps end inside of the third one, which is validated."""
    watcher = Watcher()
    trainer = trainer_of(build("ae", max_steps=7, max_epochs=100, use_lr_scheduler=True), watcher)
    trainer.run()
    assert (trainer.steps_done, trainer.epochs_done, len(trainer.history)) == (7, 3, 3)
    config = OptimizerConfig(1e-3, True)
    assert [rates["loss"] for rates in watcher.rates] == pytest.approx([cosine(config, step / 7) for step in range(7)])
    assert watcher.calls[-4:] == ["best 3", "checkpoint", "epoch", "end"]
    assert trainer.finished


def test_the_first_limit_that_is_reached_ends_training():
    trainer = trainer_of(build("ae", max_steps=100, max_epochs=2))
    trainer.run()
    assert (trainer.steps_done, trainer.epochs_done) == (6, 2)


def test_without_a_limit_the_rates_are_those_of_epochs():
    watcher = Watcher()
    trainer_of(build("ae", max_epochs=2, use_lr_scheduler=True), watcher).run()
    config = OptimizerConfig(1e-3, True)
    assert [rates["loss"] for rates in watcher.rates] == [cosine(config, (i // 3 + i % 3 / 3) / 2) for i in range(6)]


def test_time_ends_training_and_the_schedule_with_it(monkeypatch):
    watcher = Slow(monkeypatch, 2.0)
    trainer = trainer_of(build("ae", max_epochs=100, use_lr_scheduler=True), watcher)
    trainer.max_seconds = 10.0
    trainer.run()
    assert trainer.finished
    assert trainer.seconds_done >= 10.0
    assert 5 <= trainer.steps_done <= 7
    rates = [rates["loss"] for rates in watcher.rates]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]
    state = trainer.state_dict()
    assert state.values["seconds_done"] == trainer.seconds_done
    again = trainer_of(build("ae", max_epochs=100))
    again.max_seconds = 10.0
    again.load_state_dict(state)
    assert again.finished
    again.max_seconds = 100.0
    assert not again.finished


def test_fit_takes_steps_without_epochs():
    watcher = Watcher()
    fit(build("ae"), torch.randn(40, 3), valid=None, max_steps=205, batch_size=20, callbacks=[watcher])
    assert len(watcher.losses) == 205
    with pytest.raises(UserError):
        fit(build("ae"), torch.randn(40, 3), max_steps=0)


@pytest.mark.parametrize(
    ("batches", "given", "expected"),
    [
        (30, {}, (None, 100, 25)),
        (1000, {}, (None, 10, 10)),  # ten epochs of many rows
        (4, {}, (None, 750, 188)),
        (30, {"max_bad_valid_epochs": 3}, (None, 100, 3)),
        (30, {"max_epochs": 7}, (None, 7, 10)),
        (30, {"max_steps": 45}, (45, 2, 10)),
        (3, {"max_steps": 600}, (600, 200, 50)),
        (30, {"max_steps": 45, "max_epochs": 1}, (45, 1, 10)),
    ],
)
def test_a_default_length_in_steps_is_one_in_epochs_that_can_be_raised(batches, given, expected):
    keys = FitKeys.parse({"max_steps": 3000, **given}, "keys")
    found = with_epochs_for_steps(keys, given, batches)
    assert (found.max_steps, found.max_epochs, found.max_bad_valid_epochs) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"early_stopping_metric": "loss"}, (20 * 100, 25)),
        ({}, (100, 25)),  # nothing would end it but time
        ({"early_stopping_metric": "loss", "max_epochs": 7}, (7, 10)),
        ({"early_stopping_metric": "loss", "max_steps": 600}, (20, 10)),
    ],
)
def test_where_time_ends_training_a_default_length_does_not(given, expected):
    keys = FitKeys.parse({"max_steps": 3000, **given}, "keys")
    found = with_epochs_for_steps(keys, given, 30, timed=True)
    assert (found.max_epochs, found.max_bad_valid_epochs) == expected


def test_the_costlier_step_has_the_larger_share():
    train = trainer_of(build("ae")).data
    cheap, costly = build("ae", max_epochs=1), build("ae", max_epochs=50)
    first = gae_share(trainer_of(costly), trainer_of(cheap), train)
    second = gae_share(trainer_of(cheap), trainer_of(costly), train)
    assert (first, second) == (0.8, 0.2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 4)).astype("float32"))
    return path


def test_a_run_keeps_to_its_minutes(rows, tmp_path, caplog):
    caplog.set_level("INFO", "twostep")
    request = asked(
        ("ae", "flow"), rows, tmp_path, {"max_minutes": 1 / 60}, gae={"max_epochs": 10**6}, de={"max_epochs": 10**6}
    )
    began = time.monotonic()
    experiment = trained(request)
    assert time.monotonic() - began < 20
    gae, de = experiment.trainers
    assert gae.finished
    assert de.finished
    assert gae.steps_done
    assert de.steps_done
    assert 0.9 < gae.seconds_done + de.seconds_done < 3
    assert 0.2 <= gae.time_share <= 0.8
    assert "minutes are over" in caplog.text
    again = resume(experiment.run.path)
    assert all(
        trainer.time_share == before.time_share for trainer, before in zip(again.trainers, (gae, de), strict=True)
    )
    again.fit()
    assert [one.steps_done for one in again.trainers] == [gae.steps_done, de.steps_done]


def test_a_density_is_trained_where_encoding_took_all_the_time(rows, tmp_path, caplog, monkeypatch):
    """It gets a fifth of the time, and a warning says so."""
    request = asked(("ae", "flow"), rows, tmp_path, {"max_minutes": 1e-3}, de={"max_epochs": 10**6})
    experiment = start(request)
    embed = experiment.trainer.embed

    def slow(batches):
        time.sleep(0.1)
        return embed(batches)

    monkeypatch.setattr(experiment.trainer, "embed", slow)
    experiment.fit()
    experiment.run.close()
    assert experiment.trainers[1].steps_done > 0
    assert "encoding the data took" in caplog.text


def test_a_run_limited_in_steps_resumes_to_the_bit(rows, tmp_path):
    keys = {"gae": {"max_steps": 5}, "de": {"max_steps": 4}}
    whole = trained(asked(("ae", "flow"), rows, tmp_path / "one", **keys))
    assert [one.steps_done for one in whole.trainers] == [5, 4]
    other = start(asked(("ae", "flow"), rows, tmp_path / "two", **keys))
    assert break_off(other, "step 5")
    again = resume(other.run.path)
    again.fit()
    again.run.close()
    assert differences(snapshot(whole), snapshot(again)) == []


def test_a_first_step_that_explains_nothing_and_few_steps_are_reported(rows, tmp_path, caplog, advice):
    caplog.set_level("WARNING", "twostep")
    experiment = trained(asked(("ae",), rows, tmp_path, model={"max_epochs": 1, "lr": 1e-6}))
    results = experiment.test()
    assert "steps in all" in caplog.text
    assert "of the variance: embeddings say little" in caplog.text
    assert "max_epochs" in results["model"]["explained_variance"].note
    assert "max_epochs" in experiment.run.read_metrics("test")["model"]["explained_variance"].note
