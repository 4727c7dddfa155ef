"""The diagnosis of a data set: its dimension, whether a density overfits its manifold, which latent size to take."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.diagnosis.columns import column_warnings
from twostep.diagnosis.dimension.consensus import ROWS, Dimension, consensus
from twostep.diagnosis.dimension.estimators import NEIGHBOURS
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods
from twostep.diagnosis.overfitting.noise_scales import Ladder, noise_ladder
from twostep.diagnosis.overfitting.verdict import Overfitting, overfitting


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a data set.

    Args:
        dimension: the intrinsic dimension, with range, reasons and scale curve.
        overfitting: the verdict about a density on these data.
        ladder: dimension of the blurred data over the scale of the blur.
        spectrum: std of the data along each principal direction, descending, in units of the data.
        n: distinct rows that it is of.
        dim: coordinates of a row.
        warnings: what is odd about the data, a sentence each.
    """

    dimension: Dimension
    overfitting: Overfitting
    ladder: Ladder
    spectrum: tuple[float, ...]
    n: int
    dim: int
    warnings: tuple[str, ...]

    @property
    def latent_dim(self) -> int:
        """The latent dimension to take: all coordinates where no manifold is."""
        if self.overfitting.verdict == "no":
            return self.dim
        return min(self.dimension.recommended, self.overfitting.at_most)

    @property
    def interval(self) -> tuple[float, float]:
        """The range of the intrinsic dimension."""
        found = [vote for vote in self.dimension.votes if vote.counts]
        low, high = min(vote.low for vote in found), max(vote.high for vote in found)
        reached = self.dimension.high if self.dimension.high > round(high) else high
        return min(low, self.dimension.recommended), max(reached, self.dimension.recommended)

    def lines(self) -> tuple[str, ...]:
        """Return the diagnosis in words: a line for each answer, then its evidence."""
        low, high = self.interval
        scales, ladder = self.overfitting.scales, self.ladder.resolved
        answers = [
            f"intrinsic dimension: {self.dimension.recommended} ({low:.2f}-{high:.2f})",
            f"overfitting: {self.overfitting.line()}",
            f"recommended latent_dim: {self.latent_dim}{self._no_need()}",
            f"evidence: {self.overfitting.evidence}",
        ]
        if ladder:
            told = f"{ladder[0].dimension:.2f} dimensions ({ladder[0].low:.2f}-{ladder[0].high:.2f})"
            answers.append(f"noise ladder: {told} at a scale of {ladder[0].scale:.3g}, the finest that is resolved")
        if scales:
            answers.append(f"manifold resolved at scales from {scales[0]:.3g} to {scales[1]:.3g}")
        answers += [f"reason: {reason}" for reason in self.dimension.reasons]
        return (*answers, *(f"warning: {warning}" for warning in self.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as what JSON can hold."""
        told = asdict(self)
        for entry in (*told["dimension"]["curve"], *(vote["estimate"] for vote in told["dimension"]["votes"])):
            del entry["local"]
        low, high = self.interval
        answers = {"intrinsic_dimension": self.dimension.recommended, "low": low, "high": high}
        return {**answers, "verdict": self.overfitting.verdict, "latent_dim": self.latent_dim, **told}

    def plot(self, path: Path) -> None:
        """Draw noise ladder, scale curve and spectrum as one picture.

        Raises:
            UserError: if it can't be written.
        """
        from twostep.diagnosis.figures import draw

        draw(self, path)

    def _no_need(self) -> str:
        if self.overfitting.verdict != "no":
            return ""
        if self.overfitting.thickness is None:
            return " (all coordinates: no manifold to find)"
        noise = f"{self.overfitting.thickness:.2g}"
        return f" (all coordinates; {self.dimension.recommended} if a scale of {noise} is noise to you)"


def diagnose(x: Tensor | np.ndarray, thorough: bool = False, seed: int = 0, n: int = ROWS) -> Diagnosis:
    """Diagnose data `(N, *S)` by n distinct rows or fewer.

    Dimension and ladder are those of the data without their flat directions, if there are any.

    Args:
        x: numbers of any type; rows are flattened.
        thorough: train a denoiser where the rest leaves the verdict undecided (seconds).
        seed: of all that is drawn: the same seed gives the same figures.
        n: rows to take at most, at random.

    Raises:
        UserError: for fewer than 50 rows, 20 or fewer distinct ones, or values that are not finite.
    """
    x = torch.as_tensor(x)
    near = neighbourhoods(x, n=n, seed=seed)
    if near.n <= NEIGHBOURS:
        raise UserError(f"{near.n} distinct rows are too few for {NEIGHBOURS} neighbours each: give more rows")
    dimension = consensus(near, seed)
    ladder = replace(noise_ladder(near.steep, seed), dim=near.dim)
    verdict = overfitting(near, dimension, ladder, thorough, seed)
    warnings = dimension.warnings + column_warnings(x)
    spectrum = tuple((near.principal[1].flip(0) * near.unit).tolist())
    return Diagnosis(dimension, verdict, ladder, spectrum, near.n, near.dim, warnings)
