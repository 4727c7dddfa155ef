"""What models trained for it say of data: autoencoders of several latent sizes, and a flow that knows the noise."""

from __future__ import annotations

from dataclasses import dataclass

from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods
from twostep.diagnosis.trained.noise_flow import FlowLadder, flow_ladder
from twostep.diagnosis.trained.reconstruction_curve import (
    ReconstructionCurve,
    coordinates_of,
    reconstruction_curve,
    sizes_around,
)

WIDEST = 60  # directions of a flow


@dataclass(frozen=True)
class Thorough:
    """What trained models say.

    Args:
        reconstruction: the error of autoencoders over their latent size.
        flow: the noise ladder of a flow; None for data of more than 60 directions.
        unit: length in the data of a scale of 1 on that ladder.
    """

    reconstruction: ReconstructionCurve
    flow: FlowLadder | None
    unit: float

    def lines(self) -> tuple[str, ...]:
        """Return what they say in words, a line for each model."""
        return (self.reconstruction.line(), f"noise ladder of a flow: {self._ladder()}")

    def _ladder(self) -> str:
        if self.flow is None:
            return f"not tried in more than {WIDEST} directions"
        found, rung = self.flow.dimension, self.flow.plateau
        if found is None or rung is None:
            return "the dimension depends on the scale all along"
        told = f"{found.value:.2f} dimensions ({found.low:.2f}-{found.high:.2f}) by LIDL"
        return f"{told}, {rung.flipd.value:.2f} by FLIPD, at a scale of {rung.scale * self.unit:.3g}"


def trained_models(near: Neighbourhoods, d: int, seed: int) -> Thorough:
    """Train them, in minutes.

    Args:
        near: the data, whose reconstruction is told; the flow is of what is not flat.
        d: an estimate of their dimension, around which latent sizes are taken.
        seed: of weights and batches.
    """
    points, stds = near.steep.principal
    largest = float(stds[-1])
    flow = flow_ladder(points / largest, seed) if len(stds) <= WIDEST else None
    curve = reconstruction_curve(near.points, sizes_around(d, coordinates_of(near.n, near.dim)), seed)
    return Thorough(curve, flow, near.unit * largest)
