"""Whether a trained autoencoder is a good chart of its data: one sheet, well conditioned, and its encoder its inverse.

A two-step density needs z = f(g(z)) and a decoder that stretches all directions by amounts that are not too different:

    log p(x) = log p_Z(f(x)) - ½ log det JᵀJ

Each measure has a verdict (`chart_verdicts`) and what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.batches import embed
from twostep.diagnosis.dimension.points import LEAST
from twostep.diagnosis.model.chart_verdicts import (
    active_verdict,
    cycle_verdict,
    filled_verdict,
    fold_verdicts,
    jacobian_verdicts,
    reconstruction_verdict,
)
from twostep.diagnosis.model.finding import Finding
from twostep.diagnosis.model.folds import Folds, folds
from twostep.diagnosis.model.jacobian_spectrum import ActiveUnits, Spectrum, active_units, decoder_spectrum
from twostep.models.base import GeneralizedAutoencoder, evaluating


@dataclass(frozen=True)
class Chart:
    """How good a chart of its data an autoencoder is.

    Args:
        findings: the measures, each with its verdict.
        rows: the data that derivatives and neighbours are taken at, `(n, *S)`.
        embeddings: of these rows, `(n, d)`.
        spectrum: of the decoder's Jacobian at these rows.
        folds: tears and folds at these rows.
        active: units of an autoencoder that is held to a prior; None for others.
        reconstruction: squared distances to the reconstruction of held-out rows, `(m,)`.
        cycle: `‖f(g(z)) - z‖` over the spread of embeddings, at held-out rows, `(m,)`.
    """

    findings: tuple[Finding, ...]
    rows: Tensor
    embeddings: Tensor
    spectrum: Spectrum
    folds: Folds
    active: ActiveUnits | None
    reconstruction: Tensor
    cycle: Tensor

    def lines(self) -> list[str]:
        """Return all in words, a line for each measure."""
        return [finding.line() for finding in self.findings]


def chart_of(gae: GeneralizedAutoencoder, train: Tensor, held_out: Tensor, seed: int = 0) -> Chart:
    """Judge a trained autoencoder, on the CPU.

    Args:
        gae: the autoencoder.
        train: rows that it was trained on, `(n, *S)`; 1,000 to 2,000 are enough, and neighbours among 2,000 take
            seconds.
        held_out: other rows of the same law, `(m, *S)`.
        seed: of what estimates draw.

    Raises:
        UserError: for fewer than 50 training rows, or 2 others; where rows or their embeddings are all alike.
    """
    if len(train) < LEAST or len(held_out) < 2:
        raise UserError(f"{len(train)} training and {len(held_out)} held-out rows are too few: give {LEAST} and 2")
    like = next(gae.parameters())
    train, held_out = train.to(like), held_out.to(like)
    _refuse_alike(held_out, "the held-out rows are all alike: give other data")
    with evaluating(gae):
        embeddings, z = embed(gae.encode, train), embed(gae.encode, held_out)
        _refuse_alike(z, "the encoder maps all held-out rows to one point: train it anew, by another seed or model")
        reconstruction = gae.reconstruction_error(held_out).double()
        spread = (z - z.mean(0)).square().sum(1).mean().sqrt()
        cycle = ((gae.encode(gae.decode(z)) - z).norm(dim=1) / spread).double()
    spectrum = decoder_spectrum(gae, embeddings)
    found = folds(gae, train, embeddings, spectrum.metric)
    active = active_units(gae, embeddings)
    judged = [
        reconstruction_verdict(reconstruction, train, held_out, z.shape[1]),
        cycle_verdict(cycle),
        *jacobian_verdicts(spectrum),
        *([] if active is None else [active_verdict(active)]),
        filled_verdict(embeddings, seed),
        *fold_verdicts(found, train),
    ]
    return Chart(tuple(judged), train, embeddings, spectrum, found, active, reconstruction, cycle)


def _refuse_alike(rows: Tensor, message: str) -> None:
    if bool((rows == rows[0]).all()):
        raise UserError(message)
