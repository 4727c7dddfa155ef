"""Stopped anywhere and resumed is never stopped: no bit differs in weights, optimisers, history and samples."""

import functools

import pytest
import torch

from helpers.experiments import ALONE, EVERY_PAIR, GAES, asked, break_off, differences, drawn, snapshot, trained
from twostep.experiment import trainers
from twostep.experiment.prepare import resume, start
from twostep.models.base import evaluating
from twostep.training.callbacks import Callback

BOTH = ("vae", "flow")
# Three batches an epoch, four epochs: 12 steps for each model.
PLACES = ["step 1", "step 3", "step 5", "epoch model 1", "epoch model 4", "end model"]
PLACES_OF_BOTH = [
    "step 4",
    "step 12",
    "step 13",
    "step 17",
    "epoch gae 3",
    "epoch gae 4",
    "end gae",
    "epoch de 1",
    "end de",
]
CASES = [
    *((models, place) for models in ALONE for place in PLACES),
    *((BOTH, place) for place in PLACES_OF_BOTH),
    *((("ae", "flow"), place) for place in ("step 5", "end gae", "epoch de 1")),
]
STOPPING = [  # its place in an epoch is the trainer's: one model has all of them
    case
    if case[0] in (("ae",), BOTH) or case[1] in ("step 5", "epoch model 4")
    else pytest.param(*case, marks=pytest.mark.slow)
    for case in CASES
]
VALIDATION = (2.0, 1.0, 3.0, 4.0, 5.0, 6.0)  # patience ends after the fourth, and two follow where rates decay


@pytest.fixture
def scripted(monkeypatch):
    """Let every model be best after its second epoch."""

    trainer_of = trainers._trainer_of

    def scripted_trainer(*arguments):
        trainer = trainer_of(*arguments)
        metrics = ("loss", "l2_reconstruction_error")
        trainer.validate = lambda *_: dict.fromkeys(metrics, VALIDATION[trainer.epochs_done])
        return trainer

    monkeypatch.setattr(trainers, "_trainer_of", scripted_trainer)


@pytest.fixture(scope="module")
def uninterrupted(own_images, tmp_path_factory):
    """Give the end of a run that never stopped, once for each kind."""

    @functools.cache
    def give(models, **keys):
        return end_of(models, own_images, tmp_path_factory.mktemp("whole"), **keys)

    return give


def request(models, dataset, root, **keys):
    parts = ("model",) if len(models) == 1 else ("gae", "de")
    return asked(models, dataset, root, **dict.fromkeys(parts, keys))


def named(part):
    return part if isinstance(part, str) else " + ".join(part)


@pytest.mark.parametrize(("models", "place"), CASES, ids=named)
def test_a_resumed_run_is_one_that_never_stopped(uninterrupted, own_images, tmp_path, models, place):
    check(uninterrupted, own_images, tmp_path, models, place)


@pytest.mark.parametrize(("models", "place"), STOPPING, ids=named)
def test_nor_did_one_that_stops_early(scripted, uninterrupted, own_images, tmp_path, models, place):
    metric = "l2_reconstruction_error" if len(models) == 1 and models[0] in GAES else "loss"
    keys = {"early_stopping_metric": metric, "max_bad_valid_epochs": 2, "max_epochs": 6}
    values = check(uninterrupted, own_images, tmp_path, models, place, **keys)
    for part in ("model",) if len(models) == 1 else ("gae", "de"):
        decayed = values[f"{part}.decays_since"]
        assert decayed in (None, 4)
        assert (values[f"{part}.epochs_done"], values[f"{part}.bad_epochs"]) == ((4, 2) if decayed is None else (6, 4))


@pytest.mark.parametrize("models", EVERY_PAIR, ids=named)
def test_nor_did_any_pair_stopped_in_its_second_step(own_images, tmp_path, models):
    check(lambda models: end_of(models, own_images, tmp_path), own_images, tmp_path / "stopped", models, "step 15")


