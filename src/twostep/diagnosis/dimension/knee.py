"""The knee of reconstruction error over latent size: the smallest size after which more coordinates hardly help.

Let E(k) be the share of variance that an autoencoder of k latent coordinates leaves; E(0) = 1 is what the mean leaves.
Between two sizes j < k the error falls as a power of the size, the mean counted as one coordinate more:

    a(j, k) = log(E(j) / E(k)) / log((1 + k) / (1 + j))

A knee is where the curve turns from steep to flat at once: the step to k from the size before, i, must at least halve
the error, and no later step may be nearly as steep:

    E(i) >= 2 E(k),    a(i, k) >= 3 a(k, j) for each j > k.

Powers, exponential decay and the spectra of Gaussians and cubes have none, nor is the last size a knee. That of a
closed manifold of d dimensions is d + 1, the size to choose: a chart of d coordinates is discontinuous.

Compare: Finding a "Kneedle" in a Haystack: Detecting Knee Points in System Behavior (Satopaa et al., 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

STEEPER = 3.0
HALVED = 2.0
NOTHING = 1e-6  # share of variance that rounding leaves


def knee_of(sizes: Sequence[int], errors: Sequence[float]) -> int | None:
    """Return the knee of the errors, shares of variance, of ascending sizes, if there is one and no error is NaN."""
    if any(math.isnan(error) for error in errors):
        return None
    curve = list(zip([0, *sizes], [1.0, *(max(NOTHING, error) for error in errors)], strict=True))
    for before, point, later in ((curve[i - 1], curve[i], curve[i + 1 :]) for i in range(1, len(curve) - 1)):
        steepest = max(_slope(point, end) for end in later)
        if before[1] >= HALVED * point[1] and _slope(before, point) >= STEEPER * steepest:
            return point[0]
    return None


def _slope(one: tuple[int, float], other: tuple[int, float]) -> float:
    (size, error), (more, left) = one, other
    return math.log(error / left) / math.log((1 + more) / (1 + size))
