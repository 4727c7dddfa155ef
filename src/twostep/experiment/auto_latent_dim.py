"""`latent_dim=auto`: as many latent coordinates as a run's training rows have dimensions, told once, when it starts.

The number is that of `diagnosis.dimension_of` for at most `ROWS` training rows, spread over all of them, with the run's
seed. It replaces the word before any config is made, so a run with it is the one with that number, to the last bit, and
a resumed run has nothing to estimate. How it was found lies in the run's `dimension.json`.

Units count, as directions of little spread go unseen: rows are whitened, or opened by the logit, if the network is to
see them so.

A chart of d coordinates is enough for a manifold of d dimensions that is not closed. A closed one (a circle, a sphere)
has no such chart without a cut, at which neighbours get far embeddings; with d + 1 it may have none. The dimension does
not tell whether a set is closed, so d is taken and the reasons name d + 1.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.base import Splits
from twostep.data.batches import subsample
from twostep.diagnosis import Dimension, dimension_of
from twostep.models.base import Model
from twostep.runs.request import Request
from twostep.training.engine import Engine

FILE = "dimension.json"
COPIES = 0.9  # of the coordinates, as latent ones, let an autoencoder copy its input
ROWS = 10_000  # twice as many as are looked at, which leaves enough where half are repeated

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class LatentSize:
    """A number of latent coordinates, and why it was taken.

    Args:
        latent_dim: the number, the recommended dimension of the data.
        low: the lowest dimension that the evidence allows.
        high: the highest.
        rows: training rows that were looked at.
        seed: of the estimate.
        reasons: the evidence, a sentence each.
        warnings: what is odd about the data, a sentence each.
    """

    latent_dim: int
    low: int
    high: int
    rows: int
    seed: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, found: Dimension, dim: int, seed: int) -> Self:
        """Return the size that the dimension of data with `dim` coordinates asks for."""
        d, rank = found.recommended, found.reference.rank
        reasons, warnings = found.reasons, found.warnings
        if d >= COPIES * dim:
            instead = (
                f"set latent_dim to a smaller number (half of them, {dim // 2}, is a start), or " if dim > 1 else ""
            )
            warnings += (
                f"an autoencoder with {d} latent coordinates for {dim} can copy any input, so that its distance hardly "
                f"distinguishes new rows from the data: {instead}train a density alone (single_main.py)",
            )
        if d < rank:
            reasons += (
                f"a closed manifold, as a circle or a sphere is, has no chart of {d} coordinates without a cut: "
                f"if the data lie on one, latent_dim={d + 1} may avoid it",
            )
        return cls(d, found.low, found.high, found.votes[0].estimate.n, seed, reasons, warnings)

    def tell(self, model: str) -> None:
        """Log the number with its range and reasons."""
        told = f"latent_dim=auto of {model}: {self.latent_dim} (dimension {self.low} to {self.high})"
        logger.info("%s, by %s training rows (%s)", told, f"{self.rows:,}", FILE)
        for reason in self.reasons:
            logger.info("  %s", reason)
        for warning in self.warnings:
            logger.warning("latent_dim=auto: %s", warning)

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what a run directory holds of it, by file name."""
        return {FILE: asdict(self)}


def estimated(request: Request, splits: Splits, engine: Engine, seed: int) -> tuple[Request, LatentSize | None]:
    """Replace `latent_dim=auto` by a number, which the first rank estimates and all take.

    Args:
        request: what is asked for.
        splits: the run's data, of which only training rows are looked at.
        engine: of the run.
        seed: of the run.

    Returns:
        the request with the number, and how it was found; the request as it is and None where nothing is `auto`.

    Raises:
        UserError: if the rows can't tell a dimension, or the model's keys contradict the data.
    """
    part = request.auto
    if part is None:
        return request, None
    model = request.with_latent_dim(part, 1).preset(part, splits.spec).build(splits.spec)  # or refuse its keys now
    size = engine.on_first(lambda: _latent_size(_as_seen(splits, model), seed))
    if engine.is_main:
        size.tell(request.models[part])
    return request.with_latent_dim(part, size.latent_dim), size


def _latent_size(rows: Tensor, seed: int) -> LatentSize:
    logger.info("latent_dim=auto: estimating the dimension of the training rows")
    try:
        return LatentSize.of(dimension_of(rows, seed=seed), rows[0].numel(), seed)
    except UserError as error:
        raise UserError(f"latent_dim=auto: {error}; or set latent_dim to a number") from None


def _as_seen(splits: Splits, model: Model) -> Tensor:
    """Return training rows as they are, or as a network sees them whose transform does more than scale them."""
    rows = subsample(splits.train, ROWS)
    if not (model.config.whitening_transform or model.config.logit_transform):
        return rows
    model.transform.fit([rows.float()])
    return model.transform(rows.float())
