"""The training objective on other data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from twostep.metrics.base import METRICS, Result, RowMean, RowMetric, SumOverRanks
from twostep.models.base import Model


class Loss(RowMetric):
    """Mean of the model's loss, in the space its network works in; with a discriminator, that of its opponent."""

    name = "loss"
    summary = "the training objective; with a discriminator, that of the encoder and decoder"
    lower_is_better = True

    def refusal(self, model: nn.Module) -> str:
        """Refuse two-step models."""
        return "" if isinstance(model, Model) else "its two steps have one each"

    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Average the batches' losses, each weighted by its rows."""
        *_, objective = cast(Model, model).objectives()
        moments = RowMean.of((objective.loss(x).expand(len(x)) for x in batches), sum_over_ranks)
        return {self.name: Result(moments.mean, objective.unit, moments.n)}


METRICS.register("loss")(Loss())
