"""The training loop of every model: epochs of batches, validation, early stopping, state."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

from torch import Tensor, float64, tensor

from twostep.core.checkpoint import State
from twostep.core.keys import FitKeys
from twostep.core.seeds import derive
from twostep.data.batches import Batches, Rows, subsample
from twostep.models.base import Model, OptimizerConfig
from twostep.training.average import Average
from twostep.training.callbacks import Callback, InterruptedTraining, NonFiniteLossError
from twostep.training.engine import Engine
from twostep.training.optim import Stepper
from twostep.training.progress import Progress

DECAY = 10  # epochs, in which rates decay when patience ends, or as many as it has
REFIT_ROWS = 512  # from which the statistics of non-stationary embeddings are estimated, before every step

logger = logging.getLogger("twostep")

Validate = Callable[[Batches, Batches], dict[str, float]]
"""Maps training and validation batches to validation metrics by name."""


class Trainer:
    """Minimises the objectives of a model over epochs of batches.

    The permutation of an epoch is a function of (seed, epoch) and the noise of a step one of (seed, rank, step), so a
    trainer that loads a state continues as if it had never stopped. A density without objectives is fitted where the
    transform of others is; one step, in which nothing changes, ends its training.

    Args:
        name: of the model in its run, for logs and seeds.
        model: to be trained; it is moved to the engine's device.
        keys: epochs, optimiser, clipping, early stopping, for whose metric `lower_is_better` or not.
        optimizers: learning rate and schedule of each objective, by its name.
        validate: measures the model on training and validation batches.
        kind: of the model, for logs.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        keys: FitKeys,
        optimizers: Mapping[str, OptimizerConfig],
        engine: Engine,
        validate: Validate,
        seed: int,
        lower_is_better: bool = True,
        kind: str = "",
    ) -> None:
        self.name, self.model, self.keys, self.engine, self.validate = name, model, keys, engine, validate
        self.seed, self.lower_is_better, self.kind = seed, lower_is_better, kind or type(model).__name__
        self.label = f"{name} {self.kind}"
        self.max_epochs = keys.max_epochs
        model.to(engine.device)
        self.stepper = Stepper(model.objectives(), keys.optimizer, optimizers, keys.max_grad_norm, engine)
        self.average = Average(model, keys.ema_decay)
        self.callbacks: Sequence[Callback] = ()
        self.epochs_done, self.batches_done, self.steps_done, self.bad_epochs = 0, 0, 0, 0
        self.max_seconds: float | None = None
        self.seconds_done = 0.0
        self.time_share: float | None = None  # of a run's, for the first of two steps
        self.first_epoch, self.data_version = 0, 0
        self.decays_since: int | None = None  # the epoch at which patience ended
        self.done_then = 0.0
        self.best_value: float | None = None
        self.history: list[dict[str, dict[str, float]]] = []
        self.sums: dict[str, Tensor] = {}
        self.train: Batches | None = None
        self.valid: Batches | None = None
        self._running, self._clock, self._owed = False, 0.0, 0.0
        self._order: tuple[int, Tensor] | None = None
        self._best: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    @property
    def data(self) -> Batches:
        """The training batches."""
        assert self.train is not None, "set_data() comes first"
        return self.train

    @property
    def stopped_early(self) -> bool:
        """Whether validation did not improve for `max_bad_valid_epochs` and, after that, the rates have decayed."""
        if self.decays_since is not None:
            return self.epochs_done - self.decays_since >= self._decay
        return self.bad_epochs >= self._patience

    @property
    def had_all_epochs(self) -> bool:
        """Whether the model was trained for `max_epochs`, or for all steps or all the time that it may be."""
        return self.epochs_done >= self.max_epochs or self._had_all_steps

    @property
    def by_steps(self) -> bool:
        """Whether the model has objectives to minimise, and is not fitted at once."""
        return bool(self.stepper.objectives)

    @property
    def _had_all_steps(self) -> bool:
        if not self.by_steps and self.steps_done:
            return True
        if self.keys.max_steps is not None and self.steps_done >= self.keys.max_steps:
            return True
        return self.max_seconds is not None and self.steps_done > 0 and self.seconds_done >= self.max_seconds

    def total_steps(self, batches: int) -> int:
        """Return for how many steps the model is trained at most, with so many batches in an epoch."""
        most = self.max_epochs * batches if self.by_steps else 1
        return min(most, self.keys.max_steps or most)

    @property
    def done(self) -> float:
        """Share of the training that is done: of epochs, steps or time, of whichever ends first."""
        epochs = (self.epochs_done + self.batches_done / len(self.data)) / self.max_epochs
        steps = 0.0 if self.keys.max_steps is None else self.steps_done / self.keys.max_steps
        done = max(epochs, steps, self.seconds_done / self.max_seconds if self.max_seconds else 0.0)
        if self.decays_since is None:
            return done
        decayed = (self.epochs_done - self.decays_since + self.batches_done / len(self.data)) / self._decay
        return max(done, self.done_then + (1 - self.done_then) * decayed)

    @property
    def _patience(self) -> float:
        return self.keys.max_bad_valid_epochs or math.inf

    @property
    def _decay(self) -> float:
        """Epochs in which rates decay when patience ends."""
        return min(self._patience, DECAY)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.stopped_early or (self.had_all_epochs and not self.batches_done)

    def fit(self, train: Batches, valid: Batches | None = None, callbacks: Sequence[Callback] = ()) -> None:
        """Train until `max_epochs` or early stopping, then take the best weights if early stopping is on.

        When patience ends, rates with a schedule decay from the best weights on, before training stops.

        Raises:
            NonFiniteLossError: at the first step, or the first validation, whose loss is not finite.
            InterruptedTraining: after a step at which a callback wants to stop.
        """
        self.callbacks = callbacks
        self.set_data(train, valid)
        self.run()

    def run(self) -> None:
        """Do what `fit` does, on the data that are set."""
        while not self.finished:
            self.run_epoch()
        self.use_best()

    def set_data(self, train: Batches, valid: Batches | None, version: int = 0) -> None:
        """Set the data; the transform is fitted to them before the first step, and whenever `version` is new.

        On new data training continues from the best weights, and early stopping starts again.
        """
        self.train, self.valid = train, valid
        if self.steps_done and version == self.data_version:
            return
        self.data_version = version
        if self._best and self.keys.early_stopping_metric:
            self.model.load_state_dict(self._best)
        self._best, self._last, self.best_value, self.bad_epochs, self.decays_since = {}, {}, None, 0, None
        self.average.restart()
        self._fit_transform(train.data)
        if self.steps_done:
            self._call("renewed")

    def refit_transform(self) -> None:
        """Fit the transform again to a sample of the data, as their encoder maps them now.

        Within its first epoch, an autoencoder moves its embeddings by a hundred of their standard deviations.
        """
        self._fit_transform(subsample(self.data.data, REFIT_ROWS))

    def set_max_epochs(self, max_epochs: int) -> None:
        """Set the number of epochs; a trainer that stopped early below it continues, counting bad epochs from 0."""
        done = self.epochs_done
        if max_epochs < done:
            logger.info("%s: has had %d epochs already, more than the new limit of %d", self.name, done, max_epochs)
        if max_epochs > done and self.stopped_early:
            self.bad_epochs, self.decays_since = 0, None
        self.max_epochs = max(max_epochs, done)

    def use_best(self) -> None:
        """Take the best weights by the early-stopping metric, or without one their averages, if there are such."""
        if self._best:
            self._last = self._last or deepcopy(self.model.state_dict())
            self.model.load_state_dict(self._best)

    def run_epoch(self) -> None:
        """Finish the epoch under way."""
        epoch = self.epochs_done
        while self.epochs_done == epoch:
            self.advance()

    def advance(self) -> None:
        """Train on the next batch; after the last one of an epoch, validate and save."""
        data = self.data
        self._clock, self._owed = time.monotonic() - self._owed, 0.0
        if not self._running:
            self._running = True
            if self._last:
                self.model.load_state_dict(self._last)
                self._last = {}
            self._call("begin")
        if self._order is None or self._order[0] != self.epochs_done:
            self._order = self.epochs_done, data.order(derive(self.seed, self.name), self.epochs_done)
            self.model.train()
        if self.batches_done < len(data) and not self._had_all_steps:
            self._take_batch(data.rows_of(self._order[1], self.batches_done))
        if self.batches_done == len(data) or self._had_all_steps:
            self._end_epoch()

    def step(self, rows: Tensor) -> dict[str, Tensor]:
        """Take a step for each objective that is due, on these rows; return the losses, means over all ranks."""

        def require_finite(what: str, value: float) -> None:
            if not math.isfinite(value):
                shown = f"{rows[:8].tolist()}{f' and {len(rows) - 8} more' if len(rows) > 8 else ''}"
                raise NonFiniteLossError(
                    f"{self.name}: the {what} of {self.kind} is {value} at step {self.steps_done} (epoch "
                    f"{self.epochs_done + 1}, training rows {shown}); lower the learning rate or look at these rows"
                )

        x = self.data.take(rows)
        self.engine.seed(derive(self.seed, self.name, "step", self.engine.rank, self.steps_done))
        return self.stepper.step(x, self.steps_done, self.done, len(x) / len(rows), require_finite)

    def spend(self, began: float) -> None:
        """Count the time since a value of `time.monotonic`, if it is limited: the mean over ranks."""
        self._clock = time.monotonic()
        if self.max_seconds is not None:
            spent = self.engine.sum(tensor([self._clock - began], dtype=float64))
            self.seconds_done += float(spent) / self.engine.world_size

    def state_dict(self) -> State:
        """Return everything from which training can continue."""
        tensors = {f"model.{key}": value for key, value in (self._last or self.model.state_dict()).items()}
        tensors |= {f"best.{key}": value for key, value in self._best.items()}
        tensors |= {f"average.{key}": value for key, value in self.average.values.items()}
        tensors |= {f"sums.{key}": value for key, value in self.sums.items()}
        tensors |= {f"optimizer.{key}": value for key, value in self.stepper.tensors().items()}
        return State(tensors, {key: getattr(self, key) for key in Progress.model_fields})

    def load_state_dict(self, state: State) -> None:
        """Load what `state_dict` returned."""
        self.model.load_state_dict(state.under("model").tensors)
        self.average.load(state.under("average").tensors)
        self._best, self._last = state.under("best").tensors, {}
        self.sums = {name: value.to(self.engine.device) for name, value in state.under("sums").tensors.items()}
        self.stepper.load_tensors(state.under("optimizer").tensors)
        for key, value in Progress.model_validate(state.values).model_dump(exclude_unset=True).items():
            setattr(self, key, value)

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

    def _fit_transform(self, data: Rows) -> None:
        self.engine.seed(derive(self.seed, self.name, "transform"))
        self.model.fit_transform(replace(self.data, data=data, rank=0, world_size=1))

    def _take_batch(self, rows: Tensor) -> None:
        losses = self.step(rows)
        self.average.update(self.steps_done)
        weight = self.data.weight(self.batches_done)
        self.batches_done += 1
        self.steps_done += 1
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + weight * loss
        for callback in self.callbacks:
            callback.step(self, losses)
        self.spend(self._clock)
        stops = [callback.must_stop() for callback in self.callbacks]  # all are asked: one may wait for all ranks
        if any(stops):
            self._call("checkpoint")
            raise InterruptedTraining

    def _end_epoch(self) -> None:
        means = {name: total.item() / self._total_weight(name) for name, total in self.sums.items()}
        with self.average.applied():
            valid = {} if self.valid is None else self.validate(self.data, self.valid)
            if not math.isfinite(loss := valid.get("loss", 0.0)):
                raise NonFiniteLossError(
                    f"{self.name}: the validation loss of {self.kind} is {loss} after epoch {self.epochs_done + 1}; "
                    "lower the learning rate or look at the validation rows"
                )
            self.spend(self._clock)
            self.epochs_done += 1
            self.batches_done, self.sums = 0, {}
            self.history.append({"losses": means, "valid": valid})
            best = self._is_best(valid)
        first = self.stopped_early and self.decays_since is None
        if first and self.stepper.decays and self._best and not self.had_all_epochs:
            self._decay_from_best()
        if best:
            self._call("best")
        self._call("checkpoint")
        self._call("epoch")
        self._owed = time.monotonic() - self._clock  # what is saved says whether training has ended: count this later
        if self.finished:
            self._running = False
            self._call("end")
            self.use_best()

    def _is_best(self, valid: Mapping[str, float]) -> bool:
        """Return whether the weights are the best so far, or the latest where nothing stops early; keep the best."""
        metric = self.keys.early_stopping_metric
        if metric is None:
            self._best = deepcopy(self.model.state_dict()) if self.average.values else {}
            return True
        value, sign = valid[metric], 1 if self.lower_is_better else -1
        best = math.inf if self.best_value is None else sign * self.best_value
        if math.isfinite(value) and sign * value < best:
            self.best_value, self.bad_epochs = value, 0
            self._best = deepcopy(self.model.state_dict())
            return True
        self.bad_epochs += 1
        return False

    def _decay_from_best(self) -> None:
        """Go back to the best weights, and run through what is left of the schedules of rates in a few epochs."""
        logger.info("%s: no better since epoch %d: rates decay now", self.name, self.epochs_done - self.bad_epochs)
        self.done_then, self.decays_since = self.done, self.epochs_done
        self.model.load_state_dict(self._best)
        self.average.restart()

    def _total_weight(self, name: str) -> float:
        """Return the sum of the weights of the batches of the ending epoch in which an objective was due."""
        every = next(objective.every for objective in self.stepper.objectives if objective.name == name)
        first = self.steps_done - self.batches_done
        return sum(self.data.weight(batch) for batch in range(self.batches_done) if (first + batch) % every == 0)
