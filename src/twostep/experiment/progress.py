"""Tells a run's directory, the terminal and the log what a trainer does, and a trainer when to stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.checkpoint import State
from twostep.core.console import ProgressBar
from twostep.core.signals import FirstNoted
from twostep.runs.directory import Run
from twostep.training.engine import Engine
from twostep.training.trainer import InterruptedTraining, Trainer

STEPS_BETWEEN_LOGS = 10
SECONDS_BETWEEN_LINES = 30.0

logger = logging.getLogger("twostep")


@dataclass
class Epoch:
    """What one trainer's epoch under way has taken so far in this session: its own time, steps and rows."""

    seconds: float = 0.0
    steps: int = 0
    rows: int = 0


class Recorder:
    """The observer of all trainers of a run; only the main rank writes.

    Args:
        run: where to write.
        engine: of the run.
        trainers: all of them, by name; filled after the recorder is made.
        state: gives the state of the whole run.
    """

    def __init__(self, run: Run, engine: Engine, trainers: Mapping[str, Trainer], state: Callable[[], State]) -> None:
        self.run, self.engine, self.trainers, self.state = run, engine, trainers, state
        self.noted = FirstNoted()
        self._bars: dict[str, ProgressBar] = {}
        self._epochs: dict[str, Epoch] = {}
        self._shown: dict[str, str] = {}
        self._saved = self._heard = self._told = time.monotonic()

    @contextmanager
    def listening(self) -> Generator[None]:
        """Stop after the step under way at a signal that ends this process; at a second one, at once.

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
        finally:
            for bar in self._bars.values():
                bar.close()

    def begin(self, trainer: Trainer) -> None:
        """Start the bar and the clocks; another trainer's may be running, if the two take turns."""
        assert trainer.train is not None
        self._heard = time.monotonic()
        if not self._bars:
            self._saved = self._told = self._heard
        self._epochs[trainer.name], self._shown[trainer.name] = Epoch(), ""
        if trainer.steps_done:
            label, epoch = _label(trainer), trainer.epochs_done + 1
            logger.info("%s: going on from epoch %d/%d (step %d)", label, epoch, trainer.max_epochs, trainer.steps_done)
        if self.engine.is_main:
            label = f"{trainer.name} {trainer.config.name}" if trainer.name != "model" else trainer.config.name
            beside = next(iter(self._bars.values()), None)
            total = trainer.max_epochs * len(trainer.train)
            self._bars[trainer.name] = ProgressBar(label, total, trainer.steps_done, beside)

    def renewed(self, trainer: Trainer) -> None:
        """Write the state in place of all that were saved."""
        if self.engine.is_main and self.run.has_checkpoint("best_valid"):
            self.run.save("best_valid", self.state())
        self.checkpoint(trainer)

    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        """Log every tenth step's losses; tell of a long epoch, and save inside it."""
        assert trainer.train is not None
        epoch = self._spend(trainer)
        epoch.steps += 1
        epoch.rows += trainer.train.batch_size
        if not self.engine.is_main:
            return
        if trainer.steps_done % STEPS_BETWEEN_LOGS == 0:
            for name, loss in losses.items():
                self.run.log(f"{trainer.name}/train/{name}", loss.item(), self._global_step())
            shown = f"epoch {trainer.epochs_done + 1} {self._shown[trainer.name]}"
            self._bars[trainer.name].update(trainer.steps_done, shown)
        now = self._heard
        if now - self._told > SECONDS_BETWEEN_LINES and trainer.batches_done < len(trainer.train):
            shown = [f"{name} {loss.item():.4g}" for name, loss in losses.items()]
            share = trainer.batches_done / len(trainer.train)
            self._tell(trainer, f"{share:.0%} of epoch {trainer.epochs_done + 1}", shown)
        if (now - self._saved) / 60 > self.run.settings.run.checkpoint_minutes:
            self.checkpoint(trainer)

    def checkpoint(self, trainer: Trainer) -> None:
        """Write the latest state."""
        if self.engine.is_main:
            self.run.save("latest", self.state())
            self._saved = time.monotonic()

    def best(self, trainer: Trainer) -> None:
        """Write the state in which every model has its best weights so far, if early stopping chooses any of them.

        It is written before the latest one of the same epoch: if the process dies between them, a resumed run trains
        that epoch again and writes both.
        """
        if self.engine.is_main and any(other.best_value is not None for other in self.trainers.values()):
            self.run.save("best_valid", self.state())

    def epoch(self, trainer: Trainer) -> None:
        """Log an epoch's losses and validation metrics; warn of those that are not finite any more."""
        if not self.engine.is_main:
            return
        before = trainer.history[-2]["valid"] if len(trainer.history) > 1 else {}
        for name, value in trainer.history[-1]["valid"].items():
            if not math.isfinite(value) and math.isfinite(before.get(name, 0.0)):
                logger.warning("%s: epoch %d: validation %s is %s", trainer.name, trainer.epochs_done, name, value)
        for kind, values in (("epoch", trainer.history[-1]["losses"]), ("valid", trainer.history[-1]["valid"])):
            for name, value in values.items():
                self.run.log(f"{trainer.name}/{kind}/{name}", value, self._global_step())
        losses = [f"{name} {value:.4g}" for name, value in trainer.history[-1]["losses"].items()]
        valid = [f"valid {name} {value:.4g}" for name, value in trainer.history[-1]["valid"].items()]
        self._spend(trainer)
        self._tell(trainer, f"epoch {trainer.epochs_done}", losses + valid)
        self._epochs[trainer.name] = Epoch()

    def end(self, trainer: Trainer) -> None:
        """Close the bar, and tell of early stopping."""
        assert trainer.train is not None
        del self._epochs[trainer.name]
        if not self.engine.is_main:
            return
        self._bars[trainer.name].update(trainer.steps_done, self._shown[trainer.name])
        if not self._epochs:
            for bar in self._bars.values():
                bar.close()
            self._bars = {}
        if trainer.stopped_early:
            best = "never a finite number" if trainer.best_value is None else f"best {trainer.best_value:.5g}"
            metric = trainer.config.early_stopping_metric
            logger.info("%s: stopped early after epoch %d; %s: %s", trainer.name, trainer.epochs_done, metric, best)

    def must_stop(self) -> bool:
        """Whether a signal has come, to any rank."""
        if self.engine.world_size == 1:
            return self.noted.number is not None
        here = torch.tensor(float(self.noted.number is not None), device=self.engine.device)
        return bool(self.engine.sum(here) > 0)

    def _tell(self, trainer: Trainer, where: str, values: Sequence[str]) -> None:
        """Log a line of progress, with the time that all epochs left to this model would take at this epoch's pace."""
        assert trainer.train is not None
        self._told = self._heard
        epoch = self._epochs[trainer.name]
        shown = self._shown[trainer.name] = f"{', '.join(values)}, {epoch.rows / epoch.seconds:,.0f} samples/s"
        steps_left = (trainer.max_epochs - trainer.epochs_done) * len(trainer.train) - trainer.batches_done
        logger.info(
            "%s: %s/%d: %s, %.0f s left at most%s",
            _label(trainer),
            where,
            trainer.max_epochs,
            shown,
            steps_left * epoch.seconds / max(epoch.steps, 1),
            " for this model" if len(self.trainers) > 1 else "",
            extra={"epoch_line": True},
        )

    def _spend(self, trainer: Trainer) -> Epoch:
        """Count the time since anyone was heard of as this trainer's."""
        epoch, before = self._epochs[trainer.name], self._heard
        self._heard = time.monotonic()
        epoch.seconds += self._heard - before
        return epoch

    def _global_step(self) -> int:
        return sum(trainer.steps_done for trainer in self.trainers.values())


def _label(trainer: Trainer) -> str:
    return f"{trainer.name} {trainer.config.name}"
