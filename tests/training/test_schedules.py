"""Turns of the two steps: whose they are, which embeddings the density sees, and that a resumed run takes the same."""

import pytest
import torch

from helpers.toys import Watcher, build, data, same, weights
from twostep.core.schema import DataSpec
from twostep.data.batches import Batches, embed
from twostep.models.base import evaluating
from twostep.models.two_step import latent_spec
from twostep.training.engine import Engine
from twostep.training.schedules import by_epoch, by_iteration, sequential
from twostep.training.trainer import InterruptedTraining, Trainer

SPEC = DataSpec(name="toy", shape=(3,), size=20, low=-5, high=5)
LATENTS = latent_spec(SPEC, 2)


class Turns(Watcher):
    """Remembers whose step or epoch it was, and the embeddings that the density was trained on."""

    def step(self, trainer, losses):
        super().step(trainer, losses)
        self.calls.append(f"{trainer.name} {trainer.epochs_done}.{trainer.batches_done}")


def pair(watcher=None, gae_epochs=3, de_epochs=3, gae_valid=None, de_valid=None, **keys):
    """Return trainers of an autoencoder with data and of a flow without."""
    watcher, engine = watcher or Turns(), Engine("cpu")
    gae_model = build("ae", max_epochs=gae_epochs, **keys)
    de_model = build("flow", spec=LATENTS, max_epochs=de_epochs)
    gae = Trainer("gae", gae_model, engine, watcher, gae_valid or (lambda batches: {"loss": 0.0}), seed=0)
    de = Trainer("de", de_model, engine, watcher, de_valid or (lambda batches: {"loss": 0.0}), seed=0)
    gae.use(Batches(data(20), 8), Batches(data(6, seed=2), 8))
    return gae, de


def embeddings(gae, seen=None):
    """Return what makes embeddings at once, as `by_epoch` and `sequential` take them."""

    def make():
        with evaluating(gae.model):
            train, valid = embed(gae.model.encode, data(20)), embed(gae.model.encode, data(6, seed=2))
        if seen is not None:
            seen.append((gae.epochs_done, train))
        return Batches(train, 8), Batches(valid, 8)

    return make


def when_taken(gae, seen=None):
    """Return what makes batches that are encoded when they are taken."""

    def encode(x):
        with evaluating(gae.model):
            z = gae.model.encode(x)
        if seen is not None:
            seen.append((gae.steps_done, x, z))
        return z

    return lambda: (Batches(data(20), 8, encode=encode), Batches(data(6, seed=2), 8, encode=encode))


def steps_of(watcher):
    return [call for call in watcher.calls if call[0] in "gd" and "." in call]


def test_one_after_the_other():
    watcher = Turns()
    gae, de = pair(watcher, 2, 1)
    seen = []
    sequential(gae, de, embeddings(gae, seen))
    assert [call.split()[0] for call in steps_of(watcher)] == ["gae"] * 6 + ["de"] * 3
    assert [epochs for epochs, _ in seen] == [2]


def test_epochs_take_turns_on_embeddings_made_anew():
    watcher, seen = Turns(), []
    gae, de = pair(watcher, 2, 4)
    by_epoch(gae, de, embeddings(gae, seen))
    names = [call.split()[0] for call in steps_of(watcher)]
    assert names == (["gae"] * 3 + ["de"] * 3) * 2 + ["de"] * 6
    assert [epochs for epochs, _ in seen] == [0, 1, 2, 2, 2], "once before, then for each epoch of the density"
    assert not torch.equal(seen[1][1], seen[2][1])
    whitened = de.model.transform(seen[-1][1])
    assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5), "statistics follow the embeddings"


def test_batches_take_turns_on_embeddings_made_when_they_come():
    watcher, seen = Turns(), []
    gae, de = pair(watcher, 2, 3)
    by_iteration(gae, de, when_taken(gae, seen))
    names = [call.split()[0] for call in steps_of(watcher)]
    assert names == ["gae", "de"] * 6 + ["de"] * 3
    with evaluating(gae.model):
        assert torch.equal(seen[-1][2], gae.model.encode(seen[-1][1]))


def test_the_standardisation_follows_embeddings_that_move_with_every_batch():
    gae, de = pair(None, 3, 4, lr=0.05)
    seen, step = [], de.step

    def look_and_step(rows):
        with evaluating(gae.model):
            z = gae.model.encode(data(20))
        seen.append((z, de.model.transform(z)))
        return step(rows)

    de.step = look_and_step
    by_iteration(gae, de, when_taken(gae))
    assert len(seen) == 12
    for _, whitened in seen:
        assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5)
        assert torch.allclose(whitened.std(0, correction=0), torch.ones(2), atol=1e-5)
    moved = (seen[8][0] - seen[0][0]).mean(0) / seen[0][0].std(0)
    assert moved.abs().max() > 0.5, "the embeddings do move"