def end_of(models, dataset, root, **keys):
    experiment = trained(request(models, dataset, root, **keys))
    return snapshot(experiment), drawn(experiment)


def check(uninterrupted, dataset, root, models, place, **keys):
    state, samples = uninterrupted(models, **keys)
    first = start(request(models, dataset, root, **keys))
    assert break_off(first, place)
    torch.manual_seed(123)
    torch.rand(7)
    second = resume(first.run.path)
    second.fit()
    second.run.close()
    assert differences(second.state(), state) == []
    assert torch.equal(drawn(second), samples)
    assert differences(second.run.load(), state) == []
    return state.values


@functools.cache
def in_turns(dataset, root, **run):
    experiment = trained(asked(("ae", "flow"), dataset, root, run={"sequential_training": False, **run}))
    return snapshot(experiment), drawn(experiment)


@pytest.mark.parametrize("by_epoch", [True, False], ids=["by epoch", "by iteration"])
@pytest.mark.parametrize("place", ["step 1", "step 3", "step 4", "step 8", "epoch gae 2", "epoch de 2", "end gae"])
def test_nor_did_one_whose_steps_take_turns(own_images, tmp_path, tmp_path_factory, by_epoch, place):
    state, samples = in_turns(own_images, tmp_path_factory.getbasetemp(), alternate_by_epoch=by_epoch)
    run = {"sequential_training": False, "alternate_by_epoch": by_epoch}
    first = start(asked(("ae", "flow"), own_images, tmp_path, run=run))
    assert break_off(first, place)
    second = resume(first.run.path)
    second.fit()
    second.run.close()
    assert differences(second.state(), state) == []
    assert torch.equal(drawn(second), samples)


def test_a_run_can_be_stopped_again_and_again(uninterrupted, own_images, tmp_path):
    state, samples = uninterrupted(BOTH)
    experiment = start(request(BOTH, own_images, tmp_path))
    sessions = 1
    while break_off(experiment, "step 1"):
        experiment = resume(experiment.run.path)
        sessions += 1
    assert sessions == 25
    assert differences(experiment.state(), state) == []
    assert torch.equal(drawn(experiment), samples)


@pytest.mark.parametrize("place", ["step 2", "epoch model 2"])
def test_a_limit_raised_on_loading_is_that_of_one_session(own_images, tmp_path, place):
    """Without a scheduler, training to 4 epochs and then to 6 is training to 6, wherever the first one broke off."""
    constant = {"use_lr_scheduler": False}
    long = trained(asked(("vae",), own_images, tmp_path, model={**constant, "max_epochs": 6}))
    short = start(asked(("vae",), own_images, tmp_path, model=constant))
    assert break_off(short, place)
    second = resume(short.run.path, max_epochs={"gae": 6, "de": 6, "model": 6})
    second.fit()
    second.run.close()
    assert differences(second.state(), long.state()) == []


def test_each_model_of_two_has_its_own_limit(own_images, tmp_path):
    path = trained(asked(("ae", "flow"), own_images, tmp_path)).run.path
    raised = resume(path, max_epochs={"de": 6})
    gae = snapshot(raised).under("gae")
    raised.fit()
    raised.run.close()
    assert [trainer.epochs_done for trainer in raised.trainers] == [4, 6]
    assert differences(raised.state().under("gae"), gae) == []
    again = resume(path)
    assert (again.trainer.gae.max_epochs, again.trainer.de.max_epochs) == (4, 6), "limits are kept"


def embedded(experiment):
    with evaluating(experiment.module):
        return experiment.module.encode(experiment.splits.train.float())


def whitening(experiment):
    (whiten,) = [part for part in experiment.module.de.transform if hasattr(part, "std")]
    return whiten


