"""Turns of the two steps: whose they are, which embeddings the density sees, and that a resumed run takes the same."""

import pytest
import torch

from helpers.toys import Watcher, build, data, new_trainer, same, weights
from twostep.core.schema import DataSpec
from twostep.data.batches import Batches
from twostep.models.base import evaluating
from twostep.models.two_step import TwoStep, latent_spec
from twostep.training.callbacks import InterruptedTraining
from twostep.training.engine import Engine
from twostep.training.schedules import TwoStepTrainer

SPEC = DataSpec(name="toy", shape=(3,), size=20, low=-5, high=5)
LATENTS = latent_spec(SPEC, 2)


class Turns(Watcher):
    """Remembers whose step or epoch it was, and the embeddings that the density was trained on."""

    def step(self, trainer, losses):
        super().step(trainer, losses)
        self.calls.append(f"{trainer.name} {trainer.epochs_done}.{trainer.batches_done}")


def pair(schedule, watcher=None, gae_epochs=3, de_epochs=3, gae_valid=None, seen=None, frozen=False, **keys):
    """Return a trainer of an autoencoder and a flow, and its data.

    `seen` takes up what the autoencoder encodes: its epochs and steps, the data and their embeddings.
    """
    engine = Engine("cpu")
    model = TwoStep(build("ae", max_epochs=gae_epochs, **keys), build("flow", spec=LATENTS, max_epochs=de_epochs))
    gae = new_trainer("gae", model.gae, engine, gae_valid or (lambda *_: {"loss": 0.0}))
    de = new_trainer("de", model.de, engine, lambda *_: {"loss": 0.0})
    trainer = TwoStepTrainer(model, None if frozen else gae, de, schedule)
    if seen is not None:
        encode = model.gae.encode

        def watched(x):
            z = encode(x)
            if len(x) != 6:  # the validation rows
                seen.append((gae.epochs_done, gae.steps_done, x, z))
            return z

        model.gae.encode = watched
    trainer.callbacks = [watcher or Turns()]
    return trainer


def fit(trainer):
    trainer.fit(Batches(data(20), 8), Batches(data(6, seed=2), 8), trainer.callbacks)


def steps_of(watcher):
    return [call for call in watcher.calls if call[0] in "gd" and "." in call]


ALTERNATING = ("by_epoch", "by_iteration")


def test_one_after_the_other():
    watcher, seen = Turns(), []
    fit(pair("sequential", watcher, 2, 1, seen=seen))
    assert [call.split()[0] for call in steps_of(watcher)] == ["gae"] * 6 + ["de"] * 3
    assert [epochs for epochs, *_ in seen] == [2]


def test_epochs_take_turns_on_embeddings_made_anew():
    watcher, seen = Turns(), []
    trainer = pair("by_epoch", watcher, 2, 4, seen=seen)
    fit(trainer)
    names = [call.split()[0] for call in steps_of(watcher)]
    assert names == (["gae"] * 3 + ["de"] * 3) * 2 + ["de"] * 6
    assert [epochs for epochs, *_ in seen] == [0, 1, 2, 2, 2], "once before, then for each epoch of the density"
    assert not torch.equal(seen[1][3], seen[2][3])
    whitened = trainer.model.de.transform(seen[-1][3])
    assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5), "statistics follow the embeddings"


def test_batches_take_turns_on_embeddings_made_when_they_come():
    watcher, seen = Turns(), []
    trainer = pair("by_iteration", watcher, 2, 3, seen=seen)
    fit(trainer)
    names = [call.split()[0] for call in steps_of(watcher)]
    assert names == ["gae", "de"] * 6 + ["de"] * 3
    _, steps, x, z = seen[-1]
    assert steps == 6
    with evaluating(trainer.model):
        assert torch.equal(z, trainer.model.gae.encode(x))


def test_the_standardisation_follows_embeddings_that_move_with_every_batch():
    trainer = pair("by_iteration", None, 3, 4, lr=0.05)
    gae, de = trainer.gae, trainer.de
    seen, step = [], de.step

    def look_and_step(rows):
        with evaluating(gae.model):
            z = gae.model.encode(data(20))
        seen.append((z, de.model.transform(z)))
        return step(rows)

    de.step = look_and_step
    fit(trainer)
    assert len(seen) == 12
    for _, whitened in seen:
        assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5)
        assert torch.allclose(whitened.std(0, correction=0), torch.ones(2), atol=1e-5)
    moved = (seen[8][0] - seen[0][0]).mean(0) / seen[0][0].std(0)
    assert moved.abs().max() > 0.5, "the embeddings do move"


