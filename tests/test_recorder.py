"""What a run's directory, the log and the curves tell of training, and how training is asked to stop."""

import itertools
import logging
import os
import re
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import asked, break_off, make_older, trained
from twostep import checkpoint
from twostep.launch import resume, start
from twostep.training.trainer import InterruptedTraining

TEN_STEPS = {"train_batch_size": 4}  # 45 training rows: 12 batches an epoch


@pytest.fixture(autouse=True)
def _hear_everything(caplog):
    caplog.set_level(logging.INFO, logger="twostep")


def curves(path):
    accumulator = EventAccumulator(str(path))
    accumulator.Reload()
    return accumulator


def points(path, name):
    return [(event.step, event.value) for event in curves(path).Scalars(name)]


def steps(path, name):
    return [step for step, _ in points(path, name)]


# ---- curves


def test_curves_hold_every_tenth_step_and_every_epoch(own_pictures, tmp_path):
    experiment = trained(asked(("vae",), own_pictures, tmp_path, run=TEN_STEPS))
    path, history = experiment.run.path, experiment.trainers["model"].history
    assert steps(path, "model/train/loss") == [10, 20, 30, 40]
    for kind, key in (("epoch", "losses"), ("valid", "valid")):
        expected = [(12 * (epoch + 1), entry[key]["loss"]) for epoch, entry in enumerate(history)]
        assert points(path, f"model/{kind}/loss") == [(step, pytest.approx(value)) for step, value in expected]


def test_two_models_have_curves_of_their_own_one_after_the_other(own_pictures, tmp_path):
    path = trained(asked(("ae", "flow"), own_pictures, tmp_path, run=TEN_STEPS)).run.path
    assert steps(path, "gae/train/loss") == [10, 20, 30, 40]
    # the density's tenth step is the run's 58th
    assert steps(path, "de/train/loss") == [58, 68, 78, 88]
    assert steps(path, "gae/epoch/loss") == [12, 24, 36, 48]
    assert steps(path, "de/epoch/loss") == [60, 72, 84, 96]


@pytest.mark.parametrize("place", ["step 17", "step 20", "epoch model 1", "epoch model 3", "end model"])
def test_curves_of_a_resumed_run_have_no_doubles_and_no_gaps(own_pictures, tmp_path, place):
    whole = trained(asked(("vae",), own_pictures, tmp_path / "whole", run=TEN_STEPS)).run.path
    first = start(asked(("vae",), own_pictures, tmp_path / "broken", run=TEN_STEPS))
    assert break_off(first, place)
    make_older(first.run.path)
    second = resume(first.run.path)
    second.fit()
    second.test()
    second.draw()
    second.run.close()
    for name in ("model/train/loss", "model/epoch/loss", "model/valid/loss"):
        assert points(first.run.path, name) == points(whole, name)


def test_steps_after_the_last_checkpoint_are_told_once(own_pictures, tmp_path):
    """A process that is killed has told of steps that its successor takes again."""
    experiment = start(asked(("vae",), own_pictures, tmp_path, run=TEN_STEPS))
    trainer = experiment.trainers["model"]
    step = trainer.step

    def die_at_33(rows):
        if trainer.steps_done == 33:
            raise InterruptedTraining
        return step(rows)

    trainer.step = die_at_33
    with pytest.raises(InterruptedTraining):
        experiment.fit()
    experiment.run.close()
    path = experiment.run.path
    assert steps(path, "model/train/loss") == [10, 20, 30]
    make_older(path)
    second = resume(path)
    assert second.trainers["model"].steps_done == 24
    second.fit()
    second.run.close()
    assert steps(path, "model/train/loss") == [10, 20, 30, 40]


def test_testing_again_leaves_the_curves(own_pictures, tmp_path):
    path = trained(asked(("vae",), own_pictures, tmp_path, run=TEN_STEPS)).run.path
    before = points(path, "model/epoch/loss")
    make_older(path)
    again = resume(path)
    again.test()
    again.draw()
    again.run.close()
    assert points(path, "model/epoch/loss") == before
    assert len(before) == 4
    assert set(curves(path).Tags()["images"]) == {"samples", "reconstructions"}


# ---- checkpoints


def saved(experiment):
    """Note the tags and places at which the experiment saves."""
    notes = []
    save = experiment.run.save

    def note(tag, state):
        notes.append((tag, sum(value for key, value in state.values.items() if key.endswith("steps_done"))))
        save(tag, state)

    experiment.run.save = note
    return notes


