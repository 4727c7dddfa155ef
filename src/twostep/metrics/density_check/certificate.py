"""Whether a density is normalised: the integral of `exp(log_prob)`, with its error.

    one step:   ∫ p(x) dx over R^D
    two steps:  ∫ p(g(z)) v(z) dz over R^d,  v = (det JᵀJ)^½, the mass of the decoder's manifold

The second uses p as the model computes it, through the embedding of g(z): if the encoder is no inverse of the decoder,
the integral differs from 1. Up to three dimensions it is computed by quadrature, above by importance sampling.

A bound is random, so it is always sampled. It is averaged over draws before it is exponentiated; half of the variance
of that average is subtracted, which corrects the bias of the exponential to first order. A lower bound integrates to at
most 1, so only too large values can be detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.metrics.base import Result, measure_of
from twostep.metrics.density_check import importance, quadrature
from twostep.models.base import DensityEstimator, evaluating, tensor_of
from twostep.models.two_step import TwoStep

Verdict = Literal["normalised", "a bound", "not normalised", "undecided"]

SAMPLES = 4096  # of the model, where its density is large
DRAWS = 16  # of a bound at each point
TOLERANCE = 0.01  # of deviations from 1, for single precision and truncated tails
UNDECIDED = 0.1  # larger errors (of sampling: three standard errors) allow no decision
EFFECTIVE = 200  # smaller effective sample sizes allow no decision


@dataclass(frozen=True)
class Certificate:
    """The integral of a density, and the verdict, which is undecided if the error is too large."""

    verdict: Verdict
    integral: Result

    def line(self) -> str:
        """Return one line of text about both."""
        return f"{self.verdict}: {self.integral.line('integral of the density')}"


def check_normalised(
    model: DensityEstimator | TwoStep, data: Tensor | None = None, *, evaluations: int = 200_000, seed: int = 0
) -> Certificate:
    """Integrate the density of a model.

    Args:
        model: a density, or a two-step model; on the CPU.
        data: rows `(n, *S)` where the density should be large, in addition to samples of the model.
        evaluations: maximal number of evaluations of the density; if they do not suffice, the verdict is undecided.
        seed: seed of all random numbers.

    Raises:
        UserError: if the density is unnormalised, or not a number at some point.
    """
    kind = model.likelihood
    if kind == "unnormalised":
        raise UserError("an unnormalised density has no integral to check: estimate its normaliser first")
    density = _Density(model)
    with evaluating(model), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        source = model.de if isinstance(model, TwoStep) else model
        points = source.sample(SAMPLES, torch.Generator().manual_seed(seed))
        if data is not None:
            x = data.to(points)
            points = torch.cat([points, model.encode(x) if isinstance(model, TwoStep) else model.noise.dequantize(x)])
        points = points.flatten(1)
        if points.shape[1] <= 3 and kind != "bound":
            found = quadrature.integrate(density, points, TOLERANCE / 10, evaluations)
            error, about = found.error, "quadrature"
        else:
            found = importance.integrate(density, points, evaluations // density.draws, seed)
            error, about = 3 * found.error, f"importance sampling, effective sample size {found.effective:,.0f}"
    excess, allowed = found.value - 1, max(error, TOLERANCE)
    if found.effective < EFFECTIVE:
        verdict = "undecided"
    elif excess > allowed or (kind != "bound" and -excess > allowed):
        verdict = "not normalised"
    elif allowed > UNDECIDED:
        verdict = "undecided"
    else:
        verdict = "a bound" if kind == "bound" else "normalised"
    if density.singular:
        rank = f"the decoder's Jacobian has rank below {points.shape[1]}"
        about += f"; at {density.singular:,} of {density.seen:,} points {rank}, counted as 0"
    integral = Result(found.value, "probability", found.evaluations, found.error, kind, measure_of(model), about)
    return Certificate(verdict, integral)


class _Density:
    """The density of a model as a function on R^d, in float64; of a two-step model at g(z), times the volume element.

    It counts the points at which it is evaluated, and those where the decoder is singular.
    """

    def __init__(self, model: DensityEstimator | TwoStep) -> None:
        self.model, self.singular, self.seen = model, 0, 0
        self.draws = DRAWS if model.likelihood == "bound" else 1

    def __call__(self, points: Tensor) -> Tensor:
        """Return the integrand at `(n, d)`, of shape `(n,)`."""
        repeated = points.to(tensor_of(self.model).dtype).repeat(self.draws, 1)
        logs = self._log_values(repeated).double().view(self.draws, -1)
        if logs.isnan().any():
            raise UserError(f"log_prob is not a number at {points[logs.isnan().any(0)][0].tolist()}")
        mean = logs.mean(0)
        return (mean if self.draws == 1 else mean - logs.var(0) / (2 * self.draws)).exp()

    def _log_values(self, points: Tensor) -> Tensor:
        model = self.model
        if not isinstance(model, TwoStep):
            return model.log_prob(points.unflatten(1, model.event_shape))
        volume, log_prob = model.gae.log_volume(points), model.log_prob(model.decode(points))
        singular = volume.isneginf() | log_prob.isposinf()
        self.singular, self.seen = self.singular + int(singular.sum()), self.seen + len(points)
        return torch.where(singular, -torch.inf, log_prob + volume)
