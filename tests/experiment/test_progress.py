"""What a run's directory, the log and the curves say of training, and how training is asked to stop."""

import importlib
import itertools
import logging
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.experiments import asked, break_off, differences, make_older, trained
from twostep import load_module, load_run
from twostep.core import checkpoint, signals
from twostep.core.schema import UserError
from twostep.experiment.load import load_finished
from twostep.experiment.prepare import resume, start
from twostep.training.callbacks import Callback, InterruptedTraining

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


def test_curves_hold_every_tenth_step_and_every_epoch(own_images, tmp_path):
    experiment = trained(asked(("vae",), own_images, tmp_path, run=TEN_STEPS))
    path, history = experiment.run.path, experiment.trainer.history
    assert steps(path, "model/train/loss") == [10, 20, 30, 40]
    for kind, key in (("epoch", "losses"), ("valid", "valid")):
        expected = [(12 * (epoch + 1), entry[key]["loss"]) for epoch, entry in enumerate(history)]
        assert points(path, f"model/{kind}/loss") == [(step, pytest.approx(value)) for step, value in expected]


def test_two_models_have_curves_of_their_own_one_after_the_other(own_images, tmp_path):
    path = trained(asked(("ae", "flow"), own_images, tmp_path, run=TEN_STEPS)).run.path
    assert steps(path, "gae/train/loss") == [10, 20, 30, 40]
    # the density's tenth step is the run's 58th
    assert steps(path, "de/train/loss") == [58, 68, 78, 88]
    assert steps(path, "gae/epoch/loss") == [12, 24, 36, 48]
    assert steps(path, "de/epoch/loss") == [60, 72, 84, 96]


@pytest.mark.parametrize("place", ["step 17", "step 20", "epoch model 1", "epoch model 3", "end model"])
def test_curves_of_a_resumed_run_have_no_doubles_and_no_gaps(own_images, tmp_path, place):
    whole = trained(asked(("vae",), own_images, tmp_path / "whole", run=TEN_STEPS)).run.path
    first = start(asked(("vae",), own_images, tmp_path / "broken", run=TEN_STEPS))
    assert break_off(first, place)
    make_older(first.run.path)
    second = resume(first.run.path)
    second.fit()
    second.test()
    second.draw()
    second.run.close()
    for name in ("model/train/loss", "model/epoch/loss", "model/valid/loss"):
        assert points(first.run.path, name) == points(whole, name)


def test_steps_after_the_last_checkpoint_are_reported_once(own_images, tmp_path):
    """A process that is killed has logged steps that its successor takes again."""
    experiment = start(asked(("vae",), own_images, tmp_path, run=TEN_STEPS))
    trainer = experiment.trainer
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
    assert second.trainer.steps_done == 24
    second.fit()
    second.run.close()
    assert steps(path, "model/train/loss") == [10, 20, 30, 40]


def test_testing_again_leaves_the_curves(own_images, tmp_path):
    path = trained(asked(("vae",), own_images, tmp_path, run=TEN_STEPS)).run.path
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


def test_every_epoch_leaves_a_checkpoint(own_images, tmp_path):
    experiment = start(asked(("ae", "flow"), own_images, tmp_path))
    notes = saved(experiment)
    experiment.fit()
    assert notes == [("latest", 3 * epoch) for epoch in range(1, 9)]
    assert not (experiment.run.path / "checkpoints" / "best_valid.safetensors").exists()


def first_of_two_best(experiment, part="gae"):
    """Let the first epoch of a model be its best."""
    trainer = next(one for one in experiment.trainers if one.name == part)
    trainer.validate = lambda *_: {"loss": 1.0 + trainer.epochs_done}


