"""Metrics of a model on rows of data: its loss, its reconstruction error and its log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from twostep.metrics.base import METRICS, Result, RowMean, RowMetric, SumOverRanks, measure_of
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model
from twostep.models.parts.conditional import without_labels
from twostep.models.two_step import TwoStep

ROUNDING = 1e-12  # of a mean of squares in float64


class Loss(RowMetric):
    """Mean training loss, in the space of the network's input."""

    name = "loss"
    summary = "training loss; of adversarial models, that of the encoder and decoder"
    lower_is_better = True
    models = (Model,)
    refused = "its two components have one each"

    @override
    def refusal(self, model: nn.Module) -> str:
        if isinstance(model, Model) and not model.objectives():
            return "it is not trained by a loss"
        return super().refusal(model)

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        *_, objective = cast(Model, model).objectives()
        mean = RowMean.of((objective.loss(x).expand(len(x)) for x in batches), sum_over_ranks)
        return {self.name: Result(mean.mean, objective.unit, mean.n)}


class L2ReconstructionError(RowMetric):
    """Mean of `‖x - g(f(x))‖²`, and the share of the variance of the rows that reconstructions explain.

    That share is `1 - Σ ‖x - g(f(x))‖² / Σ ‖x - mean‖²`: 1 is perfect, 0 no better than the mean of the rows.
    """

    name = "l2_reconstruction_error"
    summary = "mean squared distance between data and their reconstructions, summed over coordinates"
    lower_is_better = True
    models = (GeneralizedAutoencoder, TwoStep)
    refused = "it does not reconstruct"
    needs = "decoder"

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        model = cast(GeneralizedAutoencoder, model)
        spread, of_table = _Spread(), model.columns is not None
        gae = cast(GeneralizedAutoencoder | TwoStep, model)
        gae = gae.gae if isinstance(gae, TwoStep) else gae

        def errors(x: Tensor) -> Tensor:
            spread.passed(gae.transform(x) if of_table else x)
            return model.reconstruction_error(x)

        mean = RowMean.of((errors(x) for x in batches), sum_over_ranks)
        unit = "squared standardised units" if of_table else "squared data units"
        results = {self.name: Result(mean.mean, unit, mean.n, mean.standard_error)}
        if (variance := spread.variance(sum_over_ranks)) > 0:
            error = None if mean.standard_error is None else mean.standard_error / variance
            share = 1 - mean.mean / variance
            results["explained_variance"] = Result(share, "share of the variance", mean.n, error)
        return results


class _Spread:
    """Sums over rows that pass, from which their mean squared distance to their mean follows."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def passed(self, x: Tensor) -> Tensor:
        """Count a batch `(B, *S)` and return it."""
        rows = x.flatten(1).double()
        counted = [rows.new_tensor([len(rows)]), rows.square().sum()[None], rows.sum(0)]
        self._sums.append(torch.cat(counted).cpu())
        return x

    def variance(self, sum_over_ranks: SumOverRanks) -> float:
        """Return the variance of all rows on all ranks, summed over coordinates; 0 if it is lost to rounding."""
        n, squares, *sums = sum_over_ranks(torch.stack(self._sums).sum(0)).tolist()
        mean_squares = squares / n
        variance = mean_squares - sum((total / n) ** 2 for total in sums)
        return variance if variance > ROUNDING * mean_squares else 0.0


class LogLikelihood(RowMetric):
    """Mean log-density in data space, or on the learned manifold for a two-step model.

    A density of dequantised integers is evaluated on dequantised integers, and also gives bits per dimension,
    `-log p / (D log 2)`, an upper bound on those of the probability of the integers. Points at which the decoder of a
    two-step model has no full rank are counted and left out.
    """

    name = "log_likelihood"
    summary = "mean log-density, with its kind (exact, bound, estimate, unnormalised) and its reference measure"
    lower_is_better = False
    models = (DensityEstimator, TwoStep)
    refused = "it has no density"
    needs = "volume"

    @override
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        model, note = cast(DensityEstimator | TwoStep, model), ""
        leave_out = math.inf if isinstance(model, TwoStep) else None
        mean = RowMean.of((model.log_prob(without_labels(model, x)) for x in batches), sum_over_ranks, leave_out)
        kind, n, error = model.likelihood, mean.n, mean.standard_error
        if isinstance(model, TwoStep) and mean.left_out:
            rank = f"points where the decoder's Jacobian has rank below {model.de.dim}"
            note = f"{mean.left_out:,} {rank} are left out"
        results = {self.name: Result(mean.mean, "nats", n, error, kind, measure_of(model), note)}
        integers = isinstance(model, DensityEstimator) and model.columns is None and model.noise.dequantizes
        if integers and kind != "unnormalised":
            scale = model.dim * math.log(2)
            error = None if error is None else error / scale
            kind = "estimate" if kind == "estimate" else "bound"
            results["bits_per_dim"] = Result(-mean.mean / scale, "bits/dim", n, error, kind)
        return results


for _metric in (Loss(), L2ReconstructionError(), LogLikelihood()):
    METRICS.register(_metric.name)(_metric)
