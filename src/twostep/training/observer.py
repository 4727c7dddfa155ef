"""Who is told of what a trainer does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from twostep.training.trainer import Trainer


class Observer(Protocol):
    """What a trainer calls as it goes; `twostep.experiment.progress` is one."""

    def begin(self, trainer: Trainer) -> None:
        """Training starts or goes on."""

    def renewed(self, trainer: Trainer) -> None:
        """Training goes on with new data: what was saved before is of old ones."""

    def step(self, trainer: Trainer, losses: dict[str, Tensor]) -> None:
        """A step is done; losses are detached tensors."""

    def checkpoint(self, trainer: Trainer) -> None:
        """The state is worth keeping."""

    def best(self, trainer: Trainer) -> None:
        """The weights are the best so far by the early-stopping metric, or, without one, the latest; an epoch ends."""

    def epoch(self, trainer: Trainer) -> None:
        """An epoch is done; the trainer's history tells of it."""

    def end(self, trainer: Trainer) -> None:
        """Training is over."""

    def must_stop(self) -> bool:
        """Whether someone wants training to stop."""
        ...