def test_the_best_is_saved_when_it_is_found_and_then_with_every_epoch_of_a_density_without_a_best(own_images, tmp_path):
    experiment = start(asked(("ae", "flow"), own_images, tmp_path, gae={"early_stopping_metric": "loss"}))
    values = iter([3.0, 1.0, 2.0, 2.0])
    experiment.trainer.gae.validate = lambda *_: {"loss": next(values)}
    notes = saved(experiment)
    experiment.fit()
    assert [step for tag, step in notes if tag == "best_valid"] == [3, 6, 15, 18, 21, 24]
    assert notes[-2:] == [("best_valid", 24), ("latest", 24)], "the latest of an epoch is never older than the best"
    best = experiment.run.load(best_first=True)
    assert best.values["gae.best_value"] == 1.0
    assert best.under("gae").under("best").tensors.keys() == best.under("gae").under("model").tensors.keys()
    assert differences(best, experiment.run.load()) == []


def test_the_best_file_is_the_state_at_the_best_epoch_to_the_end(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path, model={"early_stopping_metric": "loss"}))
    first_of_two_best(experiment, "model")
    after_epoch, watcher = [], Callback()
    watcher.epoch = lambda trainer: after_epoch.append(experiment.run.load())
    experiment.callbacks.append(watcher)
    experiment.fit()
    experiment.test()
    experiment.run.close()
    assert differences(experiment.run.load(best_first=True), after_epoch[0]) == []
    history = experiment.run.read_history()
    again = resume(experiment.run.path, best_first=True)
    assert again.trainer.epochs_done == 1
    assert again.test() == experiment.test()
    assert again.run.read_history() == history, "that of all epochs stays"


@pytest.mark.parametrize("stops", ["gae", "de"])
def test_a_process_that_dies_before_any_save_leaves_files_as_if_it_had_not(own_images, tmp_path, stops):
    """Two epochs of each; of the one that stops early the first is the best; the other has no early stopping."""
    keys = {part: {"max_epochs": 2} for part in ("gae", "de")}
    keys[stops]["early_stopping_metric"] = "loss"

    def prepared(experiment):
        first_of_two_best(experiment, stops)
        return experiment

    whole = prepared(start(asked(("ae", "vae"), own_images, tmp_path / "whole", **keys)))
    notes = saved(whole)
    whole.fit()
    whole.run.close()
    assert len(notes) == {"gae": 7, "de": 5}[stops]
    for number in range(len(notes)):
        first = prepared(start(asked(("ae", "vae"), own_images, tmp_path / str(number), **keys)))
        save, count = first.run.save, itertools.count()

        def die(tag, state, save=save, count=count, number=number):
            if next(count) == number:
                raise InterruptedTraining
            save(tag, state)

        first.run.save = die
        with pytest.raises(InterruptedTraining):
            first.fit()
        first.run.close()
        path = first.run.path
        if first.run.has_checkpoint("best_valid") and not first.run.load(best_first=True).values["de.steps_done"]:
            with pytest.raises(UserError, match="de is not trained yet"):
                load_module(path, best_first=True)
        second = prepared(resume(path))
        second.fit()
        second.run.close()
        for best_first in (False, True):
            assert differences(second.run.load(best_first), whole.run.load(best_first)) == [], (number, best_first)


@pytest.mark.parametrize("look", [load_finished, load_module, load_run])
def test_a_density_that_is_not_trained_yet_is_refused(own_images, tmp_path, look):
    experiment = start(asked(("ae", "flow"), own_images, tmp_path))
    assert break_off(experiment, "epoch gae 2")
    with pytest.raises(UserError, match="de is not trained yet"):
        look(experiment.run.path)
    again = resume(experiment.run.path)
    assert break_off(again, "epoch de 1")
    look(experiment.run.path)


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, [*range(1, 13)]), (10.0, [])])
def test_a_long_epoch_leaves_checkpoints_inside(own_images, tmp_path, minutes, expected):
    run = {"train_batch_size": 4, "checkpoint_minutes": minutes}
    experiment = start(asked(("ae",), own_images, tmp_path, run=run, model={"max_epochs": 1}))
    notes = saved(experiment)
    experiment.fit()
    assert [step for _, step in notes] == [*expected, 12]


