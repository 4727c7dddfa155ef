"""The one training loop, for every model: objectives are data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from pydantic import BaseModel
from torch import Tensor

from twostep.core.checkpoint import State
from twostep.core.schema import NonNegativeInt
from twostep.core.seeds import derive
from twostep.core.signals import Interrupted
from twostep.data.batches import Batches, Rows, subsample
from twostep.models.base import Model
from twostep.training.engine import Engine
from twostep.training.observer import Observer
from twostep.training.optim import build_optimizer, clip, cosine, load_optimizer_tensors, optimizer_tensors, set_rate

FOLLOWED_ROWS = 512  # that statistics of moving embeddings are taken from, at every step


class NonFiniteLossError(RuntimeError):
    """A loss that is not a finite number, in a step or on the validation rows: training can't go on."""


class Progress(BaseModel):
    """What of a trainer's state is no tensor; other keys of a checkpoint are left alone."""

    epochs_done: NonNegativeInt = 0
    batches_done: NonNegativeInt = 0
    steps_done: NonNegativeInt = 0
    bad_epochs: NonNegativeInt = 0
    best_value: float | None = None
    first_epoch: NonNegativeInt = 0
    data_version: int = 0
    history: list[dict[str, dict[str, float]]] = []


class InterruptedTraining(Interrupted):
    """Training was asked to stop, and has; its checkpoint is written."""


