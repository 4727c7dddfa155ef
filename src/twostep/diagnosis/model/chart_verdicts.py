"""When a measure of an autoencoder is good, and what to do where it isn't.

reconstruction   at most 1 % of the variance is left, or less than the nearest training row would leave; and
                 hardly more than as many principal components leave
cycle            ‖f(g(z)) - z‖ is above a tenth of the spread of z at 1 % of the points or fewer: a tenth of a std
                 changes the log-density of a Gaussian by about a tenth of a nat
Jacobian         all directions count (`from_model`) at 95 % of the points, none is singular, and no smallest
                 singular value is below 1 % of the usual one, where the density would rise by 4.6 nats for each
                 such direction
embeddings       no estimate of their own dimension excludes that they fill latent_dim dimensions
tears, folds     no point is torn, at most 1 % are folded (`folds`)
"""

from __future__ import annotations

import torch
from torch import Tensor

from twostep.core.neighbours import nearest
from twostep.core.schema import UserError
from twostep.diagnosis.dimension.consensus import dimension_of
from twostep.diagnosis.model.finding import Finding
from twostep.diagnosis.model.folds import Folds
from twostep.diagnosis.model.jacobian_spectrum import COUNTS, ActiveUnits, Spectrum

LEFT = 0.01  # of the variance
CYCLE = 0.1  # of the spread of embeddings
RARE = 0.01  # of all points
ILL = 0.05  # of all points
MANY = 0.1  # of all points
NO_BETTER = 1.1  # times what principal components leave

FEWER = "fewer dimensions: try latent_dim={}"
MORE = "more dimensions, or a larger network"


def reconstruction_verdict(errors: Tensor, train: Tensor, held_out: Tensor, d: int) -> Finding:
    """Judge squared distances `(m,)` to the reconstructions of held-out rows by an autoencoder of d dimensions."""
    rows, others = (part.double().flatten(1) for part in (train, held_out))
    variance = float((others - rows.mean(0)).square().sum(1).mean())
    left, nearest_row = float(errors.mean()) / variance, float(nearest(others, rows).mean()) / variance
    linear = _left_by_components(rows, others, d) / variance
    usual = float(errors.median()) / variance
    told = (
        f"{left:.2%} of the variance of held-out rows is left, of the usual row {usual:.2%} "
        f"(by as many principal components {linear:.2%})"
    )
    numbers = {"left": left, "left_of_usual_row": usual, "by_components": linear, "by_nearest_row": nearest_row}
    advice = ""
    if left > max(LEFT, NO_BETTER * linear):
        advice = "train it further, or take a larger network"
    elif left > max(LEFT, nearest_row):
        advice = MORE if usual > LEFT else "a few rows have most of it: another model, or several charts"
    return Finding("reconstruction error", told, advice, numbers)


def _left_by_components(rows: Tensor, others: Tensor, d: int) -> float:
    centre = rows.mean(0)
    _, _, directions = torch.linalg.svd(rows - centre, full_matrices=False)
    others = others - centre
    return float((others - others @ directions[:d].T @ directions[:d]).square().sum(1).mean())


def cycle_verdict(errors: Tensor) -> Finding:
    """Judge `‖f(g(z)) - z‖` over the spread of embeddings, `(m,)`."""
    share = float((errors > CYCLE).double().mean())
    median, worst = float(errors.median()), float(errors.max())
    told = f"f(g(z)) is off z by {median:.2g} of the spread of embeddings (median; at worst {worst:.2g})"
    advice = "the encoder is no inverse of the decoder: train it further; at a cut, several charts"
    numbers = {"median": median, "worst": worst, "share_above_a_tenth": share}
    return Finding("cycle error", told, advice if share > RARE else "", numbers)


