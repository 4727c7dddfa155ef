"""A trained density against the law that its data were drawn from, where that is known, and against a wrong one.

With p the density of the law on its d-dimensional manifold, the wrong law is

    q ∝ p²,   log q = 2 log p - log E_p[p],   of mean E_p[log q] = E_p[log p] - KL(p ‖ q)

which lives on the same manifold and is too narrow there. On points of the manifold a law blurred by N(0, s² I) has the
log-density of the law itself less (D - d) log s √(2π), up to curvature. So the right law blurred by s has a lower mean
log-density than the wrong one blurred by s / 10 if

    (D - d) log 10 > KL(p ‖ q)

and then the likelihood of densities in R^D ranks thinness above rightness. With respect to volume on the manifold no
thinness enters, and the mean of a two-step density is at most that of p, if its manifold is right.

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172).
"""

from __future__ import annotations

import math

from torch import Tensor

from twostep.data.synthetic.base import SyntheticSet
from twostep.diagnosis.findings import Finding
from twostep.schema import UserError

PER_DIM = 0.05  # nats that a density may be off for each dimension
NAME = "likelihood against the true law"


def against_law(log_probs: Tensor, rows: Tensor, law: SyntheticSet, on_manifold: bool) -> Finding | None:
    """Compare a model's log-densities with the true ones.

    Args:
        log_probs: of the model at the rows, in nats, `(n,)`; those that are not finite are left out.
        rows: held-out rows of the law, `(n, D)`.
        law: that they were drawn from.
        on_manifold: whether the model's density refers to volume on its manifold, as a two-step model's does.

    Returns:
        None where the law's density is not known, or the two refer to different measures.
    """
    try:
        truth = law.log_prob(rows)
    except UserError:
        return None
    fills_space = law.measure == "Lebesgue"
    known = truth.isfinite() & log_probs.isfinite()
    if (on_manifold and fills_space) or not bool(known.any()):
        return None
    truth, log_probs = truth[known], log_probs[known].double()
    right, mean = float(truth.mean()), float(log_probs.mean())
    wrong = 2 * right - float(truth.logsumexp(0) - math.log(len(truth)))
    error = float((log_probs - truth).std())
    numbers = {"mean": mean, "right": right, "wrong": wrong, "error": error}
    if on_manifold or fills_space:
        return _of_one_measure(numbers, law)
    return _of_blurred(numbers, law)


def _of_one_measure(numbers: dict[str, float], law: SyntheticSet) -> Finding:
    mean, right, wrong = numbers["mean"], numbers["right"], numbers["wrong"]
    told = f"mean {mean:.3f} nats; the true law has {right:.3f}, a wrong one {wrong:.3f}"
    off = abs(mean - right) > max(right - wrong, PER_DIM * law.intrinsic_dim)
    advice = "it is farther off than a wrong law: see to the autoencoder first, then train the density further"
    return Finding(NAME, told, advice if off else "", numbers)


def _of_blurred(numbers: dict[str, float], law: SyntheticSet) -> Finding:
    mean, right, wrong = numbers["mean"], numbers["right"], numbers["wrong"]
    codim = law.dim - law.intrinsic_dim
    alike, enough = (math.exp((law_mean - mean) / codim) / math.sqrt(2 * math.pi) for law_mean in (right, wrong))
    told = (
        f"mean {mean:.2f} nats, as the true law blurred by {alike:.2g} has; a wrong law blurred by less than "
        f"{enough:.2g} has more; along the manifold it is off by {numbers['error']:.2f} nats"
    )
    outscored = codim * math.log(10) > right - wrong
    advice = "the likelihood ranks thinness, not laws: an autoencoder and a density on its embeddings"
    return Finding(NAME, told, advice if outscored else "", {**numbers, "alike": alike, "enough": enough})
