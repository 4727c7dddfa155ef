"""The one loop: steps, rates, clipping, epochs, early stopping, and what happens when a loss is no number."""

import itertools
import math

import pytest
import torch

from helpers.configs import built
from helpers.toys import SPEC, Watcher, build, data, new_trainer, same, scripted, trainer_of, weights
from twostep.core.checkpoint import State
from twostep.core.seeds import derive
from twostep.training.callbacks import InterruptedTraining, NonFiniteLossError
from twostep.training.engine import Engine

# ---- steps


@pytest.mark.parametrize(("kind", "reference"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_steps_are_those_of_a_loop_written_by_hand(kind, reference):
    model, other = build("ae", optimizer=kind, max_epochs=2), build("ae")
    trainer = trainer_of(model)
    trainer.run()
    other.load_state_dict({**other.state_dict(), **dict(model.named_buffers())})
    optimizer = reference(other.parameters(), 1e-3)
    for epoch in range(2):
        order = trainer.train.order(_seed(trainer), epoch)
        for rows in order.split(8):
            optimizer.zero_grad()
            other.objectives()[0].loss(data()[rows]).backward()
            torch.nn.utils.clip_grad_norm_(other.parameters(), 10.0)
            optimizer.step()
    for key, value in model.state_dict().items():
        assert torch.allclose(value, other.state_dict()[key], atol=1e-6), key


def _seed(trainer):
    return derive(trainer.seed, trainer.name)


@pytest.mark.parametrize("kind", ["adam", "sgd", "rmsprop"])
def test_every_optimiser_lowers_the_loss(kind):
    trainer = trainer_of(build("ae", optimizer=kind, lr=0.01, max_epochs=15))
    trainer.run()
    losses = [epoch["losses"]["loss"] for epoch in trainer.history]
    assert losses[-1] < 0.9 * losses[0]
    rule = next(iter(trainer.stepper.optimizers.values()))
    assert type(rule).__name__.lower() == kind


def test_each_objective_has_its_turn_its_rate_and_its_afterwards():
    watcher, model = Watcher(), build("toy", every=2, lr=0.1, penalty_lr=0.02, max_epochs=3)
    trainer = trainer_of(model, watcher, size=8, rows=20, validate=lambda *_: {})
    trainer.run()
    # 3 batches an epoch, 9 steps: the penalty's turn is at steps 0, 2, 4, 6, 8, across the ends of epochs
    assert model.taken == (["fit", "penalty", "fit"] * 5)[:14]
    assert model.after == 5
    assert [sorted(losses) for losses in watcher.losses] == ([["fit", "penalty"], ["fit"]] * 5)[:9]
    assert {(rates["fit"], rates["penalty"]) for rates in watcher.rates} == {(0.1, 0.02)}
    assert model.scale.max() <= 1.01


def test_an_objective_moves_nothing_but_its_parameters():
    model = build("toy", max_epochs=1, every=100)
    trainer = trainer_of(model, validate=lambda *_: {})
    trainer.step(torch.arange(8))
    after_both = weights(model)
    trainer.steps_done = 1
    trainer.step(torch.arange(8))
    assert torch.equal(model.scale, after_both["scale"]), "not its turn"
    assert not torch.equal(model.mean, after_both["mean"])


def test_losses_are_detached_and_lie_before_the_step():
    model = build("ae")
    trainer = trainer_of(model)
    torch.manual_seed(0)
    expected = model.objectives()[0].loss(data()[:8]).item()
    losses = trainer.step(torch.arange(8))
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert not losses["loss"].requires_grad


# ---- clipping


@pytest.mark.parametrize("name", ["ae", "vae", "flow", "toy"])
def test_the_norm_of_every_objectives_gradient_is_clipped(name):
    clipped, free = Watcher(), Watcher()
    trainer_of(build(name, max_epochs=2, max_grad_norm=0.05), clipped, validate=lambda *_: {}).run()
    trainer_of(build(name, max_epochs=2, max_grad_norm=None), free, validate=lambda *_: {}).run()
    for norms in clipped.norms:
        assert all(norm == pytest.approx(0.05, rel=1e-3) for norm in norms.values())
    assert all(norm > 0.06 for norms in free.norms for norm in norms.values())


def test_gradients_below_the_limit_are_left_as_they_are():
    one, other = build("ae", max_epochs=2, max_grad_norm=1e6), build("ae", max_epochs=2, max_grad_norm=None)
    trainer_of(one).run()
    trainer_of(other).run()
    assert same(weights(one), weights(other))


# ---- the rate


def rates_of(trainer, watcher, name="loss"):
    trainer.run()
    return [rates[name] for rates in watcher.rates]


def test_the_cosine_falls_from_the_rate_to_nearly_zero():
    watcher = Watcher()
    rates = rates_of(trainer_of(build("ae", max_epochs=10, use_lr_scheduler=True, lr=0.02), watcher), watcher)
    assert rates[0] == 0.02
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] < 0.02 * 0.01
    assert rates[15] == pytest.approx(0.01), "half the rate in the middle"


def test_without_a_scheduler_the_rate_stays():
    watcher = Watcher()
    assert set(rates_of(trainer_of(build("ae", max_epochs=2, lr=0.02), watcher), watcher)) == {0.02}


def test_both_objectives_follow_their_cosine():
    watcher = Watcher()
    model = build("toy", max_epochs=4, use_lr_scheduler=True, lr=0.1, penalty_lr=0.02)
    trainer_of(model, watcher, validate=lambda *_: {}).run()
    for rates in watcher.rates:
        assert rates["penalty"] == pytest.approx(0.2 * rates["fit"])
    assert watcher.rates[-1]["fit"] < 0.1 * 0.05


def test_after_a_raised_limit_the_rate_never_climbs():
    watcher = Watcher()
    trainer = trainer_of(build("ae", max_epochs=2, use_lr_scheduler=True), watcher)
    trainer.run()
    first = len(watcher.rates)
    trainer.set_max_epochs(6)
    later = rates_of(trainer, watcher)[first:]
    assert len(later) == 4 * 3
    assert all(second < first for first, second in itertools.pairwise(later))
    assert 0 < later[-1] < 1e-3 * 0.05
    assert later[0] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 3))), "a third of the new way is done"


