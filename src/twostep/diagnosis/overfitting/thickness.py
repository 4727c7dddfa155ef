"""Thickness: the spread of data across the manifold that they seem to lie on.

A thick manifold is one above its thickness and none below. Flat directions are told by a gap among the stds of the
principal directions (`points.flat_directions`). Others are seen in the noise ladder of data that fill their space, if
the points resolve it: at large scales d(s) has a plateau at a whole number below D. Gaussian noise of std σ across the
manifold has

    (1 + 2t²) / (1 + t²)² of a dimension at s, t = s / σ,    which is a half at t = 1.55

so that d(s) is halfway from D to its plateau at s = 1.55 σ.
"""

from __future__ import annotations

from itertools import pairwise

from twostep.diagnosis.overfitting.noise_scales import Ladder

NEAR = 0.8  # of D, above which the Gaussian's own d(s) is
BELOW = 0.5  # dimensions of a plateau under the Gaussian's d(s)
LEVEL, ROUND = 0.15, 0.3  # fall of d(s) over three rungs of a plateau, relative; its distance to a whole number
HALFWAY = 1.55


def thickness_of(ladder: Ladder) -> float | None:
    """Return the std of the noise of a thick manifold by the ladder of data that fill their space; None: not thick."""
    rungs = [rung for rung in ladder.resolved if rung.gaussian >= NEAR * ladder.dim]
    plateaus = [
        middle
        for first, middle, last in zip(rungs, rungs[1:], rungs[2:], strict=False)
        if first.dimension - last.dimension <= LEVEL * middle.dimension
        and middle.gaussian - middle.dimension >= BELOW
        and 0 < round(middle.dimension) < ladder.dim
        and abs(middle.dimension - round(middle.dimension)) <= ROUND
    ]
    if not plateaus:
        return None
    plateau = plateaus[-1]
    halfway = (ladder.dim + plateau.dimension) / 2
    for before, after in pairwise(ladder.rungs):
        if before.dimension >= halfway > after.dimension and after.scale <= plateau.scale:
            share = (before.dimension - halfway) / (before.dimension - after.dimension)
            return before.scale * (after.scale / before.scale) ** share / HALFWAY
    return None
