"""The diagnosis of a dataset: intrinsic dimension, whether a density overfits its manifold, which latent_dim to use."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostep.core.figures import plain
from twostep.core.schema import UserError
from twostep.data.batches import subsample
from twostep.diagnosis.dimension.consensus import ROWS, Dimension, consensus
from twostep.diagnosis.dimension.estimators import NEIGHBOURS
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods
from twostep.diagnosis.figures import draw_dataset
from twostep.diagnosis.overfitting.noise_scales import NoiseScaleCurve, noise_scale_curve
from twostep.diagnosis.overfitting.verdict import Overfitting, overfitting
from twostep.diagnosis.units import WIDE, different_units, standardized

LEVELS = 10  # distinct values up to which a column seems to hold categories
COLUMN_ROWS = 1000  # rows from which columns are described
NAMED = 5  # columns
FLAT = (
    "levels as one-hot vectors always lie on a manifold: an autoencoder has it to learn; a density alone has one "
    "coordinate for each column instead, and no manifold to overfit on their account"
)


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a dataset of n distinct rows of `dim` coordinates.

    `dimension` is the intrinsic dimension, `overfitting` whether a density overfits the manifold of these data, and
    `noise_scales` the dimension of the data with added noise. `spectrum` has the std of the data along each principal
    direction, descending, in units of the data, and `warnings` a sentence for each unusual property of the data.
    """

    dimension: Dimension
    overfitting: Overfitting
    noise_scales: NoiseScaleCurve
    spectrum: tuple[float, ...]
    n: int
    dim: int
    warnings: tuple[str, ...]
    name: str = "data"
    rows: int = 0
    standardized: bool = False
    mixed: bool = False

    @property
    def latent_dim(self) -> int:
        """The recommended latent dimension: the number of coordinates where there is no manifold."""
        if self.overfitting.verdict == "no":
            return self.dim
        return min(self.dimension.recommended, self.overfitting.at_most)

    @property
    def interval(self) -> tuple[float, float]:
        """The range of the intrinsic dimension."""
        found = [vote for vote in self.dimension.votes if vote.counts]
        low, high = min(vote.low for vote in found), max(vote.high for vote in found)
        high = self.dimension.high if self.dimension.high > round(high) else high
        return min(low, self.dimension.recommended), max(high, self.dimension.recommended)

    def lines(self) -> tuple[str, ...]:
        """Return the diagnosis in words: a line for each answer, then the evidence."""
        (low, high), recommended, note = self.interval, self.dimension.recommended, ""
        if self.overfitting.verdict == "no":
            note = " (all coordinates: there is no manifold)"
            if scale := self.overfitting.thickness:
                note = f" (all coordinates; {recommended} if variation at a scale of {scale:.2g} is noise)"
        lines = [
            f"intrinsic dimension: {recommended} ({low:.2f}-{high:.2f})",
            f"overfitting: {self.overfitting.line()}",
            f"recommended latent_dim: {self.latent_dim}{note}",
            f"evidence: {self.overfitting.evidence}. {self._votes}",
            f"data: {self._data}",
        ]
        if resolved := self.noise_scales.resolved:
            finest = resolved[0]
            dimensions = f"{finest.value:.2f} dimensions ({finest.low:.2f}-{finest.high:.2f})"
            lines.append(f"noise scales: {dimensions} at a scale of {finest.scale:.3g}, the smallest that is resolved")
        if scales := self.overfitting.scales:
            lines.append(f"manifold resolved at scales from {scales[0]:.3g} to {scales[1]:.3g}")
        return (*lines, *(f"warning: {warning}" for warning in self.warnings))

    @property
    def _votes(self) -> str:
        counted = [vote for vote in self.dimension.votes if vote.counts]
        named = ", ".join(f"{vote.value:.1f} by {vote.estimate.method}" for vote in counted)
        return f"Estimates of the intrinsic dimension, corrected for {self.n:,} points: {named}"

    @property
    def _data(self) -> str:
        scale = (
            "; columns of different units, so each is divided by its standard deviation" if self.standardized else ""
        )
        return f"{self.name}, {self.n:,} distinct rows of {self.rows:,}, {self.dim} coordinates{scale}"

    def next_command(self, dataset: str, *flags: str) -> str:
        """Return the command that the answer recommends for data of this name or path and its flags, as typed."""
        data = shlex.join([dataset, *flags])
        if self.overfitting.verdict == "no":
            return f"twostep train-single --dataset {data} --model flow"
        if self.overfitting.verdict == "undecided" and self.overfitting.trained is None and not self.overfitting.scales:
            return f"twostep diagnose --dataset {data} --thorough"
        gae = "vae" if self.mixed else "ae"
        return f"twostep train --dataset {data} --gae-model {gae} --de-model flow --latent-dim {self.latent_dim}"

    def to_dict(self) -> dict[str, Any]:
        """Return all results as plain values for JSON."""
        low, high = self.interval
        answers = {"intrinsic_dimension": self.dimension.recommended, "low": low, "high": high}
        return {**answers, "verdict": self.overfitting.verdict, "latent_dim": self.latent_dim, **asdict(self)}

    def plot(self, path: Path) -> None:
        """Draw noise scales, scale curve and spectrum as one PNG.

        Raises:
            UserError: if it can't be written.
        """
        found = f"intrinsic dimension {self.dimension.recommended}, overfitting: {self.overfitting.line()}"
        draw_dataset(
            self.dimension, self.noise_scales, self.spectrum, self.latent_dim, path, f"{plain(self.name)}: {found}"
        )


