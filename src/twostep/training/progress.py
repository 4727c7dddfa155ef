"""How far a model is trained."""

from __future__ import annotations

from pydantic import BaseModel

from twostep.core.schema import NonNegativeInt


class Progress(BaseModel):
    """The values of a trainer's state, besides its tensors; other keys of a checkpoint are ignored."""

    epochs_done: NonNegativeInt = 0
    batches_done: NonNegativeInt = 0
    steps_done: NonNegativeInt = 0
    bad_epochs: NonNegativeInt = 0
    decays_since: NonNegativeInt | None = None
    done_then: float = 0.0
    best_value: float | None = None
    first_epoch: NonNegativeInt = 0
    data_version: int = 0
    seconds_done: float = 0.0
    time_share: float | None = None
    history: list[dict[str, dict[str, float]]] = []