def test_the_rate_follows_epochs_when_batches_have_another_size():
    """An autoencoder that is trained further in another run may see larger batches there."""
    first = trainer_of(build("ae", max_epochs=2, use_lr_scheduler=True), size=2)
    first.run()
    watcher = Watcher()
    second = trainer_of(build("ae", max_epochs=2, use_lr_scheduler=True), watcher, size=20)
    second.load_state_dict(first.state_dict())
    second.set_max_epochs(4)
    rates = rates_of(second, watcher)
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * share)) for share in (0.5, 0.75)])


# ---- epochs


@pytest.mark.parametrize(("rows", "size"), [(20, 20), (20, 50), (20, 8), (21, 20), (1, 1)])
def test_the_loss_of_an_epoch_is_the_mean_over_its_rows(rows, size):
    watcher = Watcher()
    trainer = trainer_of(build("ae", max_epochs=2), watcher, size=size, rows=rows)
    trainer.run()
    steps = -(-rows // size)
    for epoch in range(2):
        losses = [losses["loss"] for losses in watcher.losses[epoch * steps : (epoch + 1) * steps]]
        taken = [min(size, rows - step * size) for step in range(steps)]
        expected = sum(loss * count for loss, count in zip(losses, taken, strict=True)) / rows
        assert trainer.history[epoch]["losses"]["loss"] == pytest.approx(expected, rel=1e-6)
    assert (trainer.epochs_done, trainer.steps_done, trainer.batches_done) == (2, 2 * steps, 0)


def test_inside_of_an_epoch_a_checkpoint_holds_the_sum_of_the_losses_of_full_batches():
    """As those of earlier versions do, which did not weigh: both go on to the same mean."""
    watcher = Watcher(stop_after=2)
    trainer = trainer_of(build("ae", max_epochs=1), watcher, rows=20, size=8)
    with pytest.raises(InterruptedTraining):
        trainer.run()
    sums = trainer.state_dict().under("sums").tensors
    assert sums["loss"].item() == pytest.approx(watcher.losses[0]["loss"] + watcher.losses[1]["loss"])


def test_the_mean_of_a_loss_counts_the_rows_of_the_steps_that_it_took():
    watcher = Watcher()
    model = build("toy", every=2, max_epochs=4)
    trainer = trainer_of(model, watcher, validate=lambda *_: {})
    trainer.run()
    # three steps an epoch, of 8, 8 and 4 rows; the penalty is taken at steps 0, 2, 4, ... of 12
    for epoch, taken in enumerate(([0, 2], [1], [0, 2], [1])):
        steps = watcher.losses[3 * epoch : 3 * epoch + 3]
        rows = (8, 8, 4)
        expected = {
            "fit": sum(rows[step] * steps[step]["fit"] for step in range(3)) / 20,
            "penalty": sum(rows[step] * steps[step]["penalty"] for step in taken) / sum(rows[step] for step in taken),
        }
        assert trainer.history[epoch]["losses"] == pytest.approx(expected, rel=1e-6)


def test_callbacks_are_called_in_order():
    watcher = Watcher()
    trainer_of(build("ae", max_epochs=2), watcher).run()
    assert watcher.calls == ["begin", "best 1", "checkpoint", "epoch", "best 2", "checkpoint", "epoch", "end"]


def test_a_finished_trainer_calls_nobody_and_changes_nothing():
    watcher = Watcher()
    trainer = trainer_of(build("ae", max_epochs=1), watcher)
    trainer.run()
    before = weights(trainer.model)
    calls = list(watcher.calls)
    trainer.run()
    assert watcher.calls == calls
    assert same(weights(trainer.model), before)


def test_training_stops_after_the_step_in_which_it_must():
    watcher = Watcher(stop_after=4)
    trainer = trainer_of(build("ae", max_epochs=5), watcher)
    with pytest.raises(InterruptedTraining):
        trainer.run()
    assert (trainer.steps_done, trainer.epochs_done, trainer.batches_done) == (4, 1, 1)
    assert watcher.calls[-1] == "checkpoint", "the state is kept"


def test_a_state_sets_its_progress_and_no_other_attribute():
    trainer = trainer_of(build("ae", max_epochs=2))
    trainer.run()
    state, other = trainer.state_dict(), trainer_of(build("ae", max_epochs=2))
    validate, directory = other.validate, set(vars(other))
    other.load_state_dict(State(state.tensors, {**state.values, "validate": "mine", "objectives": [], "evil": 1}))
    assert (other.epochs_done, other.steps_done, other.history) == (2, trainer.steps_done, trainer.history)
    assert other.validate == validate
    assert len(other.stepper.objectives) == 1
    assert set(vars(other)) == directory
    for values in ({"epochs_done": "x"}, {"history": 3}, {"steps_done": -1}):
        with pytest.raises(ValueError, match=next(iter(values))):
            other.load_state_dict(State(state.tensors, values))


@pytest.mark.parametrize("name", ["ae", "vae", "flow"])
def test_validation_changes_nothing_in_training(name):
    with_it, without = build(name, max_epochs=3, denoising_sigma=0.1), build(name, max_epochs=3, denoising_sigma=0.1)
    trainer_of(with_it).run()
    bare = trainer_of(without, valid=False)
    bare.run()
    assert same(weights(with_it), weights(without))
    assert all(epoch["valid"] == {} for epoch in bare.history)


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    def trained(seed, elsewhere):
        model = build("vae", max_epochs=2)
        trainer = trainer_of(model)
        trainer.seed = seed
        torch.manual_seed(elsewhere)
        trainer.run()
        return weights(model)

    assert same(trained(0, elsewhere=1), trained(0, elsewhere=2)), "nothing but the run's seed counts"
    assert not same(trained(0, elsewhere=1), trained(1, elsewhere=1))


# ---- the transform


def test_the_transform_is_fitted_once_to_the_training_rows():
    model = build("flow", max_epochs=1)
    trainer = trainer_of(model)
    (whiten,) = [part for part in model.transform if hasattr(part, "std")]
    assert torch.allclose(whiten.mean, data().mean(0), atol=1e-6)
    assert torch.allclose(whiten.std, data().std(0, correction=0), atol=1e-6)
    trainer.run()
    before = weights(model.transform)
    trainer.set_data(type(trainer.train)(data(20, seed=9) + 5, 8), None)
    assert same(weights(model.transform), before)


def test_the_transform_of_a_loaded_trainer_is_not_fitted_again():
    first = trainer_of(build("flow", max_epochs=1))
    first.run()
    second = new_trainer("model", build("flow", seed=1, max_epochs=1), first.engine, first.validate)
    second.load_state_dict(first.state_dict())
    second.set_data(type(first.train)(data(20, seed=9) + 5, 8), None)
    assert same(weights(second.model.transform), weights(first.model.transform))


def test_new_data_renew_the_transform_and_the_patience():
    watcher = Watcher()
    trainer = trainer_of(build("flow", max_epochs=4, early_stopping_metric="loss"), watcher, validate=scripted([1, 2]))
    trainer.max_epochs = 2
    trainer.run()
    layers = weights(trainer.model.layers)
    trainer.set_data(type(trainer.train)(data(20, seed=9) + 5, 8), None, version=1)
    (whiten,) = [part for part in trainer.model.transform if hasattr(part, "std")]
    assert torch.allclose(whiten.mean, (data(20, seed=9) + 5).mean(0), atol=1e-5)
    assert (trainer.best_value, trainer.bad_epochs, trainer.data_version) == (None, 0, 1)
    assert not trainer.state_dict().under("best").tensors
    assert same(weights(trainer.model.layers), layers)
    assert watcher.calls[-1] == "renewed"


# ---- early stopping

ERROR = "l2_reconstruction_error"


def stopping(values, patience=2, epochs=10, watcher=None, **options):
    model = build("ae", early_stopping_metric=ERROR, max_bad_valid_epochs=patience, max_epochs=epochs, lr=0.05)
    return trainer_of(model, watcher, validate=scripted(values, ERROR), **options)


def test_without_a_number_of_bad_epochs_training_never_stops_early():
    watcher = Watcher()
    trainer = stopping([1.0, *[2.0] * 9], patience=None, watcher=watcher)
    trainer.run()
    assert (trainer.epochs_done, trainer.bad_epochs) == (10, 9)
    assert [call for call in watcher.calls if call.startswith("best")] == ["best 1"]


@pytest.mark.parametrize(("scheduled", "epochs", "best"), [(True, 3 + 2 + 2, 6), (False, 3 + 2, 3)])
def test_when_patience_ends_rates_decay_from_the_best_weights_on(scheduled, epochs, best):
    watcher = Watcher()
    keys = {"early_stopping_metric": ERROR, "max_bad_valid_epochs": 2, "max_epochs": 100, "lr": 0.05}
    model = build("ae", use_lr_scheduler=scheduled, **keys)
    trainer = trainer_of(model, watcher, validate=scripted([3.0, 2.0, 1.0, 2.0, 2.0, 0.5, 2.0], ERROR))
    kept = kept_weights(trainer)
    rates = rates_of(trainer, watcher)
    assert trainer.epochs_done == epochs
    assert trainer.finished
    assert same(weights(model), kept[best - 1])
    if scheduled:
        assert same(kept[4], kept[2])
        assert rates[14] > 0.99 * 0.05 > rates[16] > rates[18] > rates[20] > 0
        assert rates[20] < 0.1 * 0.05


def test_a_trainer_that_has_no_data_yet_knows_that_it_stopped_early():
    keys = {"early_stopping_metric": ERROR, "max_bad_valid_epochs": 2, "max_epochs": 100, "use_lr_scheduler": True}
    trainer = trainer_of(build("ae", **keys), validate=scripted([1.0, *[2.0] * 4], ERROR))
    trainer.run()
    loaded = new_trainer("model", build("ae", **keys), Engine("cpu"), None)
    loaded.load_state_dict(trainer.state_dict())
    assert loaded.finished
    loaded.set_max_epochs(200)
    assert not loaded.finished


def kept_weights(trainer):
    """Remember the weights after every epoch."""
    kept = []
    trainer.callbacks[0].epoch = lambda trainer: kept.append(weights(trainer.model))
    return kept


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "best"),
    [
        ([3, 2, 1, 1, 1], 2, 5, 2),
        ([3, 2, 2.5, 1, 4, 5, 6], 3, 7, 3),
        ([1, 2], 1, 2, 0),
        ([1, 2, 0.5, 3, 0.4, 9, 9], 2, 7, 4),
        ([math.inf, 5, 6, 7], 2, 4, 1),
        ([math.nan, 5, math.nan, 7], 2, 4, 1),
        ([2, -math.inf, 1, -math.inf, math.nan], 2, 5, 2),
    ],
)
def test_patience_counts_epochs_without_a_better_value(values, patience, epochs, best):
    trainer = stopping(values, patience)
    kept = kept_weights(trainer)
    trainer.run()
    assert trainer.stopped_early
    assert trainer.epochs_done == len(values) == epochs
    assert trainer.best_value == values[best]
    assert same(weights(trainer.model), kept[best]), "the best weights are put back"
    assert not same(kept[best], kept[-1])


