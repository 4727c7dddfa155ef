"""What a metric is, and what its result says of itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from twostep.models.base import evaluating
from twostep.registry import Registry
from twostep.schema import UserError

NOT_YET = ("fid", "precision_recall_density_coverage")
OOD = ("likelihood_ood_acc", "likelihood_ood_acc_low_dim")

METRICS: Registry[type[Metric]] = Registry(
    "metric",
    planned=dict.fromkeys(NOT_YET, "this version has loss, l2_reconstruction_error and log_likelihood"),
    elsewhere=dict.fromkeys(OOD, "leave it out and say --test-ood, which adds it: it needs a second data set"),
)

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
    """

    value: float
    unit: str
    n: int
    standard_error: float | None = None
    kind: str = ""
    measure: str = ""
    note: str = ""

    @property
    def shown(self) -> str:
        """The value in six digits, or in words."""
        return "not a number" if math.isnan(self.value) else f"{self.value:.6g}"

    def line(self, name: str) -> str:
        """Return the result in words, for a terminal."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        about = [f"n = {self.n:,}", *(text for text in (self.kind, self.measure, self.note) if text)]
        return f"{name} {self.shown}{error} {self.unit} ({'; '.join(about)})"


class Metric(ABC):
    """A measure of a model on data. Rows are spread over ranks; sums over ranks make the result."""

    name: ClassVar[str]
    summary: ClassVar[str]
    lower_is_better: ClassVar[bool]

    @classmethod
    @abstractmethod
    def refusal(cls, model: nn.Module) -> str:
        """Return why this model can't be measured so, or an empty string if it can."""

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


def evaluate(
    names: Iterable[str], model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks, seed: int
) -> dict[str, Result]:
    """Measure a model, in eval mode, without gradients, with the same random numbers for the same seed."""
    results: dict[str, Result] = {}
    with evaluating(model):
        for name in dict.fromkeys(names):
            torch.manual_seed(seed)
            results |= METRICS[name]()(model, batches, sum_over_ranks)
    return results


@dataclass(frozen=True)
class Moments:
    """Mean and standard error of the values of all rows on all ranks, and how many rows were left out."""

    mean: float
    standard_error: float | None
    n: int
    left_out: int

    @classmethod
    def of(cls, values: Iterable[Tensor], sum_over_ranks: SumOverRanks, leave_out: float | None = None) -> Moments:
        """Gather the moments of values `(B,)` of each batch, in float64, without those equal to `leave_out`."""
        every = torch.cat(list(values)).double()
        kept = every if leave_out is None else every[every != leave_out]
        n, left_out, total = sum_over_ranks(
            torch.stack([every.new_tensor(len(kept)), every.new_tensor(len(every) - len(kept)), kept.sum()])
        ).tolist()
        mean = total / n if n else math.nan
        squares = sum_over_ranks((kept - mean).square().sum()).item()
        error = math.sqrt(squares / n / (n - 1)) if n > 1 and math.isfinite(squares) else None
        return cls(mean, error, int(n), int(left_out))
