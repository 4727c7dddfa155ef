"""What an estimate of dimension means for n points: the d at which a law of known dimension is given the same value.

With b(d) the estimate for n samples of a reference law in d dimensions, below d and the more so the higher d is, the
corrected estimate is b^-1(value). A Gaussian has no edges, a cube has the most: they bracket the laws between.

This is sound for data whose spread is alike in all directions of the manifold; spheres and flat subspaces of up to 20
dimensions come out right. Directions of little spread are missed by the estimate and not given back.

The simpler correction, estimate / null * rank with the law of `null`, is right where the data nearly fill their space
(S^10 in R^11: 10.0; S^19 in R^20: 19.3) and wrong elsewhere: it supposes that bias is one share of d for the data and
for the law that fills the space. A network's manifold of 5 dimensions in R^20 comes out as 11.8, one of 10 in R^100
as 46 (n = 2,000, k = 20; here 4.9 and 9.1). It is not used.

Source of the idea, with other reference laws: Estimating the Intrinsic Dimension of Data with a Fractal-Based Method
(Camastra & Vinciarelli, 2002).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Literal

import torch

from twostep.diagnosis.neighbourhoods import Neighbourhoods, nearest_others
from twostep.seeds import derive

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
"""Dimensions that b is measured at; between them log b is linear in log d."""


class Reference:
    """Samples of one reference law in many dimensions.

    Args:
        law: a standard Gaussian, or a uniform cube.
        n: points of each sample.
        k: neighbours of each.
        limit: the highest dimension there can be.
        seed: of the samples.
    """

    def __init__(self, law: Literal["Gaussian", "cube"], n: int, k: int, limit: int, seed: int = 0) -> None:
        self.law, self.n, self.k, self.seed = law, n, k, seed
        self.rungs = (*(d for d in LADDER if d < limit), limit)
        self._samples: dict[int, Neighbourhoods] = {}

    def correct(self, value: float, estimator: Callable[[Neighbourhoods], float]) -> float:
        """Return the dimension at which the reference law is given this value, at most the limit."""
        known: dict[int, float] = {}

        def bias(rung: int) -> float:
            if rung not in known:
                known[rung] = math.log(estimator(self.sample(self.rungs[rung])))
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

    def sample(self, d: int) -> Neighbourhoods:
        """Return neighbourhoods of samples in d dimensions, made once."""
        if d not in self._samples:
            generator = torch.Generator().manual_seed(derive(self.seed, "reference", self.law, d))
            draw = torch.randn if self.law == "Gaussian" else torch.rand
            points = draw(self.n, d, generator=generator, dtype=torch.double)
            self._samples[d] = Neighbourhoods(points, *nearest_others(points, self.k))
        return self._samples[d]
