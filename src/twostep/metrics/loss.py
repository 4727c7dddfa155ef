"""The training objective on other data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from twostep.metrics.base import METRICS, Moments, Result, RowMetric, SumOverRanks
from twostep.models.base import Model


class Loss(RowMetric):
    """Mean of the model's one loss, in the space its network works in."""

    name = "loss"
    summary = "the training objective, for models that have one"
    lower_is_better = True

    def refusal(self, model: nn.Module) -> str:
        """Refuse models with several losses, and two-step models."""
        if not isinstance(model, Model):
            return "its two steps have one each"
        losses = [objective.name for objective in model.objectives()]
        return "" if len(losses) == 1 else f"it is trained by several losses ({', '.join(losses)})"

    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Average the batches' losses, each weighted by its rows."""
        (objective,) = cast(Model, model).objectives()
        moments = Moments.of((objective.loss(x).expand(len(x)) for x in batches), sum_over_ranks)
        return {self.name: Result(moments.mean, objective.unit, moments.n)}


METRICS.register("loss")(Loss())
