"""Metrics and their results."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from twostep.core.registry import Registry
from twostep.core.result import Result
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder
from twostep.models.two_step import TwoStep

METRICS: Registry[Metric] = Registry("metric")

SumOverRanks = Callable[[Tensor], Tensor]


class Metric(ABC):
    """A metric of a model: a `RowMetric`, a `SampleMetric` or an `OODAccuracy`."""

    name: str
    summary: str  # one line
    lower_is_better: bool
    models: tuple[type, ...]  # those that have it
    refused: str  # why others have not
    stops: bool = True  # whether it can stop training: its first result has the metric's name
    needs: Literal["", "decoder", "volume"] = ""  # of an autoencoder, or of the first step

    def refusal(self, model: nn.Module) -> str:
        """Return why the metric is undefined for a model, or an empty string if it is defined."""
        if not isinstance(model, self.models):
            return self.refused
        gae = model.gae if isinstance(model, TwoStep) else model
        return self.lacking(gae) if isinstance(gae, GeneralizedAutoencoder) else ""

    def lacking(self, gae: GeneralizedAutoencoder) -> str:
        """Return what an autoencoder, or a two-step model with it, lacks for this metric; empty if nothing."""
        return gae.no_volume if self.needs == "volume" or (self.needs and not gae.decodes) else ""


class RowMetric(Metric):
    """A mean over rows of data, which may be distributed over ranks."""

    @abstractmethod
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Evaluate the model on this rank's batches; the first result has the metric's name."""


def measure_of(model: DensityEstimator | TwoStep) -> str:
    """Return the reference measure of a model's density, in words."""
    if model.columns is not None:
        return model.columns.measure
    return "volume of the learned manifold" if isinstance(model, TwoStep) else f"Lebesgue on R^{model.dim}"


@dataclass(frozen=True)
class RowMean:
    """Mean over all rows on all ranks, its standard error, and the number of rows left out."""

    mean: float
    standard_error: float | None
    n: int
    left_out: int

    @classmethod
    def of(cls, values: Iterable[Tensor], sum_over_ranks: SumOverRanks, leave_out: float | None = None) -> RowMean:
        """Return the mean, in float64, of values `(B,)` of each batch, if any, without those equal to `leave_out`."""
        every = torch.cat([torch.empty(0), *(batch.cpu() for batch in values)]).double()
        kept = every if leave_out is None else every[every != leave_out]
        mine = every.new_tensor([len(kept), len(every) - len(kept), kept.sum().item()])
        n, left_out, total = sum_over_ranks(mine).tolist()
        mean = total / n if n else math.nan
        squares = sum_over_ranks((kept - mean).square().sum()).item()
        error = math.sqrt(squares / n / (n - 1)) if n > 1 and math.isfinite(squares) else None
        return cls(mean, error, int(n), int(left_out))