def jacobian_verdicts(spectrum: Spectrum) -> list[Finding]:
    """Judge rank and condition of a decoder's Jacobian, and its smallest singular value."""
    d, dimension = spectrum.values.shape[1], spectrum.dimension
    ill = float((spectrum.ranks < d).double().mean())
    conditions = spectrum.conditions
    lost = int(spectrum.singular.sum())
    told = (
        f"{dimension} of {d} directions move the data by 1 % of the largest or more (median), condition number "
        f"{float(conditions.median()):.3g} (at worst {float(conditions.max()):.3g})"
    )
    told += f"; log det JᵀJ is lost at {lost:,} of {len(conditions):,} points" if lost else ""
    advice = ""
    if dimension < d:
        advice = FEWER.format(dimension)
    elif ill > ILL or lost:
        advice = "some regions are crushed: another model, or several charts"
    numbers = {
        "dimension": float(dimension),
        "condition_median": float(conditions.median()),
        "condition_worst": float(conditions.max()),
        "share_of_lower_rank": ill,
        "singular_points": float(lost),
    }
    return [Finding("decoder's Jacobian", told, advice, numbers), _smallest(spectrum.values[:, -1], dimension < d)]


def _smallest(smallest: Tensor, deficient: bool) -> Finding:
    median, worst = float(smallest.median()), float(smallest.min())
    told = f"{median:.3g} for one std of the embeddings (median; at worst {worst:.3g})"
    stalls = not deficient and worst < COUNTS * median
    advice = "the decoder stalls there and the density spikes: another model, or several charts" if stalls else ""
    return Finding("smallest singular value", told, advice, {"median": median, "worst": worst})


def active_verdict(active: ActiveUnits) -> Finding:
    """Judge the number of active units."""
    count, d = active.count, len(active.variances)
    advice = FEWER.format(max(1, count)) if count < d else ""
    return Finding("active units", f"{count} of {d}", advice, {"active": float(count)})


def filled_verdict(embeddings: Tensor, seed: int) -> Finding:
    """Judge the intrinsic dimension of embeddings `(n, d)`."""
    name, d = "dimension of embeddings", embeddings.shape[1]
    try:
        found = dimension_of(embeddings, seed=seed)
    except UserError as error:  # too few are distinct
        return Finding(name, f"can't be told ({error})", "the encoder maps many rows to one point: another model")
    told = f"embeddings fill {found.recommended} ({found.low}-{found.high}) of {d} dimensions"
    advice = ""
    if found.high < d:
        advice = (
            f"{FEWER.format(found.high)} where the reconstruction error allows it, or the density may overfit the "
            "manifold of embeddings; data that close upon themselves need one more than they have, or several charts"
        )
    numbers = {"dimension": float(found.recommended), "low": float(found.low), "high": float(found.high)}
    return Finding("dimension of embeddings", told, advice, numbers)


def fold_verdicts(found: Folds, rows: Tensor) -> list[Finding]:
    """Judge tears, and folds, of the rows."""
    n, torn, folded = len(found.torn), int(found.torn.sum()), int(found.folded.sum())
    told = (
        f"{torn:,} of {n:,} points have a near neighbour that is far by the chart (continuity {found.continuity:.3f})"
    )
    if found.cut is not None:
        one, other = (_place(rows, row) for row in found.cut)
        told += f", the way between {one} and {other} is {float(found.detours.max()):.0f} times their distance"
    advice = "the encoder jumps there: one chart can't cover data that close upon themselves, so take several charts"
    numbers = {"points": float(torn), "share": torn / n, "continuity": found.continuity}
    tears = Finding("cuts", told, advice if torn else "", numbers)
    told = (
        f"{folded:,} of {n:,} points lie over others that are far from them "
        f"(trustworthiness {found.trustworthiness:.3f})"
    )
    numbers = {"points": float(folded), "share": folded / n, "trustworthiness": found.trustworthiness}
    advice = MORE if folded > MANY * n else "the decoder leaves a gap there: another model, or several charts"
    return [tears, Finding("folds", told, advice if folded > RARE * n else "", numbers)]


def _place(rows: Tensor, row: int) -> str:
    point = rows[row].flatten()
    return f"({', '.join(f'{value:.2f}' for value in point.tolist())})" if len(point) <= 3 else f"row {row}"