def test_every_epoch_leaves_a_checkpoint(own_pictures, tmp_path):
    experiment = start(asked(("ae", "flow"), own_pictures, tmp_path))
    notes = saved(experiment)
    experiment.fit()
    assert notes == [("latest", 3 * epoch) for epoch in range(1, 9)]
    assert not (experiment.run.path / "checkpoints" / "best_valid.safetensors").exists()


def test_the_best_is_saved_when_it_is_found_and_at_the_end(own_pictures, tmp_path):
    keys = {"early_stopping_metric": "loss"}
    experiment = start(asked(("ae", "flow"), own_pictures, tmp_path, gae=keys))
    values = iter([3.0, 1.0, 2.0, 2.0])
    experiment.trainers["gae"].validate = lambda batches: {"loss": next(values)}
    notes = saved(experiment)
    experiment.fit()
    assert [step for tag, step in notes if tag == "best_valid"] == [3, 6, 12, 24]
    best = experiment.run.load("best_valid")
    assert best.values["gae.best_value"] == 1.0
    assert best.part("gae").part("best").tensors.keys() == best.part("gae").part("model").tensors.keys()


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, [*range(1, 13)]), (10.0, [])])
def test_a_long_epoch_leaves_checkpoints_inside(own_pictures, tmp_path, minutes, expected):
    run = {"train_batch_size": 4, "checkpoint_minutes": minutes}
    experiment = start(asked(("ae",), own_pictures, tmp_path, run=run, model={"max_epochs": 1}))
    notes = saved(experiment)
    experiment.fit()
    assert [step for _, step in notes] == [*expected, 12]


def test_a_checkpoint_holds_what_its_moment_was(own_pictures, tmp_path):
    experiment = start(asked(("vae",), own_pictures, tmp_path))
    assert break_off(experiment, "step 4")
    state = checkpoint.load(experiment.run.path / "checkpoints" / "latest.safetensors").part("model")
    assert (state.values["epochs_done"], state.values["batches_done"], state.values["steps_done"]) == (1, 1, 4)
    assert len(state.values["history"]) == 1
    assert state.part("sums").tensors.keys() == {"loss"}
    weights = experiment.models["model"].state_dict()
    assert all(torch.equal(state.tensors[f"model.{key}"], value) for key, value in weights.items())
    assert float(weights["mean_square.weight"]) == pytest.approx(1 - 0.9**4), "of four steps"


# ---- log lines


def test_each_epoch_is_one_line_with_losses_and_speed(own_pictures, tmp_path, caplog):
    experiment = trained(asked(("ae", "flow"), own_pictures, tmp_path))
    lines = [record.message for record in caplog.records if getattr(record, "epoch_line", False)]
    assert [line.partition(": ")[0] for line in lines] == ["gae ae"] * 4 + ["de flow"] * 4
    for count, line in enumerate(lines[:4]):
        entry = experiment.trainers["gae"].history[count]
        losses, valid = (f"loss {entry[kind]['loss']:.4g}, " for kind in ("losses", "valid"))
        assert line.startswith(f"gae ae: epoch {count + 1}/4: {losses}valid {valid}")
        assert line.endswith("s left at most for this model")
        assert "samples/s" in line


def test_a_long_epoch_is_told_of_on_the_way(own_pictures, tmp_path, caplog, monkeypatch):
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr("twostep.recorder.time.monotonic", lambda: next(clock))
    experiment = start(asked(("ae",), own_pictures, tmp_path, run=TEN_STEPS, model={"max_epochs": 2}))
    experiment.fit()
    experiment.run.close()
    lines = [record.message for record in caplog.records if getattr(record, "epoch_line", False)]
    within = [
        re.match(r"model ae: (\d+)% of epoch (\d)/2: loss \S+, [\d,]+ samples/s, (\d+) s left at m", x) for x in lines
    ]
    shares = [int(match[1]) for match in within if match and match[2] == "1"]
    assert shares[:2] == sorted(shares[:2])
    assert all(0 < share < 100 for share in shares)
    assert 2 <= len(shares) < 12, "not at every step"
    left = [int(match[3]) for match in within if match]
    assert left[-1] < left[0]
    assert lines[-1].endswith(", 0 s left at most")
    assert len([line for line in lines if line.startswith("model ae: epoch ")]) == 2


