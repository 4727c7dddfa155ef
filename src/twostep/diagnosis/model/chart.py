"""Whether a trained autoencoder is a good chart of its data: injective, well conditioned, its encoder the inverse.

A two-step density needs z = f(g(z)) and a decoder that stretches all directions by amounts that are not too different:

    log p(x) = log p_Z(f(x)) - ½ log det JᵀJ

Each measure has a verdict and advice (`chart_verdicts`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.batches import embed
from twostep.diagnosis.dimension.distinct_rows import LEAST
from twostep.diagnosis.model import chart_verdicts as verdicts
from twostep.diagnosis.model.finding import Finding
from twostep.diagnosis.model.jacobian_spectrum import Spectrum, active_units, decoder_spectrum
from twostep.diagnosis.model.tears_and_folds import TearsAndFolds, tears_and_folds
from twostep.models.base import GeneralizedAutoencoder, evaluating


@dataclass(frozen=True)
class Chart:
    """How good a chart of its data an autoencoder is.

    Args:
        findings: the measures, each with its verdict.
        rows: the data at which derivatives and neighbours are taken, `(n, *S)`.
        embeddings: of these rows, `(n, d)`.
        spectrum: of the decoder's Jacobian at these rows.
        injectivity: tears and folds at these rows.
        cycle: `‖f(g(z)) - z‖` over the rms radius of embeddings, at held-out rows, `(m,)`.
    """

    findings: tuple[Finding, ...]
    rows: Tensor
    embeddings: Tensor
    spectrum: Spectrum
    injectivity: TearsAndFolds
    cycle: Tensor

    def lines(self) -> list[str]:
        """Return a line for each measure."""
        return [finding.line() for finding in self.findings]


def chart_of(gae: GeneralizedAutoencoder, train: Tensor, held_out: Tensor, seed: int = 0) -> Chart:
    """Diagnose a trained autoencoder, on the CPU.

    Args:
        gae: the autoencoder.
        train: rows that it was trained on, `(n, *S)`; 1,000 to 2,000 are enough, and neighbours among 2,000 take
            seconds.
        held_out: other rows of the same distribution, `(m, *S)`.
        seed: of the random numbers of the estimates.

    Raises:
        UserError: for fewer than 50 training rows, or 2 others; where rows or their embeddings are all equal.
    """
    if len(train) < LEAST or len(held_out) < 2:
        raise UserError(f"{len(train)} training and {len(held_out)} held-out rows are too few: give {LEAST} and 2")
    like = next(gae.parameters())
    train, held_out = train.to(like), held_out.to(like)
    _refuse_equal(held_out, "the held-out rows are all equal: give other data")
    with evaluating(gae):
        embeddings, z = embed(gae.encode, train), embed(gae.encode, held_out)
        _refuse_equal(z, "the encoder maps all held-out rows to one point: train it with another seed or model")
        errors = gae.reconstruction_error(held_out).double()
        rms_radius = (z - z.mean(0)).square().sum(1).mean().sqrt()
        cycle = ((gae.encode(gae.decode(z)) - z).norm(dim=1) / rms_radius).double()
    spectrum = decoder_spectrum(gae, embeddings)
    injectivity = tears_and_folds(gae, train, embeddings, spectrum.metric)
    active = active_units(gae, embeddings)
    findings = (
        verdicts.reconstruction_verdict(errors, train, held_out, z.shape[1]),
        verdicts.cycle_verdict(cycle),
        *verdicts.jacobian_verdicts(spectrum),
        *([] if active is None else [verdicts.active_verdict(active)]),
        verdicts.embeddings_verdict(embeddings, seed),
        *verdicts.tears_and_folds_verdicts(injectivity, train),
    )
    return Chart(findings, train, embeddings, spectrum, injectivity, cycle)


def _refuse_equal(rows: Tensor, message: str) -> None:
    if bool((rows == rows[0]).all()):
        raise UserError(message)