def test_higher_can_be_better():
    trainer = stopping([1, 3, 2, 2.5], lower_is_better=False)
    kept = kept_weights(trainer)
    trainer.run()
    assert (trainer.epochs_done, trainer.best_value) == (4, 3)
    assert same(weights(trainer.model), kept[1])


def test_what_is_not_finite_is_never_the_best_where_higher_is_better():
    trainer = stopping([1, math.inf, 3, math.inf, -math.inf], lower_is_better=False)
    kept = kept_weights(trainer)
    trainer.run()
    assert (trainer.epochs_done, trainer.best_value) == (5, 3)
    assert same(weights(trainer.model), kept[2])


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_validation_that_is_never_a_number_stops_and_keeps_the_last_weights(lower_is_better):
    trainer = stopping([math.nan] * 3, patience=3, lower_is_better=lower_is_better)
    kept = kept_weights(trainer)
    trainer.run()
    assert (trainer.epochs_done, trainer.best_value, trainer.stopped_early) == (3, None, True)
    assert same(weights(trainer.model), kept[-1])


def test_the_best_weights_are_put_back_at_the_limit_too():
    trainer = stopping([3, 1, 2, 2], patience=9, epochs=4)
    kept = kept_weights(trainer)
    trainer.run()
    assert not trainer.stopped_early
    assert same(weights(trainer.model), kept[1])


