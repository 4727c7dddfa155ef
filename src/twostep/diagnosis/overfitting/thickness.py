"""Thickness: the std of data across the manifold that they seem to lie on.

A thick manifold is one above its thickness and none below. Flat directions show as a gap among the stds of the
principal directions (`flat_directions`). Others show in the noise-scale curve of data that fill their space, if the
points resolve it: at large scales d(s) has a plateau at an integer below D. Gaussian noise of std σ across the manifold
has

    (1 + 2t²) / (1 + t²)² of a dimension at s, t = s / σ,    which is a half at t = 1.55

so d(s) is halfway from D to its plateau at s = 1.55 σ.
"""

from __future__ import annotations

from itertools import pairwise

from twostep.diagnosis.overfitting.noise_scales import NoiseScaleCurve

NEAR = 0.8  # of D, above which the Gaussian's own d(s) is
BELOW = 0.5  # dimensions of a plateau under the Gaussian's d(s)
LEVEL, ROUND = 0.15, 0.3  # relative decrease over three scales of a plateau, and its distance to an integer
HALFWAY = 1.55


def thickness_of(curve: NoiseScaleCurve) -> float | None:
    """Return the std of the noise of a thick manifold from the curve of full-dimensional data; None: not thick."""
    scales = [at for at in curve.resolved if at.gaussian >= NEAR * curve.dim]
    plateaus = [
        middle
        for first, middle, last in zip(scales, scales[1:], scales[2:], strict=False)
        if first.value - last.value <= LEVEL * middle.value
        and middle.gaussian - middle.value >= BELOW
        and 0 < round(middle.value) < curve.dim
        and abs(middle.value - round(middle.value)) <= ROUND
    ]
    if not plateaus:
        return None
    plateau = plateaus[-1]
    halfway = (curve.dim + plateau.value) / 2
    for before, after in pairwise(curve.scales):
        if before.value >= halfway > after.value and after.scale <= plateau.scale:
            share = (before.value - halfway) / (before.value - after.value)
            return before.scale * (after.scale / before.scale) ** share / HALFWAY
    return None
