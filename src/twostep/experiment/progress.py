"""Callbacks of a run: checkpoints, curves, the bar and lines of the terminal, and signals that stop training."""

from __future__ import annotations

import logging
import math
import time
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
    """Saves the state of the whole run: `latest` after every epoch and inside of long ones, `best_valid` when best.

    Args:
        run: where to write.
        state: returns the state.
        trainers: of the run.
    """

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


class Curves(Callback):
    """Writes losses and validation metrics to tensorboard, over the steps of all trainers.

    Args:
        run: where to write.
        trainers: of the run.
    """

    def __init__(self, run: Run, trainers: Sequence[Trainer]) -> None:
        self.run, self.trainers = run, trainers

    @override
    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if trainer.steps_done % STEPS_BETWEEN_LOGS == 0:
            self._write(trainer, "train", {name: loss.item() for name, loss in losses.items()})

    @override
    def epoch(self, trainer: Trainer) -> None:
        self._write(trainer, "epoch", trainer.history[-1]["losses"])
        self._write(trainer, "valid", trainer.history[-1]["valid"])

    def _write(self, trainer: Trainer, kind: str, values: Mapping[str, float]) -> None:
        step = sum(one.steps_done for one in self.trainers)
        with self.run.curves(step) as curves:
            for name, value in values.items():
                curves.add_scalar(f"{trainer.name}/{kind}/{name}", value, step)


@dataclass
class EpochUnderWay:
    """What the current epoch of a trainer has taken so far in this session: its own seconds, steps and rows."""

    seconds: float = 0.0
    steps: int = 0
    rows: int = 0


class Lines(Callback):
    """Logs a line for each epoch, and for part of a long one; on a terminal, draws a bar.

    Args:
        several: whether the run trains more than one model.
    """

    def __init__(self, several: bool) -> None:
        self.several = several
        self._bars: dict[str, ProgressBar] = {}
        self._epochs: dict[str, EpochUnderWay] = {}
        self._shown: dict[str, str] = {}
        self._clock = self._logged = time.monotonic()

    @override
    def begin(self, trainer: Trainer) -> None:
        assert trainer.train is not None
        self._clock = time.monotonic()
        if not self._epochs:
            self._logged = self._clock
        self._epochs[trainer.name], self._shown[trainer.name] = EpochUnderWay(), ""
        if trainer.steps_done:
            place = f"from epoch {trainer.epochs_done + 1}/{trainer.max_epochs} (step {trainer.steps_done})"
            logger.info("%s: resuming %s", trainer.label, place)
        other = next(iter(self._bars.values()), None)
        total = trainer.max_epochs * len(trainer.train)
        self._bars[trainer.name] = ProgressBar(trainer.label, total, trainer.steps_done, other)

    @override
    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        assert trainer.train is not None
        epoch = self._spend(trainer)
        epoch.steps += 1
        epoch.rows += trainer.train.batch_size
        if trainer.steps_done % STEPS_BETWEEN_LOGS == 0:
            shown = f"epoch {trainer.epochs_done + 1} {self._shown[trainer.name]}"
            self._bars[trainer.name].update(trainer.steps_done, shown)
        share = trainer.batches_done / len(trainer.train)
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
        self._spend(trainer)
        self._log(trainer, f"epoch {trainer.epochs_done}", values)
        self._epochs[trainer.name] = EpochUnderWay()

    @override
    def end(self, trainer: Trainer) -> None:
        del self._epochs[trainer.name]
        self._bars[trainer.name].update(trainer.steps_done, self._shown[trainer.name])
        if not self._epochs:
            self.close()
        if trainer.stopped_early:
            best = "never a finite number" if trainer.best_value is None else f"best {trainer.best_value:.5g}"
            metric = trainer.keys.early_stopping_metric
            logger.info("%s: stopped early after epoch %d; %s: %s", trainer.name, trainer.epochs_done, metric, best)

    @override
    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars = {}

    def _log(self, trainer: Trainer, place: str, values: Sequence[str]) -> None:
        """Log a line of progress, with the time that the remaining epochs of this model take at this epoch's pace."""
        assert trainer.train is not None
        self._logged = self._clock
        epoch = self._epochs[trainer.name]
        shown = self._shown[trainer.name] = f"{', '.join(values)}, {epoch.rows / epoch.seconds:,.0f} samples/s"
        steps_left = (trainer.max_epochs - trainer.epochs_done) * len(trainer.train) - trainer.batches_done
        logger.info(
            "%s: %s/%d: %s, %.0f s left at most%s",
            trainer.label,
            place,
            trainer.max_epochs,
            shown,
            steps_left * epoch.seconds / max(epoch.steps, 1),
            " for this model" if self.several else "",
            extra={"epoch_line": True},
        )

    def _spend(self, trainer: Trainer) -> EpochUnderWay:
        """Add the time since the last event of any trainer to this trainer's epoch."""
        epoch, before = self._epochs[trainer.name], self._clock
        self._clock = time.monotonic()
        epoch.seconds += self._clock - before
        return epoch
