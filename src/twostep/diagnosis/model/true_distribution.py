"""A trained density compared with the distribution that its data were drawn from, and with a wrong distribution.

With p the density of the true distribution on its d-dimensional manifold, the wrong distribution is

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

from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.synthetic.base import SyntheticDistribution
from twostep.diagnosis.model.finding import Finding

PER_DIM = 0.05  # nats that a density may be off for each dimension
NAME = "likelihood against the true distribution"


def compare_with_truth(log_probs: Tensor, rows: Tensor, truth: SyntheticDistribution, dim: int) -> Finding | None:
    """Compare a model's log-densities `(n,)`, in nats, at held-out rows `(n, D)` with the true ones.

    `dim` is the m of the volume that the model's density refers to: D, or latent_dim of a two-step model. None where
    the true density is not known, or is one of more dimensions.
    """
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
        return Finding(NAME, text, advice if bad else "", numbers)
    codim = dim - own
    alike, enough = (math.exp((value - mean) / codim) / math.sqrt(2 * math.pi) for value in (right, wrong))
    text = (
        f"mean {mean:.2f} nats, like the true distribution with noise of std {alike:.2g}; a wrong distribution with "
        f"noise below {enough:.2g} has more; along the manifold it differs by {numbers['error']:.2f} nats"
    )
    bad = codim * math.log(10) > right - wrong
    advice = f"the likelihood measures concentration, not the distribution: fit the density on embeddings in R^{own}"
    return Finding(NAME, text, advice if bad else "", {**numbers, "alike": alike, "enough": enough})