def test_each_of_two_that_take_turns_has_its_own_time(own_pictures, tmp_path, caplog, monkeypatch):
    """A step of the autoencoder takes 2 s, one of the density 5 s: 3 batches of 16 rows, 4 epochs."""
    now = [0.0]
    monkeypatch.setattr("twostep.recorder.time.monotonic", lambda: now[0])
    for schedule in ({"alternate_by_epoch": True}, {"alternate_by_epoch": False}):
        caplog.clear()
        run = {"sequential_training": False, **schedule}
        experiment = start(asked(("ae", "flow"), own_pictures, tmp_path, run=run))
        for part, seconds in (("gae", 2.0), ("de", 5.0)):
            trainer = experiment.trainers[part]

            def step(rows, trainer=trainer, seconds=seconds, take=trainer.step):
                now[0] += seconds
                return take(rows)

            trainer.step = step
        experiment.fit()
        experiment.run.close()
        lines = [record.message for record in caplog.records if getattr(record, "epoch_line", False)]
        lines = [line for line in lines if ": epoch " in line]
        assert len(lines) == 8
        assert lines[0].endswith("8 samples/s, 18 s left at most for this model"), lines
        assert lines[1].endswith("3 samples/s, 45 s left at most for this model"), lines


def test_two_that_take_turns_share_the_terminal(own_pictures, tmp_path, monkeypatch):
    drawn = []

    class Bar:
        def __init__(self, name, total, done, beside=None):
            drawn.append((name, beside))

        def update(self, done, shown):
            assert not self.closed

        closed = False

        def close(self):
            self.closed = True

    monkeypatch.setattr("twostep.recorder.Bar", Bar)
    experiment = start(asked(("ae", "flow"), own_pictures, tmp_path, run={"sequential_training": False}))
    experiment.fit()
    experiment.run.close()
    (first, alone), (second, beside) = drawn
    assert (first, second, alone) == ("gae ae", "de flow", None)
    assert isinstance(beside, Bar)
    assert experiment.recorder._bars == {}
    drawn.clear()
    trained(asked(("ae", "flow"), own_pictures, tmp_path / "one after the other"))
    assert [name for name, _ in drawn] == ["gae ae", "de flow"]
    assert [beside for _, beside in drawn] == [None, None]


@pytest.mark.parametrize("place", ["step 5", "step 6"])
def test_training_that_goes_on_says_from_where(own_pictures, tmp_path, caplog, place):
    experiment = start(asked(("ae",), own_pictures, tmp_path))
    assert break_off(experiment, place)
    assert "going on" not in caplog.text
    again = resume(experiment.run.path)
    again.fit()
    again.run.close()
    assert f"model ae: going on from epoch 2/4 (step {place.split()[1]})" in caplog.messages


@pytest.mark.parametrize(("value", "shown"), [(2.5, "best 2.5"), (float("nan"), "never a number")])
def test_early_stopping_is_told_with_its_reason(own_pictures, tmp_path, caplog, value, shown):
    keys = {"early_stopping_metric": "loss", "max_bad_valid_epochs": 2}
    experiment = start(asked(("ae",), own_pictures, tmp_path, model=keys))
    experiment.trainers["model"].validate = lambda batches: {"loss": value}
    experiment.fit()
    assert f"model: stopped early after epoch {2 if value != value else 3}; loss: {shown}" in caplog.messages


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_under_way_and_keeps_it(own_pictures, tmp_path, number):
    experiment = start(asked(("ae",), own_pictures, tmp_path))
    trainer, before = experiment.trainers["model"], signal.getsignal(number)
    step = trainer.step

    def step_and_signal(rows):
        if trainer.steps_done == 4:
            os.kill(os.getpid(), number)
        return step(rows)

    trainer.step = step_and_signal
    with pytest.raises(InterruptedTraining):
        experiment.fit()
    assert signal.getsignal(number) is before, "the handler is put back"
    assert experiment.run.load("latest").values["model.steps_done"] == 5


def test_a_second_signal_stops_at_once(own_pictures, tmp_path):
    experiment = start(asked(("ae",), own_pictures, tmp_path))
    trainer = experiment.trainers["model"]

    def stuck(rows):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal is ignored")

    trainer.step = stuck
    with pytest.raises(KeyboardInterrupt):
        experiment.fit()