class Trainer:
    """Minimises the objectives of a model over epochs of batches.

    The permutation of an epoch is a function of (seed, epoch) and the noise of a step one of (seed, rank, step), so a
    trainer that loads a state goes on as if it had never stopped.

    Args:
        name: of the model in this run, for logs and seeds.
        model: to be trained; it is moved to the engine's device.
        engine: device, precision, ranks.
        observer: who is told.
        validate: gives metrics of the model on validation batches.
        seed: of the run.
        lower_is_better: direction of the early-stopping metric.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Engine,
        observer: Observer,
        validate: Callable[[Batches], dict[str, float]],
        seed: int,
        lower_is_better: bool = True,
    ) -> None:
        self.name, self.model, self.engine, self.observer = name, model, engine, observer
        self.validate, self.seed, self.lower_is_better = validate, seed, lower_is_better
        self.config = model.config
        self.max_epochs = self.config.max_epochs
        engine.place(model)
        rates = self.config.optimizers()
        self.objectives = model.objectives()
        self.optimizers = {
            objective.name: build_optimizer(self.config.optimizer, objective.parameters, rates[objective.name])
            for objective in self.objectives
        }
        self.rates = rates
        self.epochs_done = 0
        self.batches_done = 0
        self.steps_done = 0
        self.bad_epochs = 0
        self.data_version = 0
        self.best_value: float | None = None
        self.history: list[dict[str, dict[str, float]]] = []
        self.sums: dict[str, Tensor] = {}
        self.train: Batches | None = None
        self.valid: Batches | None = None
        self.first_epoch = 0
        self._running = False
        self._order: tuple[int, Tensor] | None = None
        self._best: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    @property
    def turns(self) -> tuple[int, int]:
        """Epochs and batches trained for in this run; an epoch's last batch counts when the epoch is closed."""
        assert self.train is not None, "use() comes first"
        return self.epochs_done - self.first_epoch, min(self.batches_done, len(self.train) - 1)

    @property
    def stopped_early(self) -> bool:
        """Whether validation has not got better for as many epochs as the config allows."""
        patience = self.config.max_bad_valid_epochs
        return patience is not None and self.bad_epochs >= patience

    @property
    def had_all_epochs(self) -> bool:
        """Whether as many epochs have been trained for as the limit allows."""
        return self.epochs_done >= self.max_epochs

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.stopped_early or self.had_all_epochs

    def use(self, train: Batches, valid: Batches | None, version: int = 0) -> None:
        """Take the data; before the first step, and when they are new, the transform takes its statistics from them.

        On new data training goes on from the best weights, and early stopping begins anew: its values are of old data.

        Args:
            train: training batches.
            valid: validation batches, if there are any.
            version: a number that changes with the data.
        """
        self.train, self.valid = train, valid
        if self.steps_done and version == self.data_version:
            return
        self.data_version = version
        if self._best:
            self.model.load_state_dict(self._best)
        self._best, self._last, self.best_value, self.bad_epochs = {}, {}, None, 0
        self._fit_transform(train.data)
        if self.steps_done:
            self.observer.renewed(self)

    def follow(self) -> None:
        """Take the transform's statistics anew, from a sample of the data as their encoder maps them now.

        They are a function of the encoder's weights, so they move as smoothly as these do, are the same on every rank,
        and a resumed run finds them again. A density on embeddings that move with every batch needs it: those of an
        autoencoder go through a hundred of their standard deviations within its first epoch.
        """
        assert self.train is not None, "use() comes first"
        self._fit_transform(subsample(self.train.data, FOLLOWED_ROWS))

    def raise_limit(self, max_epochs: int) -> None:
        """Set the limit of epochs anew; a trainer that stopped early below it goes on, counting bad epochs from 0."""
        if max_epochs > self.epochs_done and self.stopped_early:
            self.bad_epochs = 0
        self.max_epochs = max_epochs

    def fit(self) -> None:
        """Train until the limit or until early stopping, then put the best weights into the model if it is on.

        Raises:
            NonFiniteLossError: at the first step, or the first validation, whose loss is not finite.
            InterruptedTraining: after the step in which the observer wanted to stop.
        """
        while not self.finished:
            self.run_epoch()
        self.use_best()

    def use_best(self) -> None:
        """Put the best weights by the early-stopping metric into the model; without early stopping, leave it be."""
        if self._best:
            self._last = self._last or _copy(self.model.state_dict())
            self.model.load_state_dict(self._best)

    def run_epoch(self) -> None:
        """Finish the epoch that is under way."""
        epoch = self.epochs_done
        while self.epochs_done == epoch:
            self.advance()

    def advance(self) -> None:
        """Train on the next batch; the last one of an epoch brings validation, early stopping, checkpoints.

        After the last batch of all, the best weights are in the model if early stopping is on.
        """
        assert self.train is not None, "use() comes first"
        if not self._running:
            self._running = True
            self._put_last_back()
            self.observer.begin(self)
        if self._order is None or self._order[0] != self.epochs_done:
            self._order = self.epochs_done, self.train.order(derive(self.seed, self.name), self.epochs_done)
            self.model.train()
        if self.batches_done < len(self.train):
            self._take_batch(self.train.rows_of(self._order[1], self.batches_done))
        if self.batches_done == len(self.train):
            self._end_epoch()

    def step(self, rows: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step for each objective whose turn it is, on the batch of the named rows.

        Returns:
            the detached losses, means over the batch of all ranks.
        """
        assert self.train is not None, "use() comes first"
        x = self.train.take(rows)
        self.engine.seed(derive(self.seed, self.name, "step", self.engine.rank, self.steps_done))
        done = (self.epochs_done + self.batches_done / len(self.train)) / self.max_epochs
        losses: dict[str, Tensor] = {}
        for objective in self.objectives:
            if self.steps_done % objective.every:
                continue
            optimizer = self.optimizers[objective.name]
            set_rate(optimizer, cosine(self.rates[objective.name], done))
            optimizer.zero_grad(set_to_none=True)
            loss = x.new_zeros(())
            if len(x):
                with self.engine.autocast():
                    loss = objective.loss(x)
                loss.backward(inputs=objective.parameters)
            loss = self.engine.reduce_gradients(objective.parameters, loss.detach().float(), len(x) / len(rows))
            self._require_finite(objective.name, loss.item(), rows)
            norm = clip(objective.parameters, self.config.max_grad_norm or math.inf)
            self._require_finite(f"gradient norm of the {objective.name}", norm, rows)
            optimizer.step()
            if objective.after is not None:
                objective.after(self.engine.gather)
            losses[objective.name] = loss
        return losses

    def state_dict(self) -> State:
        """Return all that a later trainer needs to go on."""
        tensors = {f"model.{key}": value for key, value in (self._last or self.model.state_dict()).items()}
        tensors |= {f"best.{key}": value for key, value in self._best.items()}
        tensors |= {f"sums.{key}": value for key, value in self.sums.items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer_tensors(optimizer).items()}
        values = {
            "epochs_done": self.epochs_done,
            "batches_done": self.batches_done,
            "steps_done": self.steps_done,
            "bad_epochs": self.bad_epochs,
            "best_value": self.best_value,
            "first_epoch": self.first_epoch,
            "data_version": self.data_version,
            "history": self.history,
        }
        return State(tensors, values)

    def load_state_dict(self, state: State) -> None:
        """Take up a state that `state_dict` gave."""
        self.model.load_state_dict(state.under("model").tensors)
        self._best, self._last = state.under("best").tensors, {}
        self.sums = {name: value.to(self.engine.device) for name, value in state.under("sums").tensors.items()}
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, state.under(f"optimizer.{name}").tensors)
        for key, value in Progress.model_validate(state.values).model_dump(exclude_unset=True).items():
            setattr(self, key, value)

    def _fit_transform(self, data: Rows) -> None:
        assert self.train is not None
        self.engine.seed(derive(self.seed, self.name, "transform"))
        self.model.fit_transform(replace(self.train, data=data, rank=0, world_size=1))

    def _take_batch(self, rows: Tensor) -> None:
        losses = self.step(rows)
        weight = self._weight(self.batches_done)
        self.batches_done += 1
        self.steps_done += 1
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + weight * loss if name in self.sums else weight * loss
        self.observer.step(self, losses)
        if self.observer.must_stop():
            self.observer.checkpoint(self)
            raise InterruptedTraining

    def _end_epoch(self) -> None:
        means = {name: total.item() / self._total_weight(name) for name, total in self.sums.items()}
        valid = self.validate(self.valid) if self.valid is not None else {}
        if not math.isfinite(loss := valid.get("loss", 0.0)):
            raise NonFiniteLossError(
                f"{self.name}: the validation loss of {self.config.name} is {loss} after epoch {self.epochs_done + 1}; "
                "lower the learning rate or look at the validation rows"
            )
        self.epochs_done += 1
        self.batches_done, self.sums = 0, {}
        self.history.append({"losses": means, "valid": valid})
        self._stop_early(valid)
        self.observer.checkpoint(self)
        self.observer.epoch(self)
        if self.finished:
            self._running = False
            self.observer.end(self)
            self.use_best()

    def _require_finite(self, what: str, value: float, rows: Tensor) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{self.name}: the {what} of {self.config.name} is {value} at step {self.steps_done} (epoch "
                f"{self.epochs_done + 1}, training rows {_shown(rows)}); lower the learning rate or look at these rows"
            )

    def _stop_early(self, valid: dict[str, float]) -> None:
        metric = self.config.early_stopping_metric
        if metric is None:
            self.observer.best(self)
            return
        value = valid[metric]
        sign = 1 if self.lower_is_better else -1
        best = math.inf if self.best_value is None else sign * self.best_value
        if math.isfinite(value) and sign * value < best:
            self.best_value, self.bad_epochs = value, 0
            self._best = _copy(self.model.state_dict())
            self.observer.best(self)
        else:
            self.bad_epochs += 1

    def _put_last_back(self) -> None:
        if self._last:
            self.model.load_state_dict(self._last)
            self._last = {}

    def _weight(self, batch: int) -> float:
        """Rows of one batch of an epoch as a share of those of a full one; the last batch can have fewer."""
        assert self.train is not None
        rows, size = len(self.train.data), self.train.batch_size
        return min(size, rows - batch * size) / min(size, rows)

    def _total_weight(self, name: str) -> float:
        """Return the sum of the weights of the batches on which an objective took steps in the epoch that ends now."""
        every = next(objective.every for objective in self.objectives if objective.name == name)
        first = self.steps_done - self.batches_done
        return sum(self._weight(batch) for batch in range(self.batches_done) if (first + batch) % every == 0)


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _shown(rows: Tensor) -> str:
    numbers = rows.tolist()
    return str(numbers) if len(numbers) <= 8 else f"{str(numbers[:8])[:-1]}, ... {len(numbers)} in all]"
