"""Calibration of an estimate of dimension for n points: the d at which a reference distribution has the same estimate.

With b(d) the estimate for n samples of a reference distribution in d dimensions, which is below d and the more so the
higher d is, the corrected estimate is b^-1(value). Three distributions explain a low estimate in three ways:

    n is small         a Gaussian with equal stds
    ... and edges      a cube, which has the most
    ... and unevenness a Gaussian whose stds are the d largest principal stds of the data

A distribution that is both uneven and edged explains too much: it finds 20 dimensions where there are 18 even ones.
Directions of very small std add nothing to b, so only the first `visible` ones count. A Gaussian with stds σ_i whose
points have neighbours at distance r is about τ away from them in each direction,

    Σ_i min(τ², 2σ_i²) = r²,        and a direction with σ_i below τ / 4 is taken to add nothing.

Sources: of the idea, with other reference distributions, Estimating the Intrinsic Dimension of Data with a
Fractal-Based Method (Camastra & Vinciarelli, 2002); of τ, which shares a distance as it shares distortion, Elements of
Information Theory (Cover & Thomas, 2006), section 10.3.3.
"""

from __future__ import annotations

import bisect
import math
from typing import Literal

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import Estimator, dimensions_around
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods

DIMENSIONS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
"""Dimensions at which b is estimated; between them log b is linear in log d."""
POINTS, MOST = 3000, 3  # points of all samples together, and the largest number of samples
VISIBLE = 0.25  # std of a direction that counts, over the distance τ of neighbours along it

Kind = Literal["Gaussian", "cube"]


class Calibration:
    """Estimates for samples of a reference distribution, over its dimension.

    Args:
        kind: a Gaussian, or a uniform cube.
        stds: scales of its directions; in d dimensions it has the first d. `(limit,)`
        n: points of each sample.
        k: neighbours of each.
        seed: of the samples.
    """

    def __init__(self, kind: Kind, stds: Tensor, n: int, k: int, seed: int = 0) -> None:
        self.kind, self.stds, self.n, self.k, self.seed = kind, stds, n, k, seed
        self.dimensions = (*(d for d in DIMENSIONS if d < len(stds)), len(stds))
        self._samples: dict[int, list[Neighbourhoods]] = {}

    def correct(self, value: float, estimator: Estimator) -> float:
        """Return the dimension at which the reference has this estimate, at most the number of its directions."""
        known: dict[int, float] = {}

        def log_bias(index: int) -> float:
            if index not in known:
                logs = [math.log(estimator(sample)) for sample in self.samples(self.dimensions[index])]
                known[index] = sum(logs) / len(logs)
            return known[index]

        if value <= 0:
            return 0.0
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
            count = max(1, min(MOST, POINTS // self.n))
            self._samples[d] = [self._sample(d, index) for index in range(count)]
        return self._samples[d]

    def _sample(self, d: int, index: int) -> Neighbourhoods:
        generator = torch.Generator().manual_seed(derive(self.seed, "reference", self.kind, index))
        draw = torch.randn if self.kind == "Gaussian" else torch.rand
        columns = [draw(self.n, generator=generator, dtype=torch.double) for _ in range(d)]
        return Neighbourhoods.of(torch.stack(columns, 1) * self.stds[:d], self.k)


def visible(stds: Tensor, distance: float) -> int:
    """Return the number of directions that are wide enough to be visible at this distance of neighbours, 1 or more.

    Args:
        stds: of all directions, descending, `(rank,)`.
        distance: r, to neighbours.
    """
    twice = 2 * stds.square().flip(0)
    below = twice.cumsum(0) - twice
    left = torch.arange(len(stds), 0, -1).to(stds)
    narrow = min(int((below + left * twice < distance**2).sum()), len(stds) - 1)
    along = ((distance**2 - below[narrow]) / left[narrow]).clamp(min=0).sqrt()
    return max(1, int((stds >= VISIBLE * along).sum()))