def test_a_checkpoint_holds_what_its_moment_was(own_images, tmp_path):
    experiment = start(asked(("vae",), own_images, tmp_path))
    assert break_off(experiment, "step 4")
    state = checkpoint.load(experiment.run.path / "checkpoints" / "latest.safetensors").under("model")
    assert (state.values["epochs_done"], state.values["batches_done"], state.values["steps_done"]) == (1, 1, 4)
    assert len(state.values["history"]) == 1
    assert state.under("sums").tensors.keys() == {"loss"}
    weights = experiment.module.state_dict()
    assert all(torch.equal(state.tensors[f"model.{key}"], value) for key, value in weights.items())
    assert float(weights["mean_square.weight"]) == pytest.approx(1 - 0.9**4), "of four steps"


# ---- log lines


def test_each_epoch_is_one_line_with_losses_and_speed(own_images, tmp_path, caplog):
    experiment = trained(asked(("ae", "flow"), own_images, tmp_path))
    lines = [record.message for record in caplog.records if getattr(record, "epoch_line", False)]
    assert [line.partition(": ")[0] for line in lines] == ["gae ae"] * 4 + ["de flow"] * 4
    for count, line in enumerate(lines[:4]):
        entry = experiment.trainer.gae.history[count]
        losses, valid = (f"loss {entry[kind]['loss']:.4g}, " for kind in ("losses", "valid"))
        assert line.startswith(f"gae ae: epoch {count + 1}/4: {losses}valid {valid}")
        assert line.endswith("s left at most for this model")
        assert "samples/s" in line


def test_a_long_epoch_is_logged_on_the_way(own_images, tmp_path, caplog, monkeypatch):
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr("twostep.experiment.progress.time.monotonic", lambda: next(clock))
    experiment = start(asked(("ae",), own_images, tmp_path, run=TEN_STEPS, model={"max_epochs": 2}))
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


def test_each_of_two_that_take_turns_has_its_own_time(own_images, tmp_path, caplog, monkeypatch):
    """A step of the autoencoder takes 2 s, one of the density 5 s: 3 batches of 16 rows, 4 epochs."""
    now = [0.0]
    monkeypatch.setattr("twostep.experiment.progress.time.monotonic", lambda: now[0])
    for schedule in ({"alternate_by_epoch": True}, {"alternate_by_epoch": False}):
        caplog.clear()
        run = {"sequential_training": False, **schedule}
        experiment = start(asked(("ae", "flow"), own_images, tmp_path, run=run))
        for part, seconds in (("gae", 2.0), ("de", 5.0)):
            trainer = next(one for one in experiment.trainers if one.name == part)

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


def test_two_that_take_turns_share_the_terminal(own_images, tmp_path, monkeypatch):
    drawn = []

    class ProgressBar:
        def __init__(self, name, total, done, beside=None):
            drawn.append((name, beside))

        def update(self, done, shown):
            assert not self.closed

        closed = False

        def close(self):
            self.closed = True

    monkeypatch.setattr("twostep.experiment.progress.ProgressBar", ProgressBar)
    experiment = start(asked(("ae", "flow"), own_images, tmp_path, run={"sequential_training": False}))
    experiment.fit()
    experiment.run.close()
    (first, alone), (second, beside) = drawn
    assert (first, second, alone) == ("gae ae", "de flow", None)
    assert isinstance(beside, ProgressBar)
    assert beside.closed
    drawn.clear()
    trained(asked(("ae", "flow"), own_images, tmp_path / "one after the other"))
    assert [name for name, _ in drawn] == ["gae ae", "de flow"]
    assert [beside for _, beside in drawn] == [None, None]


@pytest.mark.parametrize("place", ["step 5", "step 6"])
def test_training_that_resumes_says_from_where(own_images, tmp_path, caplog, place):
    experiment = start(asked(("ae",), own_images, tmp_path))
    assert break_off(experiment, place)
    assert "resuming" not in caplog.text
    again = resume(experiment.run.path)
    again.fit()
    again.run.close()
    assert f"model ae: resuming from epoch 2/4 (step {place.split()[1]})" in caplog.messages


