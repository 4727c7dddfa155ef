"""Callbacks of a run: checkpoints, curves, the bar and lines of the terminal, and signals that stop training."""

from __future__ import annotations

import logging
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from twostep.core.checkpoint import State
from twostep.core.console import ProgressBar
from twostep.core.signals import FirstNoted
from twostep.runs.directory import Run
from twostep.training.callbacks import Callback, InterruptedTraining
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer

STEPS_BETWEEN_LOGS = 10
SECONDS_BETWEEN_LINES = 30.0
FIRST_EPOCHS = 10
FEW_STEPS = 500

logger = logging.getLogger("twostep")


class StopOnSignal(Callback):
    """Stops training after the step under way when a signal that ends the process has come, to any rank."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.noted = engine, FirstNoted()

    @contextmanager
    def listening(self) -> Generator[None]:
        """Note a first signal; a second one interrupts at once.

        Raises:
            InterruptedTraining: with the number of the signal; at the end, if no step was left to stop after.
        """
        try:
            with self.noted.listening():
                yield
            if self.must_stop():
                raise InterruptedTraining
        except InterruptedTraining as stop:
            raise InterruptedTraining(self.noted.number or stop.number) from None

    @override
    def must_stop(self) -> bool:
        if self.engine.world_size == 1:
            return self.noted.number is not None
        here = torch.tensor(float(self.noted.number is not None), device=self.engine.device)
        return bool(self.engine.sum(here) > 0)


class Checkpoints(Callback):
    """Saves the state of the whole run: `latest` after every epoch and inside of long ones, `best_valid` when best."""

    def __init__(self, run: Run, state: Callable[[], State], trainers: Sequence[Trainer]) -> None:
        self.run, self.state, self.trainers = run, state, trainers
        self._saved = time.monotonic()

    @override
    def begin(self, trainer: Trainer) -> None:
        self._saved = time.monotonic()

    @override
    def renewed(self, trainer: Trainer) -> None:
        if self.run.has_checkpoint("best_valid"):
            self.run.save("best_valid", self.state())
        self.checkpoint(trainer)

    @override
    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if (time.monotonic() - self._saved) / 60 > self.run.settings.run.checkpoint_minutes:
            self.checkpoint(trainer)

    @override
    def checkpoint(self, trainer: Trainer) -> None:
        self.run.save("latest", self.state())
        self._saved = time.monotonic()

    @override
    def best(self, trainer: Trainer) -> None:
        # Before `latest` of the same epoch: if the process dies between them, a resumed run trains that epoch again.
        if any(one.best_value is not None for one in self.trainers):
            self.run.save("best_valid", self.state())


class Series(Callback):
    """Sends losses and validation metrics somewhere, over the steps of all trainers."""

    def __init__(self, run: Run, trainers: Sequence[Trainer]) -> None:
        self.run, self.trainers = run, trainers

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Send values by name."""

    def send(self, values: Mapping[str, float]) -> None:
        """Send values of the step that the trainers have come to."""
        self.write(values, sum(one.steps_done for one in self.trainers))

    @override
    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if trainer.steps_done % STEPS_BETWEEN_LOGS == 0:
            self.send({f"{trainer.name}/train/{name}": loss.item() for name, loss in losses.items()})

    @override
    def epoch(self, trainer: Trainer) -> None:
        last = trainer.history[-1]
        values = {f"{trainer.name}/epoch/{name}": value for name, value in last["losses"].items()}
        self.send(values | {f"{trainer.name}/valid/{name}": value for name, value in last["valid"].items()})


class Curves(Series):
    """Writes them to tensorboard."""

    @override
    def write(self, values: Mapping[str, float], step: int) -> None:
        with self.run.curves(step) as curves:
            for name, value in values.items():
                curves.add_scalar(name, value, step)


@dataclass
class _Epoch:
    """The epoch under way of a trainer: its own seconds, steps and rows in this session, its bar and the bar's text."""

    bar: ProgressBar
    shown: str = ""
    seconds: float = 0.0
    steps: int = 0
    rows: int = 0


