"""Metrics and their results."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AliasChoices, Field
from torch import Tensor, nn

from twostep.core.registry import Registry
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder
from twostep.models.two_step import TwoStep

METRICS: Registry[Metric] = Registry("metric")

SumOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    """A value of a metric, with all that is needed to interpret it.

    Args:
        value: the value, usually a mean over rows.
        unit: unit of the value ("nats", "squared data units", ...).
        n: number of rows that it was computed from.
        standard_error: standard error of a mean; None if it is undefined.
        kind: of a density: exact, bound, estimate or unnormalised; empty for other metrics.
        measure: reference measure of a density; empty for other metrics.
        note: further remarks, such as the number of rows left out.
        interval: 95 % interval, if the metric has one.
        reference: value of held-out data in place of the samples, which a perfect model would reach.
    """

    value: float
    unit: str
    n: int
    standard_error: float | None = None
    kind: str = ""
    measure: str = ""
    note: str = ""
    interval: tuple[float, float] | None = None
    # "null" in files of older versions
    reference: Annotated[float | None, Field(validation_alias=AliasChoices("reference", "null"))] = None

    @property
    def shown(self) -> str:
        """The value in six digits, or in words."""
        return "not a number" if math.isnan(self.value) else f"{self.value:.6g}"

    @property
    def uncertainty(self) -> str:
        """Standard error and interval as text, as far as they are defined."""
        error = "" if self.standard_error is None else f"± {self.standard_error:.2g}"
        ends = "" if self.interval is None else f"[{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        return f"{error} {ends}".strip()

    def line(self, name: str) -> str:
        """Return one line of text about the result."""
        figures = " ".join(text for text in (name, self.shown, self.uncertainty, self.unit) if text)
        reference = "" if self.reference is None else f"held-out data: {self.reference:.6g}"
        about = [f"n = {self.n:,}", *(text for text in (reference, self.kind, self.measure, self.note) if text)]
        return f"{figures} ({'; '.join(about)})"


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
        if not isinstance(gae, GeneralizedAutoencoder) or not self.needs:
            return ""
        return gae.no_volume if self.needs == "volume" or not gae.decodes else ""


class RowMetric(Metric):
    """A mean over rows of data, which may be distributed over ranks."""

    @abstractmethod
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Evaluate the model on this rank's batches; the first result has the metric's name."""


def measure_of(model: DensityEstimator | TwoStep) -> str:
    """Return the reference measure of a model's density, in words."""
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
