"""A trained density against the law that its data were drawn from, where that is known, and against a wrong one.

With p the density of the law on its d-dimensional manifold, the wrong law is

    q ∝ p²,   log q = 2 log p - log E_p[p],   of mean E_p[log q] = E_p[log p] - KL(p ‖ q)

which lives on the same manifold and is too narrow there. A model's density refers to volume of m dimensions: R^D, or
the manifold that a decoder makes of R^m. On points of the d-dimensional manifold, a law that is blurred by N(0, s² I)
in the m - d other directions has the log-density of the law itself less (m - d) log s √(2π), up to curvature. So the
right law blurred by s has a lower mean log-density than the wrong one blurred by s / 10 if

    (m - d) log 10 > KL(p ‖ q)

and then the likelihood ranks thinness above rightness. With m = d no thinness enters, and the mean of a two-step
density is at most that of p, if its manifold is right.

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
NAME = "likelihood against the true law"


def against_law(log_probs: Tensor, rows: Tensor, law: SyntheticDistribution, dim: int) -> Finding | None:
    """Compare a model's log-densities with the true ones.

    Args:
        log_probs: of the model at the rows, in nats, `(n,)`; those that are not finite are left out.
        rows: held-out rows of the law, `(n, D)`.
        law: that they were drawn from.
        dim: dimensions m of the volume that the model's density refers to: D, or latent_dim of a two-step model.

    Returns:
        None where the law's density is not known, or is one of more dimensions.
    """
    try:
        truth = law.log_prob(rows)
    except UserError:
        return None
    own = law.dim if law.measure == "Lebesgue" else law.intrinsic_dim
    known = truth.isfinite() & log_probs.isfinite()
    if dim < own or not bool(known.any()):
        return None
    truth, log_probs = truth[known], log_probs[known].double()
    right, mean = float(truth.mean()), float(log_probs.mean())
    wrong = 2 * right - float(truth.logsumexp(0) - math.log(len(truth)))
    error = float((log_probs - truth).std())
    numbers = {"mean": mean, "right": right, "wrong": wrong, "error": error}
    return _of_one_measure(numbers, own) if dim == own else _of_blurred(numbers, own, dim - own)


def _of_one_measure(numbers: dict[str, float], own: int) -> Finding:
    mean, right, wrong = numbers["mean"], numbers["right"], numbers["wrong"]
    told = f"mean {mean:.3f} nats; the true law has {right:.3f}, a wrong one {wrong:.3f}"
    off = abs(mean - right) > max(right - wrong, PER_DIM * own)
    advice = "it is farther off than a wrong law: see to the autoencoder first, then train the density further"
    return Finding(NAME, told, advice if off else "", numbers)


def _of_blurred(numbers: dict[str, float], own: int, codim: int) -> Finding:
    mean, right, wrong = numbers["mean"], numbers["right"], numbers["wrong"]
    alike, enough = (math.exp((law_mean - mean) / codim) / math.sqrt(2 * math.pi) for law_mean in (right, wrong))
    told = (
        f"mean {mean:.2f} nats, as the true law blurred by {alike:.2g} has; a wrong law blurred by less than "
        f"{enough:.2g} has more; along the manifold it is off by {numbers['error']:.2f} nats"
    )
    outscored = codim * math.log(10) > right - wrong
    advice = f"the likelihood ranks thinness, not laws: fit the density on embeddings in R^{own}"
    return Finding(NAME, told, advice if outscored else "", {**numbers, "alike": alike, "enough": enough})
