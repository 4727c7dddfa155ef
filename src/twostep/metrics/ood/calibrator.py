"""The verdict on rows: a conformal p-value of each score, and the one that counts for a model.

    two-step model       two-part score: distance to the manifold and density on it, see `conformal`
    density alone        log-density, two-sided: a density that is too high is odd as well
    autoencoder alone    distance, one-sided: it has no density

All of them know held-out in-distribution rows only: no other data, no label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import nn

from twostep.core.schema import UserError
from twostep.metrics.ood.conformal import FEWEST, WEIGHTS, TwoPart, p_values, smallest_p_value
from twostep.metrics.ood.scores import Array, Score, finite
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep

TWO_PART = Score("two_part", "two_part_ood_{}", None)
DISTANCE = "reconstruction_error"


@dataclass(frozen=True)
class ConformalCalibrator:
    """What turns scores of rows into p-values.

    Args:
        held_out: by score, those of in-distribution rows that the model was not trained on, `(n,)`.
        headline: the score whose p-value counts.
        two_part: the two-part score of a two-step model; None for others.
    """

    held_out: Mapping[str, Array]
    headline: str
    two_part: TwoPart | None

    @classmethod
    def of(cls, model: nn.Module, held_out: Mapping[str, Array], seed: int) -> Self:
        """Calibrate on held-out rows.

        Args:
            model: whose scores they are.
            held_out: by name, what `scores_of(model)` gives, `(n,)`.
            seed: of the halves of the two-part score.

        Raises:
            UserError: if there are too few rows.
        """
        clipped = {name: finite(rows) for name, rows in held_out.items()}
        rows = len(next(iter(clipped.values())))
        if rows < FEWEST:
            raise UserError(f"{rows} validation rows are too few for p-values: it takes {FEWEST} at least")
        if isinstance(model, TwoStep):
            return cls(clipped, TWO_PART.name, TwoPart.fit({name: clipped[name] for name in WEIGHTS}, seed))
        return cls(clipped, "log_prob" if isinstance(model, DensityEstimator) else DISTANCE, None)

    @property
    def calibrated_on(self) -> int:
        """Number of rows that the p-value which counts is calibrated on."""
        return len(self.held_out[self.headline] if self.two_part is None else self.two_part.calibration)

    @property
    def smallest(self) -> float:
        """The smallest p-value that counts which these rows can give."""
        return smallest_p_value(self.calibrated_on, two_sided=self.headline == "log_prob")

    def two_part_score(self, rows: Mapping[str, Array]) -> Array:
        """Return the two-part score of rows of a two-step model, `(m,)`."""
        assert self.two_part is not None
        return self.two_part.score({name: finite(values) for name, values in rows.items()})

    def p_values(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Return the p-values of rows by score, `(m,)` each; that of `headline` is among them."""
        clipped = {name: finite(values) for name, values in rows.items()}
        found = {
            name: p_values(self.held_out[name], values, two_sided=name != DISTANCE) for name, values in clipped.items()
        }
        if self.two_part is not None:
            found[TWO_PART.name] = self.two_part.p_values(clipped)
        return found
