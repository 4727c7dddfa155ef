"""How far reconstructions lie from the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from twostep.metrics.base import METRICS, Result, RowMean, RowMetric, SumOverRanks
from twostep.models.base import GeneralizedAutoencoder
from twostep.models.two_step import TwoStep


class L2ReconstructionError(RowMetric):
    """Mean of `‖x - g(f(x))‖²`."""

    name = "l2_reconstruction_error"
    summary = "mean squared distance between data and reconstructions, summed over coordinates"
    lower_is_better = True

    def refusal(self, model: nn.Module) -> str:
        """Refuse models without a decoder."""
        return "" if isinstance(model, GeneralizedAutoencoder | TwoStep) else "it does not reconstruct"

    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Average the reconstruction error over all rows."""
        model = cast(GeneralizedAutoencoder, model)
        moments = RowMean.of((model.reconstruction_error(x) for x in batches), sum_over_ranks)
        return {self.name: Result(moments.mean, "squared data units", moments.n, moments.standard_error)}


METRICS.register("l2_reconstruction_error")(L2ReconstructionError())