class Lines(Callback):
    """Logs a line for each epoch, and for part of a long one; on a terminal, draws a bar.

    Elsewhere the output shows the first and last epochs, and of those between one every five seconds; `stdout` in the
    run's directory has all.

    Args:
        several: whether the run trains more than one model.
    """

    def __init__(self, several: bool) -> None:
        self.several = several
        self._epochs: dict[str, _Epoch] = {}
        self._bars: list[ProgressBar] = []
        self._clock = self._logged = time.monotonic()

    @override
    def begin(self, trainer: Trainer) -> None:
        self._clock = time.monotonic()
        if not self._epochs:
            self._logged = self._clock
        if trainer.steps_done:
            place = f"from epoch {trainer.epochs_done + 1}/{trainer.max_epochs} (step {trainer.steps_done})"
            logger.info("%s: resuming %s", trainer.label, place)
        total = trainer.total_steps(len(trainer.data))
        if trainer.by_steps and total < FEW_STEPS and not trainer.steps_done:
            logger.warning(
                "%s: %d steps in all (%d epochs of %d batches) are few for a network: raise max_epochs or max_steps, "
                "or lower train_batch_size",
                *(trainer.label, total, trainer.max_epochs, len(trainer.data)),
            )
        bar = ProgressBar(trainer.label, total, trainer.steps_done, self._bars[0] if self._bars else None)
        self._bars.append(bar)
        self._epochs[trainer.name] = _Epoch(bar)

    @override
    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        epoch = self._spend(trainer)
        epoch.steps += 1
        epoch.rows += trainer.data.batch_size
        if trainer.steps_done % STEPS_BETWEEN_LOGS == 0:
            epoch.bar.update(trainer.steps_done, f"epoch {trainer.epochs_done + 1} {epoch.shown}")
        share = trainer.batches_done / len(trainer.data)
        if self._clock - self._logged > SECONDS_BETWEEN_LINES and share < 1:
            values = [f"{name} {loss.item():.4g}" for name, loss in losses.items()]
            self._log(trainer, f"{share:.0%} of epoch {trainer.epochs_done + 1}", values)

    @override
    def epoch(self, trainer: Trainer) -> None:
        before = trainer.history[-2]["valid"] if len(trainer.history) > 1 else {}
        losses, valid = trainer.history[-1]["losses"], trainer.history[-1]["valid"]
        for name, value in valid.items():
            if not math.isfinite(value) and math.isfinite(before.get(name, 0.0)):
                logger.warning("%s: epoch %d: validation %s is %s", trainer.name, trainer.epochs_done, name, value)
        values = [f"{name} {value:.4g}" for name, value in losses.items()]
        values += [f"valid {name} {value:.4g}" for name, value in valid.items()]
        epoch = self._spend(trainer)
        if trainer.by_steps:
            self._log(trainer, f"epoch {trainer.epochs_done}", values)
        else:
            logger.info("%s: fitted: %s", trainer.label, ", ".join([trainer.model.extra_repr(), *values]))
        self._epochs[trainer.name] = _Epoch(epoch.bar, epoch.shown)

    @override
    def end(self, trainer: Trainer) -> None:
        epoch = self._epochs.pop(trainer.name)
        epoch.bar.update(trainer.steps_done, epoch.shown)
        if not self._epochs:
            self.close()
        if trainer.stopped_early:
            best = "never a finite number" if trainer.best_value is None else f"best {trainer.best_value:.5g}"
            metric = trainer.keys.early_stopping_metric
            logger.info("%s: stopped early after epoch %d; %s: %s", trainer.name, trainer.epochs_done, metric, best)
        elif trainer.max_seconds is not None and trainer.seconds_done >= trainer.max_seconds:
            minutes, steps = trainer.seconds_done / 60, trainer.steps_done
            logger.info("%s: its %.3g minutes are over, after %d steps (max_minutes)", trainer.name, minutes, steps)

    @override
    def close(self) -> None:
        for bar in self._bars:
            bar.close()
        self._bars = []

    def _log(self, trainer: Trainer, place: str, values: Sequence[str]) -> None:
        """Log a line of progress, with the time that the remaining epochs of this model take at this epoch's pace."""
        self._logged = self._clock
        epoch = self._epochs[trainer.name]
        epoch.shown = f"{', '.join(values)}, {epoch.rows / epoch.seconds:,.0f} samples/s"
        steps_left = (trainer.max_epochs - trainer.epochs_done) * len(trainer.data) - trainer.batches_done
        if trainer.keys.max_steps is not None:
            steps_left = min(steps_left, trainer.keys.max_steps - trainer.steps_done)
        seconds_left = steps_left * epoch.seconds / max(epoch.steps, 1)
        if trainer.max_seconds is not None:
            seconds_left = min(seconds_left, trainer.max_seconds - trainer.seconds_done)
        logger.info(
            "%s: %s/%d: %s, %.0f s left at most%s",
            *(trainer.label, place, trainer.max_epochs, epoch.shown, max(0.0, seconds_left)),
            " for this model" if self.several else "",
            extra={"epoch_line": True, "optional": FIRST_EPOCHS < trainer.epochs_done < trainer.max_epochs},
        )

    def _spend(self, trainer: Trainer) -> _Epoch:
        """Add the time since the last event of any trainer to this trainer's epoch."""
        epoch, before = self._epochs[trainer.name], self._clock
        self._clock = time.monotonic()
        epoch.seconds += self._clock - before
        return epoch
