"""`latent_dim=auto`: as many latent coordinates as the intrinsic dimension of a run's training rows.

The number is that of `diagnosis.dimension_of` for at most `ROWS` training rows, with the run's seed. Rows
are standardised, or mapped by the logit, if the network is to see them so: directions of small variance are not
detected. The configs of the run hold the number, so that a run with `auto` equals one with that number, to the last
bit, and a resumed run estimates nothing.

A chart of d coordinates suffices for a manifold of d dimensions that is not closed. A closed one (a circle, a sphere)
has no such chart without a discontinuity, at which neighbours get distant embeddings; with d + 1 it may have none. The
dimension does not show whether a manifold is closed, so d is taken and the reasons name d + 1.

With nearly as many latent coordinates as data coordinates, an autoencoder can copy any input: if the data vary in
`COPIES` of their directions or more, half of the coordinates are taken. Levels and gaps of tables, whose decoder has
a likelihood, are not copied: there it stays d. Too few rows for an estimate show linear dimensions alone
(`diagnosis.dimension.linear`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

from twostep.core.keys import AUTO
from twostep.core.schema import UserError
from twostep.data.base import Splits
from twostep.data.batches import subsample
from twostep.diagnosis import Dimension, dimension_of
from twostep.diagnosis.dimension.linear import linear_dimension, shows_dimension
from twostep.models.base import ModelConfig
from twostep.models.table import build_model
from twostep.training.engine import Engine

FILE = "dimension.json"
COPIES = 0.9  # of the coordinates, as latent ones, let an autoencoder copy its input
ROWS = 10_000  # twice as many as the estimators use, which leaves enough where half are repeated

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class LatentSize:
    """A number of latent coordinates, and the evidence for it, as `dimension.json` holds them.

    The evidence allows dimensions from `low` to `high`; `rows` training rows were used. Reasons and warnings, of what
    is unusual about the data, are a sentence each.
    """

    latent_dim: int
    low: int
    high: int
    rows: int
    seed: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, found: Dimension, dim: int, seed: int, copies: bool = True) -> Self:
        """Return the size for data with `dim` coordinates whose dimension was found; `copies`: of too many latents."""
        d, rank = found.recommended, found.reference.rank
        reasons, warnings = found.reasons, found.warnings
        if copies and d >= COPIES * dim:
            d = (dim + 1) // 2
            fewer = f": half of them are taken, latent_dim={d}" * (dim > 1)
            warnings += (
                f"the data vary in {found.recommended} of {dim} directions, and an autoencoder with so many latent "
                f"coordinates can copy any input{fewer}; a density alone needs no autoencoder (train-single)",
            )
        elif d < rank:
            reasons += (
                f"a closed manifold, like a circle or a sphere, has no chart of {d} coordinates without a "
                f"discontinuity: if the data lie on one, latent_dim={d + 1} may avoid it",
            )
        return cls(d, found.low, found.high, found.votes[0].estimate.n, seed, reasons, warnings)

    def log(self, model: str) -> None:
        """Log the number with its range and reasons."""
        line = f"latent_dim=auto of {model}: {self.latent_dim} (dimension {self.low} to {self.high})"
        logger.info("%s, estimated from %s training rows (%s)", line, f"{self.rows:,}", FILE)
        for reason in self.reasons:
            logger.info("  %s", reason)
        for warning in self.warnings:
            logger.warning("latent_dim=auto: %s", warning)


def with_latent_dim(
    config: ModelConfig, splits: Splits, engine: Engine, seed: int
) -> tuple[ModelConfig, LatentSize | None]:
    """Replace `latent_dim=auto` in a config by a number, which the first rank estimates and all use.

    The config is of a model that sees the data, of which only training rows are used. The evidence is returned too.

    Raises:
        UserError: if the dimension can't be estimated, or the model's keys contradict the data.
    """
    if getattr(config, "latent_dim", None) != AUTO:
        return config, None
    rows = subsample(splits.train, ROWS)
    model = build_model(config.model_copy(update={"latent_dim": 1}), splits.spec)
    standardises = config.whitening_transform or config.logit_transform  # which do more than scale
    if splits.spec.table is not None or standardises:
        model.transform.fit([rows.float()])
        rows = model.transform(rows.float())

    def estimate() -> LatentSize:
        logger.info("latent_dim=auto: estimating the intrinsic dimension of the training rows")
        if not shows_dimension(rows):
            reason = f"{len(rows)} rows are too few to show a curved manifold: the number is that of linear dimensions"
            return LatentSize(linear_dimension(rows), 1, rows[0].numel(), len(rows), seed, (reason,), ())
        try:
            found = dimension_of(rows, seed=seed)
            return LatentSize.of(found, rows[0].numel(), seed, copies=splits.spec.table is None)
        except UserError as error:
            raise UserError(f"latent_dim=auto: {error}; or set latent_dim to a number") from None

    size = engine.on_first(estimate)
    if engine.is_main:
        size.log(config.name)
    return config.model_copy(update={"latent_dim": size.latent_dim}), size