@pytest.mark.parametrize("schedule", ALTERNATING)
def test_the_standardisation_is_that_of_the_autoencoder_as_it_ends(schedule):
    """Its best weights, of an earlier epoch, replace its last ones when the density has no epochs left."""
    scores = iter([1.0, 2.0, 3.0])
    keys = {"early_stopping_metric": "loss", "max_bad_valid_epochs": 9, "lr": 0.05}
    trainer = pair(schedule, None, 3, 3, gae_valid=lambda *_: {"loss": next(scores)}, **keys)
    fit(trainer)
    with evaluating(trainer.model):
        whitened = trainer.model.de.transform(trainer.model.gae.encode(data(20)))
    assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5)
    assert (trainer.gae.epochs_done, trainer.de.epochs_done) == (3, 3)


@pytest.mark.parametrize("schedule", ALTERNATING)
def test_a_frozen_autoencoder_has_no_turns(schedule):
    watcher = Turns()
    trainer = pair(schedule, watcher, 2, 2, frozen=True)
    before = weights(trainer.model.gae)
    fit(trainer)
    assert trainer.de.finished
    assert {call.split()[0] for call in steps_of(watcher)} == {"de"}
    assert same(weights(trainer.model.gae), before)


@pytest.mark.parametrize("schedule", ALTERNATING)
def test_a_density_with_fewer_epochs_begins_late_so_that_both_end_together(schedule):
    watcher = Turns()
    fit(pair(schedule, watcher, 4, 1))
    names = [call.split()[0] for call in steps_of(watcher)]
    in_turns = ["gae"] * 3 + ["de"] * 3 if schedule == "by_epoch" else ["gae", "de"] * 3
    assert names == ["gae"] * 9 + in_turns


def test_a_density_that_has_had_its_epochs_waits_for_nobody():
    watcher = Turns()
    trainer = pair("by_epoch", watcher, 1, 1)
    fit(trainer)
    trainer.gae.set_max_epochs(4)
    fit(trainer)
    assert [call.split()[0] for call in steps_of(watcher)] == ["gae"] * 3 + ["de"] * 3 + ["gae"] * 9


def test_an_autoencoder_that_stopped_early_gives_the_embeddings_of_its_best_weights():
    scores, seen = iter([3.0, 1.0, 2.0, 2.0]), []
    stop = {"early_stopping_metric": "loss", "max_bad_valid_epochs": 2}
    trainer = pair("by_epoch", None, 9, 9, gae_valid=lambda *_: {"loss": next(scores)}, seen=seen, **stop)
    fit(trainer)
    assert (trainer.gae.epochs_done, trainer.de.epochs_done) == (4, 9)
    after_stop = [z for epochs, *_, z in seen if epochs == 4]
    second = [z for epochs, *_, z in seen if epochs == 2]
    assert torch.equal(after_stop[-1], second[0])


def test_a_pretrained_autoencoder_takes_turns_from_where_it_is():
    watcher = Turns()
    trainer = pair("by_epoch", watcher, 5, 2)
    trainer.gae.epochs_done, trainer.gae.first_epoch = 3, 3
    fit(trainer)
    assert [call.split()[0] for call in steps_of(watcher)] == (["gae"] * 3 + ["de"] * 3) * 2


@pytest.mark.parametrize("schedule", ALTERNATING)
@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 7, 12, 13, 17])
def test_a_run_broken_off_anywhere_ends_as_one_that_was_not(schedule, stop):
    whole = pair(schedule)
    fit(whole)
    first = pair(schedule, Turns(stop_after=stop))
    with pytest.raises(InterruptedTraining):
        fit(first)
    again = pair(schedule)
    for one, other in zip(again.trainers, first.trainers, strict=True):
        one.load_state_dict(other.state_dict())
    fit(again)
    for one, other in zip(again.trainers, whole.trainers, strict=True):
        assert same(weights(one.model), weights(other.model))
        assert one.history == other.history