def test_a_density_that_has_had_its_epochs_keeps_its_weights_on_new_embeddings(own_images, tmp_path, caplog):
    """Its whitening is of the new ones, in the checkpoint too, and a warning says what would train it."""
    first = trained(asked(("ae", "flow"), own_images, tmp_path, gae={"preset": "reference"}))
    raised = resume(first.run.path, max_epochs={"gae": 5})
    raised.fit()
    raised.run.close()
    assert "de: has had its 4 epochs, on embeddings from before" in caplog.text
    assert "raise --max-epochs-loaded-de too" in caplog.text
    assert (raised.trainer.gae.epochs_done, raised.trainer.de.epochs_done) == (5, 4)
    before, after = snapshot(first).under("de").under("model").tensors, raised.module.de.state_dict()
    assert {key for key, value in after.items() if not torch.equal(value, before[key])} == {
        key for key in after if key.startswith("transform.")
    }
    for best_first in (False, True):
        again = resume(first.run.path, best_first=best_first)
        assert torch.equal(whitening(again).mean, whitening(raised).mean)


def test_a_density_continues_from_its_best_weights_on_new_embeddings(own_images, tmp_path, caplog):
    caplog.set_level("INFO", logger="twostep")
    stop = {"early_stopping_metric": "loss", "max_bad_valid_epochs": 2, "denoising_sigma": 0}
    first = start(asked(("ae", "flow"), own_images, tmp_path, de=stop))
    values = iter([3.0, 1.0, 2.0, 2.0])
    first.trainer.de.validate = lambda *_: {"loss": next(values)}
    first.fit()
    first.run.close()
    best = first.trainer.de.state_dict().under("best").tensors
    raised = resume(first.run.path, max_epochs={"gae": 6, "de": 6, "model": 6})
    de, began = raised.trainer.de, []
    watcher = Callback()
    watcher.begin = lambda trainer: began.append((trainer.name, snapshot(raised)))
    raised.callbacks.append(watcher)
    de.validate = lambda *_: {"loss": 9.0}
    raised.fit()
    raised.run.close()
    assert "de: continues from its weights on new embeddings" in caplog.text
    assert [name for name, _ in began] == ["gae", "de"]
    at_start = began[1][1].under("de").under("model").tensors
    layers = [key for key in best if key.startswith("layers.")]
    assert layers
    assert all(torch.equal(at_start[key], best[key]) for key in layers)
    train = embedded(raised)
    assert torch.allclose(whitening(raised).mean, train.mean(0), atol=1e-5)
    assert (de.epochs_done, de.best_value, de.bad_epochs) == (6, 9.0, 1), "stopping begins anew"


def test_a_density_whose_embeddings_are_the_same_is_left_alone(own_images, tmp_path, caplog):
    caplog.set_level("INFO", logger="twostep")
    first = start(asked(("ae", "flow"), own_images, tmp_path))
    assert break_off(first, "epoch de 2")
    again = resume(first.run.path)
    before = {key: value.clone() for key, value in again.module.de.transform.state_dict().items()}
    again.fit()
    again.run.close()
    assert "embeddings" not in caplog.text
    assert all(torch.equal(value, before[key]) for key, value in again.module.de.transform.state_dict().items())


@pytest.mark.parametrize("by_epoch", [True, False], ids=["by epoch", "by iteration"])
def test_a_density_whose_turns_end_first_is_reported(own_images, tmp_path, caplog, by_epoch):
    run = {"sequential_training": False, "alternate_by_epoch": by_epoch}
    limits = {"gae": {"max_epochs": 3}, "de": {"max_epochs": 2, "denoising_sigma": 0.0}}
    first = trained(asked(("ae", "flow"), own_images, tmp_path, run=run, **limits))
    warning = "on embeddings from before the autoencoder was trained further"
    assert warning not in caplog.text
    for raised, stale in (({"gae": 5, "de": 4}, False), ({"de": 5}, False), ({"gae": 6}, True)):
        again = resume(first.run.path, max_epochs=raised)
        again.fit()
        again.run.close()
        assert (warning in caplog.text) is stale
    train = embedded(again)
    assert torch.allclose(whitening(again).mean, train.mean(0), atol=1e-4), "its statistics are of the last embeddings"