@pytest.mark.parametrize(("schedule", "embed_by"), [(by_epoch, embeddings), (by_iteration, when_taken)])
def test_the_standardisation_is_that_of_the_autoencoder_as_it_ends(schedule, embed_by):
    """Its best weights, of an earlier epoch, replace its last ones when the density has no epochs left."""
    scores = iter([1.0, 2.0, 3.0])
    keys = {"early_stopping_metric": "loss", "max_bad_valid_epochs": 9, "lr": 0.05}
    gae, de = pair(None, 3, 3, gae_valid=lambda batches: {"loss": next(scores)}, **keys)
    schedule(gae, de, embed_by(gae))
    with evaluating(gae.model):
        whitened = de.model.transform(gae.model.encode(data(20)))
    assert torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-5)
    assert (gae.epochs_done, de.epochs_done) == (3, 3)


@pytest.mark.parametrize("schedule", [by_epoch, by_iteration])
def test_a_frozen_autoencoder_has_no_turns(schedule):
    watcher = Turns()
    gae, de = pair(watcher, 2, 2)
    before = weights(gae.model)
    schedule(None, de, embeddings(gae))
    assert de.finished
    assert {call.split()[0] for call in steps_of(watcher)} == {"de"}
    assert same(weights(gae.model), before)


@pytest.mark.parametrize(("schedule", "embed_by"), [(by_epoch, embeddings), (by_iteration, when_taken)])
def test_a_density_with_fewer_epochs_begins_late_so_that_both_end_together(schedule, embed_by):
    watcher = Turns()
    gae, de = pair(watcher, 4, 1)
    schedule(gae, de, embed_by(gae))
    names = [call.split()[0] for call in steps_of(watcher)]
    in_turns = ["gae"] * 3 + ["de"] * 3 if schedule is by_epoch else ["gae", "de"] * 3
    assert names == ["gae"] * 9 + in_turns


def test_a_density_that_has_had_its_epochs_waits_for_nobody():
    watcher = Turns()
    gae, de = pair(watcher, 1, 1)
    by_epoch(gae, de, embeddings(gae))
    gae.raise_limit(4)
    by_epoch(gae, de, embeddings(gae))
    assert [call.split()[0] for call in steps_of(watcher)] == ["gae"] * 3 + ["de"] * 3 + ["gae"] * 9


def test_an_autoencoder_that_stopped_early_gives_the_embeddings_of_its_best_weights():
    scores, seen = iter([3.0, 1.0, 2.0, 2.0]), []
    gae, de = pair(
        gae_epochs=9,
        de_epochs=9,
        gae_valid=lambda batches: {"loss": next(scores)},
        early_stopping_metric="loss",
        max_bad_valid_epochs=2,
    )
    by_epoch(gae, de, embeddings(gae, seen))
    assert (gae.epochs_done, de.epochs_done) == (4, 9)
    after_stop = [z for epochs, z in seen if epochs == 4]
    second = [z for epochs, z in seen if epochs == 2]
    assert torch.equal(after_stop[-1], second[0])


def test_a_pretrained_autoencoder_takes_turns_from_where_it_is():
    watcher = Turns()
    gae, de = pair(watcher, 5, 2)
    gae.epochs_done, gae.first_epoch = 3, 3
    by_epoch(gae, de, embeddings(gae))
    assert [call.split()[0] for call in steps_of(watcher)] == (["gae"] * 3 + ["de"] * 3) * 2


@pytest.mark.parametrize(("schedule", "embed_by"), [(by_epoch, embeddings), (by_iteration, when_taken)])
@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 7, 12, 13, 17])
def test_a_run_broken_off_anywhere_ends_as_one_that_was_not(schedule, embed_by, stop):
    whole = pair()
    schedule(*whole, embed_by(whole[0]))
    first = pair(Turns(stop_after=stop))
    with pytest.raises(InterruptedTraining):
        schedule(*first, embed_by(first[0]))
    again = pair()
    for fresh, old in zip(again, first, strict=True):
        fresh.load_state_dict(old.state_dict())
    schedule(*again, embed_by(again[0]))
    for one, other in zip(again, whole, strict=True):
        assert same(weights(one.model), weights(other.model))
        assert one.history == other.history