def test_without_early_stopping_the_last_weights_stay():
    model = build("ae", max_epochs=3, lr=0.05)
    trainer = trainer_of(model, validate=scripted([1, 2, 3]))
    kept = kept_weights(trainer)
    trainer.run()
    assert same(weights(model), kept[-1])
    assert trainer.best_value is None


def test_the_best_is_reported_when_it_is_found():
    watcher = Watcher()
    stopping([3, 2, 2.5, 1, 4, 5], watcher=watcher).run()
    assert [call for call in watcher.calls if call.startswith("best")] == ["best 1", "best 2", "best 4"]
    assert watcher.calls.index("best 1") < watcher.calls.index("epoch")


def reloaded(trainer, values, **overrides):
    """Return a new trainer that took up another's state."""
    config = trainer.model.config.model_copy(update=overrides)
    model = built(config, SPEC)
    fresh = trainer_of(model, validate=scripted(values, ERROR))
    fresh.load_state_dict(trainer.state_dict())
    return fresh


def test_a_run_that_stopped_early_does_not_train_when_it_is_loaded_again():
    trainer = stopping([1, 2, 3])
    trainer.run()
    again = reloaded(trainer, [])
    again.run()
    assert again.finished
    assert again.callbacks[0].calls == []
    assert same(weights(again.model), weights(trainer.model)), "the best weights, as before"


