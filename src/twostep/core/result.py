"""One type for every figure that is reported: value, uncertainty, unit, kind and measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field


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
        return self.shown_in(6)

    def shown_in(self, digits: int) -> str:
        """Return the value in that many digits, or in words."""
        return "not a number" if math.isnan(self.value) else f"{self.value:.{digits}g}"

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
