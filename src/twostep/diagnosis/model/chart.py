"""Whether a trained autoencoder is a good chart of its data: injective, well conditioned, its encoder the inverse.

A two-step density needs z = f(g(z)) and a decoder that stretches all directions by amounts that are not too different:

    log p(x) = log p_Z(f(x)) - ½ log det JᵀJ

The limits of the measures:

reconstruction   at most 1 % of the variance is left, or less than the nearest training row would leave; and
                 hardly more than as many principal components leave
cycle            ‖f(g(z)) - z‖ is above a tenth of the rms radius of z at 1 % of the points or fewer: a tenth of a std
                 changes the log-density of a Gaussian by about a tenth of a nat
Jacobian         all directions count (`jacobian_spectrum`) at 95 % of the points, none is singular, and no smallest
                 singular value is below 1 % of the median one, where the density would rise by 4.6 nats for each
                 such direction
embeddings       no estimate of their own dimension excludes that they fill latent_dim dimensions
tears, folds     no point is torn, at most 1 % are folded (`tears_and_folds`)
active units     all: the variance of the encoder's mean over the data is above 0.01 σ², σ the std of a Gaussian prior

Source of active units: Importance Weighted Autoencoders (Burda et al., 2016, arXiv 1509.00519).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from twostep.core.moments import leading_axes
from twostep.core.neighbours import nearest
from twostep.core.schema import UserError
from twostep.data.batches import embed
from twostep.diagnosis.dimension.consensus import dimension_of
from twostep.diagnosis.dimension.distinct_rows import LEAST
from twostep.diagnosis.model.finding import Finding
from twostep.diagnosis.model.jacobian_spectrum import COUNTS, Spectrum, decoder_spectrum
from twostep.diagnosis.model.tears_and_folds import TearsAndFolds, tears_and_folds
from twostep.models.base import GeneralizedAutoencoder, evaluating, tensor_of

LEFT = 0.01  # of the variance
CYCLE = 0.1  # of the rms radius of embeddings
RARE = 0.01  # of all points
ILL = 0.05  # of all points
MANY = 0.1  # of all points
NO_BETTER = 1.1  # times what principal components leave
ACTIVE = 0.01  # of the variance of the prior

FEWER = "use fewer dimensions: try latent_dim={}"
MORE = "use more dimensions, or a larger network"
CHARTS = "use another model, or several charts"


@dataclass(frozen=True)
class Chart:
    """Findings about an autoencoder as a chart of its data, at `rows` `(n, *S)` with these embeddings `(n, d)`."""

    findings: tuple[Finding, ...]
    rows: Tensor
    embeddings: Tensor
    spectrum: Spectrum
    injectivity: TearsAndFolds


def chart_of(gae: GeneralizedAutoencoder, train: Tensor, held_out: Tensor, seed: int = 0) -> Chart:
    """Diagnose a trained autoencoder on the CPU, by rows that it was trained on and others of the same distribution.

    1,000 to 2,000 training rows `(n, *S)` are enough; neighbours among 2,000 take seconds.

    Raises:
        UserError: for fewer than 50 training rows, or 2 others; where rows or their embeddings are all equal.
    """
    if len(train) < LEAST or len(held_out) < 2:
        raise UserError(f"{len(train)} training and {len(held_out)} held-out rows are too few: give {LEAST} and 2")
    like = tensor_of(gae)
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
    findings = (
        _reconstruction(errors, train, held_out, z.shape[1]),
        _cycle(cycle),
        *_jacobian(spectrum),
        *([] if gae.prior_std is None else [_active(embeddings, gae.prior_std)]),
        _embeddings(embeddings, seed),
        *_tears_and_folds(injectivity, train),
    )
    return Chart(findings, train, embeddings, spectrum, injectivity)


def _refuse_equal(rows: Tensor, message: str) -> None:
    if bool((rows == rows[0]).all()):
        raise UserError(message)


def _reconstruction(errors: Tensor, train: Tensor, held_out: Tensor, d: int) -> Finding:
    rows, others = train.double().flatten(1), held_out.double().flatten(1)
    mean, axes = leading_axes(rows, d)
    centred = others - mean
    variance = float(centred.square().sum(1).mean())
    left, nearest_row = float(errors.mean()) / variance, float(nearest(others, rows).mean()) / variance
    linear = float((centred - centred @ axes @ axes.T).square().sum(1).mean()) / variance
    median = float(errors.median()) / variance
    text = f"{left:.2%} of the variance of held-out rows is left, {median:.2%} of the median row "
    text += f"({linear:.2%} by as many principal components)"
    numbers = {"left": left, "left_of_usual_row": median, "by_components": linear, "by_nearest_row": nearest_row}
    advice = ""
    if left > max(LEFT, NO_BETTER * linear):
        advice = "train it further, or use a larger network"
    elif left > max(LEFT, nearest_row):
        advice = MORE if median > LEFT else f"a few rows have most of it: {CHARTS}"
    return Finding("reconstruction error", text, advice, numbers)


def _cycle(errors: Tensor) -> Finding:
    share = float((errors > CYCLE).double().mean())
    median, worst = float(errors.median()), float(errors.max())
    text = f"f(g(z)) differs from z by {median:.2g} of the rms radius of embeddings (median; at worst {worst:.2g})"
    advice = "the encoder is not the decoder's inverse: train it further; at a discontinuity, use several charts"
    numbers = {"median": median, "worst": worst, "share_above_a_tenth": share}
    return Finding("cycle error", text, advice if share > RARE else "", numbers)


def _jacobian(spectrum: Spectrum) -> list[Finding]:
    d, dimension, conditions = spectrum.values.shape[1], spectrum.dimension, spectrum.conditions
    ill, singular = float((spectrum.ranks < d).double().mean()), int(spectrum.singular.sum())
    median, worst = float(conditions.median()), float(conditions.max())
    text = f"{dimension} of {d} directions move the data by 1 % of the largest or more (median), "
    text += f"condition number {median:.3g} (at worst {worst:.3g})"
    if singular:
        text += f"; log det JᵀJ is lost to rounding at {singular:,} of {len(conditions):,} points"
    advice = ""
    if dimension < d:
        advice = FEWER.format(dimension)
    elif ill > ILL or singular:
        advice = f"some regions collapse: {CHARTS}"
    numbers = {"dimension": float(dimension), "share_of_lower_rank": ill, "singular_points": float(singular)}
    numbers |= {"condition_median": median, "condition_worst": worst}
    jacobian = Finding("decoder's Jacobian", text, advice, numbers)
    smallest = spectrum.values[:, -1]
    median, worst = float(smallest.median()), float(smallest.min())
    text = f"{median:.3g} for one std of the embeddings (median; at worst {worst:.3g})"
    stationary = dimension == d and worst < COUNTS * median
    advice = f"the decoder is nearly constant there and the density has a peak: {CHARTS}" if stationary else ""
    return [jacobian, Finding("smallest singular value", text, advice, {"median": median, "worst": worst})]


def _active(embeddings: Tensor, prior_std: float) -> Finding:
    count, d = int((embeddings.double().var(0) / prior_std**2 > ACTIVE).sum()), embeddings.shape[1]
    advice = FEWER.format(max(1, count)) if count < d else ""
    return Finding("active units", f"{count} of {d}", advice, {"active": float(count)})


def _embeddings(embeddings: Tensor, seed: int) -> Finding:
    name, d = "dimension of embeddings", embeddings.shape[1]
    try:
        found = dimension_of(embeddings, seed=seed)
    except UserError as error:  # too few are distinct
        return Finding(name, f"can't be estimated ({error})", "the encoder maps many rows to one point: another model")
    text = f"embeddings fill {found.recommended} ({found.low}-{found.high}) of {d} dimensions"
    advice = ""
    if found.high < d:
        advice = (
            f"{FEWER.format(found.high)} where the reconstruction error allows it, or the density may overfit the "
            "manifold of embeddings; closed manifolds need one dimension more than they have, or several charts"
        )
    numbers = {"dimension": float(found.recommended), "low": float(found.low), "high": float(found.high)}
    return Finding(name, text, advice, numbers)


def _tears_and_folds(found: TearsAndFolds, rows: Tensor) -> list[Finding]:
    n, torn, folded = len(found.torn), int(found.torn.sum()), int(found.folded.sum())
    text = f"{torn:,} of {n:,} points have a near neighbour that the chart puts far away "
    text += f"(continuity {found.continuity:.3f})"
    if found.widest is not None:
        one, other = (_position(rows, row) for row in found.widest)
        text += f"; the path between {one} and {other} is {float(found.detours.max()):.0f} times their distance"
    advice = "the encoder is discontinuous there: one chart can't cover closed manifolds, so use several charts"
    numbers = {"points": float(torn), "share": torn / n, "continuity": found.continuity}
    tears = Finding("discontinuities (tears)", text, advice if torn else "", numbers)
    text = f"{folded:,} of {n:,} points have nearly the embedding of points far away "
    text += f"(trustworthiness {found.trustworthiness:.3f})"
    numbers = {"points": float(folded), "share": folded / n, "trustworthiness": found.trustworthiness}
    advice = MORE if folded > MANY * n else f"the decoder has a gap there: {CHARTS}"
    return [tears, Finding("non-injective regions (folds)", text, advice if folded > RARE * n else "", numbers)]


def _position(rows: Tensor, row: int) -> str:
    point = rows[row].flatten()
    return f"({', '.join(f'{value:.2f}' for value in point.tolist())})" if len(point) <= 3 else f"row {row}"
