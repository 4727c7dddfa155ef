"""The result of one measure of a model: in words, in numbers, with a verdict and advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """The result of one measure of a model, in words and in numbers by name; without advice, it is good."""

    name: str
    text: str
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def verdict(self) -> Literal["good", "check"]:
        """`check` if there is anything to do."""
        return "check" if self.advice else "good"

    def line(self) -> str:
        """Return the finding in one line, for a terminal."""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.name}: {self.text}: {self.verdict}{advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values for JSON."""
        return {**asdict(self), "verdict": self.verdict}
