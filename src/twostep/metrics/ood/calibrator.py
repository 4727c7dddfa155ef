"""Conformal p-values of rows by each score of a model, one of which is the model's headline:

    two-step model       the two-part score: distance to the manifold and density on it, see `conformal`
    density              log-density, two-sided: too high a density is unusual as well
    autoencoder          distance, one-sided

They are calibrated on held-out in-distribution rows, without other data or labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import nn

from twostep.core.schema import UserError
from twostep.metrics.ood.conformal import MIN_ROWS, WEIGHTS, TwoPart, p_values, smallest_p_value
from twostep.metrics.ood.scores import Array, Score, finite
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep

TWO_PART = Score("two_part", "two_part_ood_{}", None)
DISTANCE = "reconstruction_error"


@dataclass(frozen=True)
class ConformalCalibrator:
    """Converts scores of rows to p-values.

    Args:
        held_out: by score, those of in-distribution rows that the model was not trained on, `(n,)`.
        headline: the score whose p-value decides.
        two_part: the two-part score of a two-step model; None for others.
    """

    held_out: Mapping[str, Array]
    headline: str
    two_part: TwoPart | None

    @classmethod
    def of(cls, model: nn.Module, held_out: Mapping[str, Array], seed: int) -> Self:
        """Calibrate on held-out rows.

        Args:
            model: the model.
            held_out: scores of the rows by name, as in `scores_of(model)`, `(n,)`.
            seed: seed of the halves of the two-part score.

        Raises:
            UserError: if there are too few rows.
        """
        clipped = {name: finite(scores) for name, scores in held_out.items()}
        rows = len(next(iter(clipped.values())))
        if rows < MIN_ROWS:
            raise UserError(f"{rows} validation rows are too few for p-values: at least {MIN_ROWS} are needed")
        if isinstance(model, TwoStep):
            return cls(clipped, TWO_PART.name, TwoPart.fit({name: clipped[name] for name in WEIGHTS}, seed))
        return cls(clipped, "log_prob" if isinstance(model, DensityEstimator) else DISTANCE, None)

    @property
    def calibrated_on(self) -> int:
        """Number of rows that the headline's p-value is calibrated on."""
        return len(self.held_out[self.headline] if self.two_part is None else self.two_part.calibration)

    @property
    def smallest(self) -> float:
        """Smallest possible p-value of the headline."""
        return smallest_p_value(self.calibrated_on, two_sided=self.headline == "log_prob")

    def two_part_score(self, rows: Mapping[str, Array]) -> Array:
        """Return the two-part score of rows of a two-step model, `(m,)`, given their other scores."""
        assert self.two_part is not None
        return self.two_part.score({name: finite(scores) for name, scores in rows.items()})

    def p_values(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Return the p-values of rows by score, `(m,)` each, with that of the headline."""
        clipped = {name: finite(scores) for name, scores in rows.items()}
        found = {
            name: p_values(self.held_out[name], scores, two_sided=name != DISTANCE) for name, scores in clipped.items()
        }
        if self.two_part is not None:
            found[TWO_PART.name] = self.two_part.p_values(clipped)
        return found
