"""Whether a density is one: the integral of `exp(log_prob)`, with its error.

    one step:   ∫ p(x) dx over R^D
    two steps:  ∫ p(g(z)) v(z) dz over R^d,  v = (det JᵀJ)^½, the mass of the manifold that the decoder g spans

The second takes p as the model computes it, through the embedding of g(z): an encoder that is no inverse of the decoder
gives another integral than 1. Up to three dimensions the integral is found by quadrature, above by importance sampling.

A bound is drawn at random, so it is always sampled. It is averaged over draws before it is exponentiated; half of the
variance of that average, by which the exponential of a random number lies above that of its mean, is taken away. A
lower bound integrates to at most 1, so only what makes it too large can be seen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.metrics.base import Result
from twostep.metrics.density_check import importance, quadrature
from twostep.models.base import DensityEstimator, Likelihood, evaluating
from twostep.models.two_step import TwoStep

Verdict = Literal["normalised", "a bound", "not normalised", "undecided"]

SAMPLES = 4096  # of the model, that show where its density lies
DRAWS = 16  # of a bound at each point
TOLERANCE = 0.01  # deviations from 1 that count as none: single precision, cut tails
UNDECIDED = 0.1  # an error (of sampling: three standard errors) above that, or
EFFECTIVE = 200  # an effective sample size below that, decide nothing


@dataclass(frozen=True)
class Certificate:
    """What the integral of a density says of it.

    Args:
        verdict: normalised, a bound (at most 1), not normalised, or undecided where the error is too large to tell.
        integral: with its error, the density's kind and measure, and how it was found.
    """

    verdict: Verdict
    integral: Result

    def line(self) -> str:
        """Return both in words, for a terminal."""
        return f"{self.verdict}: {self.integral.line('integral of the density')}"


def check_normalised(
    model: DensityEstimator | TwoStep, data: Tensor | None = None, *, evaluations: int = 200_000, seed: int = 0
) -> Certificate:
    """Integrate the density of a model.

    Args:
        model: one density, or a density on the embeddings of an autoencoder; on the CPU.
        data: rows `(n, *S)` that show where the density should lie, beside the model's own samples.
        evaluations: of the density, at most; `undecided` is the verdict where they do not suffice.
        seed: of all that is drawn.

    Raises:
        UserError: if the density is unnormalised, or is not a number somewhere.
    """
    if model.likelihood == "unnormalised":
        raise UserError("an unnormalised density has no integral to check: estimate its normaliser first")
    density = _Manifold(model) if isinstance(model, TwoStep) else _Space(model)
    with evaluating(model), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        points = density.where(data, torch.Generator().manual_seed(seed))
        if points.shape[1] <= 3 and model.likelihood != "bound":
            found = quadrature.integrate(density, points, TOLERANCE / 10, evaluations)
            verdict, n, about = _verdict(density.kind, found.value, found.error), found.evaluations, "quadrature"
        else:
            n = evaluations // density.draws
            found = importance.integrate(density, points, n, seed)
            verdict = _verdict(density.kind, found.value, 3 * found.error, found.effective)
            about = f"importance sampling, effective sample size {found.effective:,.0f}"
    note = f"{about}{density.left_out}"
    integral = Result(found.value, "probability", n, found.error, density.kind, density.measure, note)
    return Certificate(verdict, integral)


def _verdict(kind: Likelihood, value: float, error: float, effective: float = math.inf) -> Verdict:
    if effective < EFFECTIVE:
        return "undecided"
    allowed = max(error, TOLERANCE)
    if value - 1 > allowed or (kind != "bound" and 1 - value > allowed):
        return "not normalised"
    if allowed > UNDECIDED:
        return "undecided"
    return "a bound" if kind == "bound" else "normalised"


class _Density(ABC):
    """A density as a function on R^d, in float64."""

    measure: str

    def __init__(self, model: DensityEstimator | TwoStep) -> None:
        self.kind: Likelihood = model.likelihood
        self.draws = DRAWS if model.likelihood == "bound" else 1
        self.dtype = next(model.parameters()).dtype
        self.left_out = ""

    @abstractmethod
    def where(self, data: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return points `(N, d)` at which the density lies."""

    @abstractmethod
    def log_values(self, points: Tensor) -> Tensor:
        """Return the log of what is integrated at `(n, d)`, of shape `(n,)`."""

    def __call__(self, points: Tensor) -> Tensor:
        """Return what is integrated at `(n, d)`, of shape `(n,)`."""
        logs = self.log_values(points.to(self.dtype).repeat(self.draws, 1)).double().view(self.draws, -1)
        if logs.isnan().any():
            raise UserError(f"log_prob is not a number at {points[logs.isnan().any(0)][0].tolist()}")
        mean = logs.mean(0)
        return (mean if self.draws == 1 else mean - logs.var(0) / (2 * self.draws)).exp()


class _Space(_Density):
    """The density of a model in data space."""

    def __init__(self, model: DensityEstimator) -> None:
        super().__init__(model)
        self.model, self.measure = model, f"Lebesgue on R^{model.dim}"

    def where(self, data: Tensor | None, generator: torch.Generator) -> Tensor:
        drawn = self.model.sample(SAMPLES, generator)
        known = drawn[:0] if data is None else self.model.noise.dequantize(data.to(drawn))
        return torch.cat([drawn, known]).flatten(1)

    def log_values(self, points: Tensor) -> Tensor:
        return self.model.log_prob(points.unflatten(1, self.model.event_shape))


class _Manifold(_Density):
    """The density of a two-step model at g(z), times the volume that g makes of that at z."""

    measure = "volume of the learned manifold"

    def __init__(self, model: TwoStep) -> None:
        super().__init__(model)
        self.model, self.singular, self.seen = model, 0, 0

    def where(self, data: Tensor | None, generator: torch.Generator) -> Tensor:
        drawn = self.model.de.sample(SAMPLES, generator)
        return torch.cat([drawn, drawn[:0] if data is None else self.model.encode(data.to(drawn))])

    def log_values(self, points: Tensor) -> Tensor:
        volume, log_prob = self.model.gae.log_volume(points), self.model.log_prob(self.model.decode(points))
        singular = volume.isneginf() | log_prob.isposinf()
        self.singular, self.seen = self.singular + int(singular.sum()), self.seen + len(points)
        if self.singular:
            rank = f"the decoder's Jacobian has rank below {points.shape[1]}"
            self.left_out = f"; at {self.singular:,} of {self.seen:,} points {rank}: they count as 0"
        return torch.where(singular, -torch.inf, log_prob + volume)
