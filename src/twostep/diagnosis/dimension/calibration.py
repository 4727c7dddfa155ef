"""What an estimate of dimension means for n points: the d at which a law of known dimension is given the same value.

With b(d) the estimate for n samples of a reference law in d dimensions, below d and the more so the higher d is, the
corrected estimate is b^-1(value). Three laws explain a low estimate in three ways:

    n is small         a Gaussian whose directions spread alike
    ... and edges      a cube, which has the most
    ... and unevenness a Gaussian whose stds are the d largest principal stds of the data

The principal stds of a curved manifold fall off by its curvature too. This does little in a few dimensions, where
neighbours are near and b(d) is almost d whatever the stds are; in many, the stds of neighbourhoods fall off as steeply
(digits, fashion-mnist, networks' manifolds). A law that is both uneven and edged explains too much: it finds 20
dimensions where there are 18 even ones, and some weak ones by curvature (Mn1 of scikit-dimension; here 18).

Directions of very little spread add nothing to b, so that b^-1 would be up to chance: only the first `visible` ones
count. A Gaussian with stds σ_i whose points have neighbours at distance r is about τ away from them in each direction,

    Σ_i min(τ², 2σ_i²) = r²,        and a direction with σ_i below τ / 4 is taken to add nothing.

The simpler correction, estimate / null * rank with the law of `null`, is right where the data nearly fill their space
(S^10 in R^11: 10.0; S^19 in R^20: 19.3) and wrong elsewhere: it supposes that bias is one share of d for the data and
for the law that fills the space. A network's manifold of 5 dimensions in R^20 comes out as 11.8, one of 10 in R^100
as 46 (n = 2,000, k = 20). It is not used.

Sources: of the idea, with other reference laws, Estimating the Intrinsic Dimension of Data with a Fractal-Based Method
(Camastra & Vinciarelli, 2002); of τ, which shares a distance as it shares distortion, Elements of Information Theory
(Cover & Thomas, 2006), section 10.3.3.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import dimensions_around
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, nearest_others

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
"""Dimensions that b is measured at; between them log b is linear in log d."""
POINTS, MOST = 3000, 3  # as many samples are drawn as have 3,000 points together, 3 at most
SEEN = 0.25  # std of a direction that counts, over the distance τ of neighbours along it

Law = Literal["Gaussian", "cube"]


class Reference:
    """Samples of one reference law.

    Args:
        law: a Gaussian, or a uniform cube.
        scales: that its directions are multiplied by; in d dimensions it has the first d. `(limit,)`
        n: points of each sample.
        k: neighbours of each.
        seed: of the samples.
    """

    def __init__(self, law: Law, scales: Tensor, n: int, k: int, seed: int = 0) -> None:
        self.law, self.scales, self.n, self.k, self.seed = law, scales, n, k, seed
        self.rungs = (*(d for d in LADDER if d < len(scales)), len(scales))
        self._samples: dict[int, list[Neighbourhoods]] = {}

    def correct(self, value: float, estimator: Callable[[Neighbourhoods], float]) -> float:
        """Return the dimension at which the law is given this value, at most the number of its directions."""
        known: dict[int, float] = {}

        def bias(rung: int) -> float:
            if rung not in known:
                logs = [math.log(estimator(sample)) for sample in self.samples(self.rungs[rung])]
                known[rung] = sum(logs) / len(logs)
            return known[rung]

        if value <= 0:
            return 0.0
        target, last = math.log(value), len(self.rungs) - 1
        high = min(bisect.bisect_left(self.rungs, value), last)
        while high < last and bias(high) < target:
            high += 1
        while high > 0 and bias(high - 1) >= target:
            high -= 1
        if bias(high) <= target or high == 0:
            return min(float(self.rungs[-1]), self.rungs[high] * math.exp(target - bias(high)))
        share = (target - bias(high - 1)) / (bias(high) - bias(high - 1))
        below, above = (math.log(self.rungs[rung]) for rung in (high - 1, high))
        return math.exp(below + share * (above - below))

    def spread(self, d: int) -> float:
        """Return the std of the log of estimates around points in about d dimensions, the mean over samples."""
        rung = min(self.rungs, key=lambda rung: abs(math.log(rung / d)))
        stds = [float(dimensions_around(sample, self.k).log().std()) for sample in self.samples(rung)]
        return sum(stds) / len(stds)

    def samples(self, d: int) -> list[Neighbourhoods]:
        """Return neighbourhoods of samples in d dimensions, made once; samples in fewer are projections of them."""
        if d not in self._samples:
            count = max(1, min(MOST, POINTS // self.n))
            self._samples[d] = [self._sample(d, which) for which in range(count)]
        return self._samples[d]

    def _sample(self, d: int, which: int) -> Neighbourhoods:
        generator = torch.Generator().manual_seed(derive(self.seed, "reference", self.law, which))
        draw = torch.randn if self.law == "Gaussian" else torch.rand
        columns = [draw(self.n, generator=generator, dtype=torch.double) for _ in range(d)]
        points = torch.stack(columns, 1) * self.scales[:d]
        return Neighbourhoods(points, *nearest_others(points, self.k))


def visible(stds: Tensor, distance: float) -> int:
    """Return how many directions are wide enough for points whose neighbours are that far to show them, 1 or more.

    Args:
        stds: of all directions, descending, `(rank,)`.
        distance: r, to neighbours.
    """
    twice = 2 * stds.square().flip(0)
    below = twice.cumsum(0) - twice
    left = torch.arange(len(stds), 0, -1).to(stds)
    narrow = min(int((below + left * twice < distance**2).sum()), len(stds) - 1)
    along = ((distance**2 - below[narrow]) / left[narrow]).clamp(min=0).sqrt()
    return max(1, int((stds >= SEEN * along).sum()))