@pytest.mark.parametrize(("value", "shown"), [(2.5, "best 2.5"), (float("nan"), "never a finite number")])
def test_early_stopping_is_reported_with_its_reason(own_images, tmp_path, caplog, value, shown):
    keys = {"early_stopping_metric": "l2_reconstruction_error", "max_bad_valid_epochs": 2, "use_lr_scheduler": False}
    experiment = start(asked(("ae",), own_images, tmp_path, model=keys))
    experiment.trainer.validate = lambda *_: {"l2_reconstruction_error": value}
    experiment.fit()
    epoch = 2 if value != value else 3
    assert f"model: stopped early after epoch {epoch}; l2_reconstruction_error: {shown}" in caplog.messages


def test_validation_figures_that_are_not_finite_are_warned_of_when_they_become_so(own_images, tmp_path, caplog):
    experiment = start(asked(("ae",), own_images, tmp_path, model={"max_epochs": 5}))
    values = iter([1.0, float("inf"), float("nan"), 1.0, float("nan")])
    experiment.trainer.validate = lambda *_: {"loss": 1.0, "l2_reconstruction_error": next(values)}
    experiment.fit()
    experiment.run.close()
    warnings = [record.message for record in caplog.records if "validation" in record.message and record.levelno == 30]
    assert warnings == [
        "model: epoch 2: validation l2_reconstruction_error is inf",
        "model: epoch 5: validation l2_reconstruction_error is nan",
    ]


# ---- signals


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_stops_after_the_step_under_way_and_keeps_it(own_images, tmp_path, number):
    experiment = start(asked(("ae",), own_images, tmp_path))
    trainer, before = experiment.trainer, signal.getsignal(number)
    step = trainer.step

    def step_and_signal(rows):
        if trainer.steps_done == 4:
            os.kill(os.getpid(), number)
        return step(rows)

    trainer.step = step_and_signal
    with signals.interrupting(), pytest.raises(InterruptedTraining) as stopped:
        experiment.fit()
    assert (stopped.value.number, stopped.value.status) == (number, 128 + number)
    assert not isinstance(stopped.value, Exception), "`except Exception` of a caller must not swallow it"
    assert signal.getsignal(number) is before, "the handler is put back"
    assert experiment.run.load().values["model.steps_done"] == 5


def test_in_python_ctrl_c_alone_is_listened_to(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path))
    trainer, before = experiment.trainer, [signal.getsignal(number) for number in signals.ENDING]
    step, seen = trainer.step, []

    def look(rows):
        seen.append([signal.getsignal(number) for number in signals.ENDING])
        if trainer.steps_done == 4:
            signal.raise_signal(signal.SIGINT)
        return step(rows)

    trainer.step = look
    with pytest.raises(InterruptedTraining):
        experiment.fit()
    assert seen[0][1:] == before[1:]
    assert seen[0][0] != before[0]
    assert experiment.run.load().values["model.steps_done"] == 5


def test_a_signal_in_the_middle_of_an_import_is_heard_when_that_is_done(tmp_path, monkeypatch):
    """C code that imports, as torch's does numpy, drops exceptions, and a module is left half imported."""
    (tmp_path / "inner_one.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\ndone = True\n")
    (tmp_path / "outer_one.py").write_text("try:\n    import inner_one\nexcept BaseException:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    reached = []

    def wait():
        reached.append(importlib.import_module("outer_one").inner_one.done)
        time.sleep(10)

    with pytest.raises(signals.Interrupted) as stopped, signals.interrupting():
        wait()
    assert stopped.value.number == signal.SIGTERM
    assert reached == [True]


def test_training_outside_of_the_main_thread_listens_to_nothing(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(experiment.fit).result()
    assert experiment.trainer.finished


def test_a_second_signal_stops_at_once(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path))
    trainer = experiment.trainer

    def stuck(rows):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal is ignored")

    trainer.step = stuck
    with pytest.raises(KeyboardInterrupt):
        experiment.fit()


def test_a_signal_during_an_import_is_not_lost_where_listening_is_nested():
    """The command line listens again once it is imported, while the first listener waits for the import to end."""

    def listen_again():
        with signals.interrupting():
            time.sleep(5)

    with signals.interrupting():
        signal.getsignal(signal.SIGTERM)._number = signal.SIGTERM  # a signal came in the middle of an import
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(signals.Interrupted) as stopped:
            listen_again()
    assert stopped.value.status == 128 + signal.SIGTERM