def test_a_run_that_stopped_early_continues_from_its_last_weights_when_it_may():
    values = [1, 2, 3, 4, 0.5, 6, 7]
    short, long = (stopping(values, patience, epochs=7) for patience in (2, 4))
    short.run()
    assert short.epochs_done == 3
    again = reloaded(short, values[3:], max_bad_valid_epochs=4)
    again.run()
    assert again.epochs_done == 7
    long.run()
    assert again.history == long.history
    assert again.best_value == long.best_value == 0.5
    assert same(weights(again.model), weights(long.model))


def test_a_raised_limit_gives_new_patience():
    trainer = stopping([1, 2, 3], patience=2, epochs=10)
    trainer.run()
    again = reloaded(trainer, [4, 5, 0])
    again.set_max_epochs(10)
    again.run()
    assert (again.epochs_done, again.best_value) == (5, 1)


def test_a_limit_that_is_reached_already_leaves_everything():
    trainer = stopping([1, 2, 3], patience=9, epochs=3)
    trainer.run()
    before = weights(trainer.model)
    trainer.set_max_epochs(2)
    trainer.run()
    assert trainer.epochs_done == 3
    assert same(weights(trainer.model), before)


# ---- numbers that are none


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [0, 4])
def test_a_loss_that_is_no_number_stops_within_its_step(value, step):
    watcher = Watcher()
    model = build("ae", max_epochs=5)
    trainer = trainer_of(model, watcher)
    objective = trainer.stepper.objectives[0]
    kept = []

    def poisoned(x):
        kept.append(weights(model))
        return objective.loss(x) * (value if len(kept) == step + 1 else 1.0)

    trainer.stepper.objectives = (type(objective)("loss", poisoned, objective.parameters),)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.run()
    order = trainer.train.order(_seed(trainer), trainer.epochs_done)
    rows = trainer.train.rows_of(order, trainer.batches_done).tolist()
    assert str(caught.value).startswith(
        f"model: the loss of ae is {value} at step {step} (epoch {step // 3 + 1}, training rows {rows}); "
    )
    assert len(watcher.losses) == step
    assert same(weights(model), kept[-1]), "the weights are those before the step"
    assert watcher.calls.count("checkpoint") == step // 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["loss", ERROR])
