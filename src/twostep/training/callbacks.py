"""What a trainer calls as it trains, and the exceptions that end training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from twostep.core.signals import Interrupted

if TYPE_CHECKING:
    from twostep.training.trainer import Trainer


class NonFiniteLossError(RuntimeError):
    """A loss, of a step or of the validation rows, is not finite: training can't continue."""


class InterruptedTraining(Interrupted):
    """Training was asked to stop, and has; its checkpoint is written."""


class Callback:
    """What a trainer calls as it trains; a subclass overrides what it needs."""

    def begin(self, trainer: Trainer) -> None:
        """Training starts or is resumed."""

    def renewed(self, trainer: Trainer) -> None:
        """Training continues on new data: checkpoints written before are of the old data."""

    def step(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        """A step was taken; losses are detached tensors."""

    def checkpoint(self, trainer: Trainer) -> None:
        """The state should be saved."""

    def best(self, trainer: Trainer) -> None:
        """The weights are the best by the early-stopping metric, or the latest if there is none; an epoch ends."""

    def epoch(self, trainer: Trainer) -> None:
        """An epoch has ended; its losses and metrics are the last entry of the trainer's history."""

    def end(self, trainer: Trainer) -> None:
        """Training has ended."""

    def must_stop(self) -> bool:
        """Whether training should stop after this step."""
        return False

    def close(self) -> None:
        """Nothing is called any more: training has ended or failed."""
