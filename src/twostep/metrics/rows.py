"""Metrics of a model on rows of data: its loss, its reconstruction error and its log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from typing_extensions import override

from twostep.metrics.base import METRICS, Result, RowMean, RowMetric, SumOverRanks
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model
from twostep.models.two_step import TwoStep


class Loss(RowMetric):
    """Mean training loss, in the space of the network's input; of adversarial models, that of encoder and decoder."""

    name = "loss"
    summary = "training loss; of adversarial models, that of the encoder and decoder"
    lower_is_better = True

    @override
    def refusal(self, model: nn.Module) -> str:
        return "" if isinstance(model, Model) else "its two components have one each"

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        *_, objective = cast(Model, model).objectives()
        mean = RowMean.of((objective.loss(x).expand(len(x)) for x in batches), sum_over_ranks)
        return {self.name: Result(mean.mean, objective.unit, mean.n)}


class L2ReconstructionError(RowMetric):
    """Mean of `‖x - g(f(x))‖²`."""

    name = "l2_reconstruction_error"
    summary = "mean squared distance between data and their reconstructions, summed over coordinates"
    lower_is_better = True

    @override
    def refusal(self, model: nn.Module) -> str:
        return "" if isinstance(model, GeneralizedAutoencoder | TwoStep) else "it does not reconstruct"

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        model = cast(GeneralizedAutoencoder, model)
        mean = RowMean.of((model.reconstruction_error(x) for x in batches), sum_over_ranks)
        return {self.name: Result(mean.mean, "squared data units", mean.n, mean.standard_error)}


class LogLikelihood(RowMetric):
    """Mean log-density in data space, or on the learned manifold for a two-step model.

    A density of dequantised integers is evaluated on dequantised integers, and also gives bits per dimension,
    `-log p / (D log 2)`, an upper bound on those of the probability of the integers.

    Points at which the decoder of a two-step model has no full rank are counted and left out.
    """

    name = "log_likelihood"
    summary = "mean log-density, with its kind (exact, bound, estimate, unnormalised) and its reference measure"
    lower_is_better = False

    @override
    def refusal(self, model: nn.Module) -> str:
        return "" if isinstance(model, DensityEstimator | TwoStep) else "it has no density"

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        if isinstance(model, TwoStep):
            mean = RowMean.of((model.log_prob(x) for x in batches), sum_over_ranks, leave_out=math.inf)
            rank = f"points where the decoder's Jacobian has rank below {model.de.dim}"
            note = f"{mean.left_out:,} {rank} are left out" if mean.left_out else ""
            return {self.name: _nats(mean, model.likelihood, "volume of the learned manifold", note)}
        model = cast(DensityEstimator, model)
        mean = RowMean.of((model.log_prob(x) for x in batches), sum_over_ranks)
        results = {self.name: _nats(mean, model.likelihood, f"Lebesgue on R^{model.dim}")}
        if model.noise.dequantizes and model.likelihood != "unnormalised":
            scale = model.dim * math.log(2)
            error = None if mean.standard_error is None else mean.standard_error / scale
            kind = "estimate" if model.likelihood == "estimate" else "bound"
            results["bits_per_dim"] = Result(-mean.mean / scale, "bits/dim", mean.n, error, kind)
        return results


def _nats(mean: RowMean, kind: str, measure: str, note: str = "") -> Result:
    return Result(mean.mean, "nats", mean.n, mean.standard_error, kind, measure, note)


for _metric in (Loss(), L2ReconstructionError(), LogLikelihood()):
    METRICS.register(_metric.name)(_metric)
