"""Estimates of dimension compared with those of samples of reference distributions: a calibration, and a ratio.

*Calibration*: with b(d) the estimate for n samples of a reference distribution in d dimensions, which is below d and
the more so the higher d is, the corrected estimate is b^-1(value). A Gaussian with equal stds explains estimates that
are low because n is small, a cube those that are low by edges too, and a Gaussian whose stds are the d largest
principal stds of the data those by unevenness. Directions of very small std add nothing to b. A Gaussian with stds σ_i
whose points have neighbours at distance r is about τ away from them in each direction,

    Σ_i min(τ², 2σ_i²) = r²,        and a direction with σ_i below τ / 4 is taken to add nothing.

*Ratio*: the estimate over the mean estimate of as many samples of a full-dimensional distribution with the data's
covariance is about 1 for full-dimensional data and less for others. The reference is a Gaussian, or a Gaussian mixture
where that gives held-out rows a higher likelihood: clusters lower an estimate too. It lives on the directions in which
the data vary at all, whose number is the *linear rank*. Edges lower the ratio as well (a cube in 5 to 20 dimensions has
0.89 to 0.93), and ratio * rank is no dimension, as the bias is no constant share.

Sources: of the idea, with other reference distributions, Estimating the Intrinsic Dimension of Data with a
Fractal-Based Method (Camastra & Vinciarelli, 2002); of τ, which shares a distance as it shares distortion, Elements of
Information Theory (Cover & Thomas, 2006), section 10.3.3.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, Estimator, dimensions_around, likelihood
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods
from twostep.diagnosis.dimension.reference_distributions import Mixture
from twostep.nn.distributions import fitted_mixture, mean_and_factor

DIMENSIONS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
"""Dimensions at which b is estimated; between them log b is linear in log d."""
POINTS, MOST = 3000, 3  # points of all samples together, and the largest number of samples
VISIBLE = 0.25  # std of a direction that counts, over the distance τ of neighbours along it

DRAWS = 5
HELD_OUT = 5  # one in so many rows


class Calibration:
    """Estimates by k neighbours of n points of a Gaussian or cube in d dimensions, scaled by the first d of `stds`."""

    def __init__(self, kind: Literal["Gaussian", "cube"], stds: Tensor, n: int, k: int, seed: int = 0) -> None:
        self.kind, self.stds, self.n, self.k, self.seed = kind, stds, n, k, seed
        self.dimensions = (*(d for d in DIMENSIONS if d < len(stds)), len(stds))
        self._samples: dict[int, list[Neighbourhoods]] = {}

    def correct(self, value: float, estimator: Estimator) -> float:
        """Return the dimension at which the reference has this estimate, at most the number of its directions."""
        if value <= 0:
            return 0.0

        @functools.cache
        def log_bias(index: int) -> float:
            logs = [math.log(estimator(sample)) for sample in self.samples(self.dimensions[index])]
            return sum(logs) / len(logs)

        target, last = math.log(value), len(self.dimensions) - 1
        high = min(bisect.bisect_left(self.dimensions, value), last)
        while high < last and log_bias(high) < target:
            high += 1
        while high > 0 and log_bias(high - 1) >= target:
            high -= 1
        if log_bias(high) <= target or high == 0:
            return min(float(self.dimensions[-1]), self.dimensions[high] * math.exp(target - log_bias(high)))
        share = (target - log_bias(high - 1)) / (log_bias(high) - log_bias(high - 1))
        below, above = (math.log(self.dimensions[index]) for index in (high - 1, high))
        return math.exp(below + share * (above - below))

    def local_std(self, d: int) -> float:
        """Return the std of the log of estimates around points in about d dimensions, averaged over samples."""
        nearest = min(self.dimensions, key=lambda dimension: abs(math.log(dimension / d)))
        stds = [float(dimensions_around(sample, self.k).log().std()) for sample in self.samples(nearest)]
        return sum(stds) / len(stds)

    def samples(self, d: int) -> list[Neighbourhoods]:
        """Return neighbourhoods of samples in d dimensions, drawn once; samples in fewer are projections of them."""
        if d not in self._samples:
            self._samples[d] = []
            draw = torch.randn if self.kind == "Gaussian" else torch.rand
            for index in range(max(1, min(MOST, POINTS // self.n))):
                generator = torch.Generator().manual_seed(derive(self.seed, "reference", self.kind, index))
                columns = [draw(self.n, generator=generator, dtype=torch.double) for _ in range(d)]
                self._samples[d].append(Neighbourhoods.of(torch.stack(columns, 1) * self.stds[:d], self.k))
        return self._samples[d]


def visible(stds: Tensor, distance: float) -> int:
    """Return how many directions of descending stds `(rank,)` are visible at a distance r of neighbours, 1 or more."""
    twice = 2 * stds.square().flip(0)
    below = twice.cumsum(0) - twice
    left = torch.arange(len(stds), 0, -1).to(stds)
    narrow = min(int((below + left * twice < distance**2).sum()), len(stds) - 1)
    along = ((distance**2 - below[narrow]) / left[narrow]).clamp(min=0).sqrt()
    return max(1, int((stds >= VISIBLE * along).sum()))


@dataclass(frozen=True)
class ReferenceRatio:
    """The ratio of an estimate to the mean of samples' `estimates`, its std, and the reference with its dimension."""

    ratio: float
    std: float
    estimates: tuple[float, ...]
    rank: int
    distribution: str

    @property
    def fills_space(self) -> bool:
        """Whether the estimate is no lower than the reference's, within two stds."""
        return self.ratio + 2 * self.std >= 1


def reference_ratio(near: Neighbourhoods, seed: int = 0) -> ReferenceRatio:
    """Compare the estimate of the data with those of samples, each of as many points, of a reference distribution."""
    value = float(likelihood(near))
    points, stds = near.principal
    mixture = _mixture(points / stds, seed)
    generator = torch.Generator().manual_seed(derive(seed, "null"))
    estimates: list[float] = []
    for _ in range(DRAWS):
        samples = torch.randn(near.n, len(stds), generator=generator, dtype=torch.double)
        if mixture is not None:
            components = torch.multinomial(mixture.weights, near.n, replacement=True, generator=generator)
            samples = mixture.place(samples, components)
        estimates.append(float(likelihood(Neighbourhoods.of(samples * stds, NEIGHBOURS))))
    ratios = value / torch.tensor(estimates, dtype=torch.double)
    name = "a Gaussian of the same covariance" if mixture is None else f"a mixture of {len(mixture.weights)} Gaussians"
    return ReferenceRatio(value * DRAWS / sum(estimates), float(ratios.std()), tuple(estimates), len(stds), name)


def _mixture(z: Tensor, seed: int) -> Mixture | None:
    """Fit a mixture to standardised points `(n, rank)`; None where a Gaussian is as good on held-out rows."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(derive(seed, "held out")))
    held, kept = z[order].tensor_split([len(z) // HELD_OUT])
    mean, factor = mean_and_factor(kept)
    gaussian = MultivariateNormal(mean, scale_tril=factor).log_prob(held).mean()
    if float(fitted_mixture(kept, derive(seed, "mixture")).log_prob(held).mean()) <= float(gaussian):
        return None
    found = fitted_mixture(z, derive(seed, "mixture"))
    parts = cast(MultivariateNormal, found.component_distribution)
    return Mixture(found.mixture_distribution.probs, parts.loc, parts.scale_tril) if len(parts.loc) > 1 else None