def diagnose(
    x: Tensor | np.ndarray,
    thorough: bool = False,
    seed: int = 0,
    n: int = ROWS,
    standardize: bool | None = None,
    name: str = "data",
    mixed: bool = False,
) -> Diagnosis:
    """Diagnose data `(N, *S)` of any number type from a random subsample of n distinct rows; the seed fixes results.

    Dimension and noise scales are those of the data without their flat directions, if there are any. `thorough` trains
    a denoiser where the rest leaves the verdict undecided, which takes seconds. Columns of a table are standardised, or
    not, by `standardize`; None: where they are of different units (`diagnosis.units`). Rows of a `mixed` table are
    normal scores and one-hot levels, which have one unit and few values.

    Raises:
        UserError: for fewer than 50 rows, 20 or fewer distinct ones, or values that are not finite.
    """
    x = torch.as_tensor(x)
    scaled = not mixed and different_units(x) if standardize is None else standardize and x.ndim == 2
    near = neighbourhoods(standardized(x) if scaled else x, n=n, seed=seed)
    if near.n <= NEIGHBOURS:
        raise UserError(f"{near.n} distinct rows are too few for {NEIGHBOURS} neighbours each: give more rows")
    dimension = consensus(near, seed)
    curve = replace(noise_scale_curve(near.without_flat, seed), dim=near.dim)
    verdict = overfitting(near, dimension, curve, thorough, seed)
    spectrum = tuple((near.principal[1].flip(0) * near.unit).tolist())
    warnings = (FLAT,) if mixed else dimension.warnings + column_warnings(x, scaled)
    return Diagnosis(dimension, verdict, curve, spectrum, near.n, near.dim, warnings, name, len(x), scaled, mixed)


def column_warnings(x: Tensor, scaled: bool = False) -> tuple[str, ...]:
    """Return warnings about columns of a table `(N, D)` with few values, or with units that hide the others."""
    if x.ndim > 2:
        return ()
    table = subsample(x, COLUMN_ROWS).reshape(-1, x[:1].numel()).double()
    counts = [len(column.unique()) for column in table.T]
    stds = (table / table.abs().max().clamp(min=1e-300)).std(0)
    typical = stds[stds > 0].median()  # NaN where no column varies
    few = [number for number, count in enumerate(counts, 1) if 1 < count <= LEVELS]
    wide = [number for number, std in enumerate(stds, 1) if std >= WIDE * typical]
    categories = f"{LEVELS} values or fewer, like categories: a density of these has no bound, so leave them out"
    advice = (
        "would dominate all distances, so all are standardised; leave out what is no measurement"
        if scaled
        else "dominate all distances: standardise the columns, and leave out what is no measurement"
    )
    units = f"{WIDE:.0f} times the std of the median one or more and {advice}"
    return tuple(f"{_named(columns)} {text}" for columns, text in ((few, categories), (wide, units)) if columns)


def _named(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    return f"column {shown} has" if len(numbers) == 1 else f"{len(numbers)} columns ({shown}, counted from 1) have"