def test_a_validation_loss_that_is_no_number_stops_before_anything_is_saved(value, metric):
    """Other metrics only count as bad."""
    watcher = Watcher()
    trainer = trainer_of(build("ae", max_epochs=4), watcher, validate=scripted([2.0, value, 1.0, 1.0], metric))
    if metric == ERROR:
        trainer.run()
        assert trainer.epochs_done == 4
        return
    with pytest.raises(NonFiniteLossError, match=rf"^model: the validation loss of ae is {value} after epoch 2; "):
        trainer.run()
    assert watcher.calls == ["begin", "best 1", "checkpoint", "epoch"]
    assert (trainer.epochs_done, len(trainer.history)) == (1, 1)


def test_a_long_batch_is_named_by_its_first_rows():
    model = build("ae")
    trainer = trainer_of(model, rows=40, size=40)
    torch.nn.init.constant_(_last(model), math.nan)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.run()
    assert " and 32 more" in str(caught.value)
    assert len(str(caught.value)) < 300


def _last(model):
    return list(model.decoder.parameters())[-1]


@pytest.mark.parametrize("max_grad_norm", [10.0, None])
def test_a_gradient_that_is_no_number_never_reaches_the_weights(max_grad_norm):
    model = build("ae", max_grad_norm=max_grad_norm)
    trainer = trainer_of(model)
    objective = trainer.stepper.objectives[0]

    def root_at_zero(x):
        return objective.loss(x) + (0 * _last(model).sum()).sqrt()

    trainer.stepper.objectives = (type(objective)("loss", root_at_zero, objective.parameters),)
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match="gradient norm of the loss of ae is nan at step 0"):
        trainer.run()
    assert same(weights(model), before)


def test_the_second_loss_is_watched_as_well():
    model = build("toy")
    trainer = trainer_of(model, validate=lambda *_: {})
    fit, penalty = trainer.stepper.objectives
    trainer.stepper.objectives = (fit, type(fit)("penalty", lambda x: penalty.loss(x) * math.nan, penalty.parameters))
    with pytest.raises(NonFiniteLossError, match="the penalty of toy is nan at step 0"):
        trainer.run()


# ---- noise


def test_every_step_of_every_model_and_rank_draws_noise_of_its_own():
    def noise(name="model", seed=0, rank=0):
        trainer = trainer_of(build("ae", max_epochs=2))
        trainer.name, trainer.seed = name, seed
        trainer.engine = Engine("cpu")
        trainer.engine.rank = rank
        objective, drawn = trainer.stepper.objectives[0], []

        def draw(x):
            drawn.append(torch.rand(()).item())
            return objective.loss(x)

        trainer.stepper.objectives = (type(objective)("loss", draw, objective.parameters),)
        trainer.run()
        return drawn

    draws = [*noise(), *noise(name="gae"), *noise(seed=1), *noise(rank=1)]
    assert len(set(draws)) == len(draws) == 4 * 6
    assert noise() == draws[:6]
