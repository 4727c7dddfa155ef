"""One thing that was measured of a model: in words, in numbers, with a verdict and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["good", "look here"]


@dataclass(frozen=True)
class Finding:
    """What a measure says of a model.

    Args:
        name: of the measure.
        told: what was found, in words with its numbers.
        advice: what to do about it; empty: nothing, it is good.
        numbers: what was found, by name.
    """

    name: str
    told: str
    advice: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def verdict(self) -> Verdict:
        """Whether there is anything to do."""
        return "look here" if self.advice else "good"

    def line(self) -> str:
        """Return all in words, for a terminal."""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.name}: {self.told}: {self.verdict}{advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "told": self.told,
            "advice": self.advice,
            "numbers": dict(self.numbers),
        }
