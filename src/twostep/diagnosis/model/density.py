"""What samples and likelihood of a trained density show: support, growth in training, the true distribution.

A sample is off the support if it is farther from the training data than 99 % of held-out rows, and than 1 % of the rms
radius of the data: where rows lie close together, less than that does not matter. A model of the data's distribution
has 1 % of them at most; 5 % of 200 samples or more then have a probability below 1e-4.

The growth of the likelihood is the slope of a line through the last quarter of the epochs. It counts if it is above
twice its standard error and if as many further epochs as in that quarter would add a twentieth of a nat. On a manifold
the likelihood grows without bound; a slope above 0 alone may also be that of a model that needs more epochs.

Where the true distribution is known, of density p on a d-dimensional manifold, a wrong one is

    q ∝ p²,   log q = 2 log p - log E_p[p],   of mean E_p[log q] = E_p[log p] - KL(p ‖ q)

which is too narrow on the same manifold. A model's density refers to volume of m dimensions: R^D, or the manifold that
a decoder makes of R^m. With noise N(0, s² I) in the m - d other directions a distribution has, on its manifold, its own
log-density less (m - d) log s √(2π), up to curvature. So the likelihood prefers concentration, the wrong distribution
with noise s / 10 to the true one with noise s, if

    (m - d) log 10 > KL(p ‖ q)

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from twostep.core.neighbours import nearest
from twostep.core.schema import UserError
from twostep.data.synthetic.base import SyntheticDistribution
from twostep.diagnosis.model.finding import Finding

QUANTILE = 0.99
ALLOWED = 0.05  # of the samples
NEGLIGIBLE = 0.01  # of the rms radius

SHARE = 4  # a quarter of the epochs
FEWEST = 5  # epochs in it
ADDED = 0.05  # nats
ERRORS = 2.0  # standard errors

PER_DIM = 0.05  # nats that a density may be off for each dimension


def off_support(train: Tensor, held_out: Tensor, samples: Tensor) -> Finding:
    """Compare the distances of samples and of held-out rows to the training rows, each of shape `(n, *S)`."""
    rows = train.double().flatten(1)
    reference, found = (nearest(other.double().flatten(1), rows).sqrt() for other in (held_out, samples))
    rms_radius = (rows - rows.mean(0)).square().sum(1).mean().sqrt()
    limit = torch.maximum(reference.quantile(QUANTILE), NEGLIGIBLE * rms_radius)
    share = float((found > limit).double().mean())
    median, reference_median = float(found.median()), float(reference.median())
    text = (
        f"{share:.1%} of {len(samples):,} samples are farther than {float(limit):.3g} from the training rows, and at "
        f"most 1 % of held-out rows (median distance {median:.3g}, held-out {reference_median:.3g})"
    )
    numbers = {"share": share, "limit": float(limit), "median_distance": median}
    numbers["median_distance_held_out"] = reference_median
    advice = "" if share <= ALLOWED else "train it further, or use another model"
    return Finding("samples off the support", text, advice, numbers)


def growth(values: Sequence[float]) -> Finding | None:
    """Assess the mean log-likelihood of each epoch, in nats; None for too few epochs."""
    last = torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.double)
    last = last[-max(FEWEST, len(last) // SHARE) :]
    if len(last) < FEWEST:
        return None
    epochs = torch.arange(len(last), dtype=torch.double) - (len(last) - 1) / 2
    squares = float(epochs.square().sum())
    rate = float(epochs @ last) / squares
    residual = last - last.mean() - rate * epochs
    error = math.sqrt(float(residual.square().sum()) / (len(last) - 2) / squares)
    grows = rate > ERRORS * error and rate * len(last) > ADDED
    verb = "still growing" if grows else "changes"
    text = f"{verb} by {rate:.2g} nats per epoch at the end (last {len(last)} epochs)"
    advice = "train longer; if it never ends, it overfits a manifold: fit it on embeddings of fewer dimensions"
    numbers = {"nats_an_epoch": rate, "standard_error": error}
    return Finding("likelihood in training", text, advice if grows else "", numbers)


def compare_with_truth(log_probs: Tensor, rows: Tensor, truth: SyntheticDistribution, dim: int) -> Finding | None:
    """Compare a model's log-densities `(n,)`, in nats, at held-out rows `(n, D)` with the true ones.

    `dim` is the m of the model's volume: D, or latent_dim of a two-step model. None where the true density is not
    known, or has more dimensions.
    """
    name = "likelihood against the true distribution"
    try:
        expected = truth.log_prob(rows)
    except UserError:
        return None
    own = truth.dim if truth.measure == "Lebesgue" else truth.intrinsic_dim
    known = expected.isfinite() & log_probs.isfinite()
    if dim < own or not bool(known.any()):
        return None
    expected, log_probs = expected[known], log_probs[known].double()
    right, mean = float(expected.mean()), float(log_probs.mean())
    wrong = 2 * right - float(expected.logsumexp(0) - math.log(len(expected)))
    numbers = {"mean": mean, "right": right, "wrong": wrong, "error": float((log_probs - expected).std())}
    if dim == own:
        text = f"mean {mean:.3f} nats; the true distribution has {right:.3f}, a wrong one {wrong:.3f}"
        bad = abs(mean - right) > max(right - wrong, PER_DIM * own)
        advice = "it is worse than a wrong distribution: check the autoencoder first, then train the density further"
        return Finding(name, text, advice if bad else "", numbers)
    codim = dim - own
    alike, enough = (math.exp((value - mean) / codim) / math.sqrt(2 * math.pi) for value in (right, wrong))
    text = (
        f"mean {mean:.2f} nats, like the true distribution with noise of std {alike:.2g}; a wrong distribution with "
        f"noise below {enough:.2g} has more; along the manifold it differs by {numbers['error']:.2f} nats"
    )
    bad = codim * math.log(10) > right - wrong
    advice = f"the likelihood measures concentration, not the distribution: fit the density on embeddings in R^{own}"
    return Finding(name, text, advice if bad else "", {**numbers, "alike": alike, "enough": enough})
