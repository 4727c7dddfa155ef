"""What a metric is, and what its result says of itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AliasChoices, Field
from torch import Tensor, nn

from twostep.core.registry import Registry
from twostep.core.schema import UserError

METRICS: Registry[Metric] = Registry("metric")

OLD_REFERENCE = "null"  # in the files of older runs

SumOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    """A number that says what it is.

    Args:
        value: mean over the rows.
        unit: of the value ("nats", "squared data units", ...).
        n: number of rows that went into it.
        standard_error: of the mean; None where it is not defined.
        kind: of a density: exact, bound, estimate or unnormalised; empty for other metrics.
        measure: what a density refers to; empty for other metrics.
        note: what a reader must know (rows left out, say); empty if there is nothing.
        interval: 95 % interval, where the metric has one.
        reference: the value that held-out data have in place of samples, which a perfect model would reach; None where
            it is not computed.
    """

    value: float
    unit: str
    n: int
    standard_error: float | None = None
    kind: str = ""
    measure: str = ""
    note: str = ""
    interval: tuple[float, float] | None = None
    reference: Annotated[float | None, Field(validation_alias=AliasChoices("reference", "null"))] = (
        None  # older runs: null
    )

    @property
    def shown(self) -> str:
        """The value in six digits, or in words."""
        return "not a number" if math.isnan(self.value) else f"{self.value:.6g}"

    @property
    def uncertainty(self) -> str:
        """Standard error and interval, as far as there are any."""
        error = "" if self.standard_error is None else f"± {self.standard_error:.2g}"
        ends = "" if self.interval is None else f"[{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        return f"{error} {ends}".strip()

    def line(self, name: str) -> str:
        """Return the result in words, for a terminal."""
        figures = " ".join(text for text in (name, self.shown, self.uncertainty, self.unit) if text)
        reference = "" if self.reference is None else f"held-out data: {self.reference:.6g}"
        about = [f"n = {self.n:,}", *(text for text in (reference, self.kind, self.measure, self.note) if text)]
        return f"{figures} ({'; '.join(about)})"


class Metric(ABC):
    """A measure of a model: a `RowMetric`, or one of its samples (`twostep.metrics.samples.table`)."""

    name: str
    summary: str
    lower_is_better: bool

    @property
    def stops(self) -> bool:
        """Whether its first result bears its own name, and so can stop training."""
        return True

    @abstractmethod
    def refusal(self, model: nn.Module) -> str:
        """Return why this model can't be measured so, or an empty string if it can."""


class RowMetric(Metric):
    """A measure of a model on rows of data. They are spread over ranks; sums over ranks make the result."""

    @abstractmethod
    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Measure the model; the first result bears the metric's own name."""


def check_metrics(names: Iterable[str], model: nn.Module, owner: str) -> None:
    """Check that each metric exists and that the model has it.

    Raises:
        UserError: naming the metric, the model and the reason.
    """
    for name in names:
        reason = METRICS[name].refusal(model)
        if reason:
            raise UserError(f"{name}: {owner} has no such metric: {reason}")


@dataclass(frozen=True)
class RowMean:
    """Mean and standard error of the values of all rows on all ranks, and how many rows were left out."""

    mean: float
    standard_error: float | None
    n: int
    left_out: int

    @classmethod
    def of(cls, values: Iterable[Tensor], sum_over_ranks: SumOverRanks, leave_out: float | None = None) -> RowMean:
        """Gather the moments of values `(B,)` of each batch, in float64, without those equal to `leave_out`.

        A rank may have no batch.
        """
        every = torch.cat([torch.empty(0), *(part.cpu() for part in values)]).double()
        kept = every if leave_out is None else every[every != leave_out]
        n, left_out, total = sum_over_ranks(
            torch.stack([every.new_tensor(len(kept)), every.new_tensor(len(every) - len(kept)), kept.sum()])
        ).tolist()
        mean = total / n if n else math.nan
        squares = sum_over_ranks((kept - mean).square().sum()).item()
        error = math.sqrt(squares / n / (n - 1)) if n > 1 and math.isfinite(squares) else None
        return cls(mean, error, int(n), int(left_out))
