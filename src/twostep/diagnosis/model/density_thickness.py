"""How a trained density falls off its data and along them: its thickness, and whether that is a manifold's.

Rows x are pushed by a length s both ways, along random unit vectors u and along those towards a neighbour,

    fall(s) = median of  log p(x) - ½ log p(x + s u) - ½ log p(x - s u)

    off     u uniform on the unit sphere
    along   u = (y - x) / ‖y - x‖,  y the nearest training row at a distance of s or more

in which gradients cancel: a Gaussian N(m, τ² I) falls by s² / 2τ² either way, wherever it is. A density that has
found a manifold of d < D dimensions has a thickness τ of its own there and falls by about (D - d) / D s² / 2τ² off it,
while along it hardly falls at all. The normaliser cancels too, so an energy will do.

The *thickness* is the s at which `off` reaches half a nat, the *reach* that at which `along` does. The slope of the
pushed log-density against log s, which is -d off / d log s, is about 0 below the thickness; above, it says how the
density's tails fall. The *contrast* (reach / thickness)² is held against that of a Gaussian with the data's covariance:
flat directions have a contrast, too, that is not the model's doing. The quotient of both is 0.8 to 1.1 for Gaussians,
however badly conditioned, mixtures and cubes of 2 to 20 dimensions, and at most 2.7 for the planar laws of
`data.synthetic` but one, an annulus (10). For laws on a circle blurred by 0.1, 0.03, 0.01, 0.001 of its radius it is
6, 21, 63, 620, so that 10 tells a density that is thinner than about a twentieth of its manifold.

Where it is wrong: flat data, of a lower linear rank, have a quotient of 1 or less, and their rank tells them; very
heavy tails fall off in directions that are not those of neighbours (a Student-t law of 1 degree of freedom in 20
dimensions has 40, of 3 degrees 4); a density with a peak at each training row, in many dimensions, is thin as well (a
kernel estimate in 20 dimensions: 18).

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from twostep.core.seeds import derive
from twostep.diagnosis.model.finding import Finding
from twostep.nn.distributions import mean_and_factor

LogProb = Callable[[Tensor], Tensor]

RUNGS = 13
DECADES = 6  # below the spread of the data
HALF = 0.5  # nats
SUSPECT = 10.0
TINY = 1e-12  # nats that are none
MOST = 1e9  # nats: where a density ends, it falls without end


@dataclass(frozen=True)
class Falls:
    """How a log-density falls when rows are pushed.

    Args:
        scales: lengths s, ascending, `(k,)`.
        off: fall in random directions, nats, `(k,)`.
        along: fall towards neighbours, nats, `(k,)`.
        spread: of the data, the root of their mean squared distance to the centre.
        contrast: (reach / thickness)² over that of a Gaussian with the data's covariance.
    """

    scales: Tensor
    off: Tensor
    along: Tensor
    spread: float
    contrast: float

    @property
    def thickness(self) -> float:
        """The s at which the density has fallen by half a nat off the data; an end of the scales if there is none."""
        return _half(self.scales, self.off)

    @property
    def reach(self) -> float:
        """The s at which it has fallen by half a nat along them; an end of the scales if there is none."""
        return _half(self.scales, self.along)

    @property
    def slopes(self) -> Tensor:
        """Slopes of the pushed log-density against log s between scales, `(k - 1,)`."""
        return -self.off.diff() / self.scales.log().diff()

    def finding(self) -> Finding:
        """Judge whether the density is thin for reasons of its own."""
        share = self.thickness / self.spread
        told = (
            f"half a nat is lost {self.thickness:.2g} off the data ({share:.1%} of their spread) and "
            f"{self.reach:.2g} along them, a contrast {self.contrast:.2g} times a Gaussian's"
        )
        advice = "the density is thin around a manifold: fit it on embeddings of fewer dimensions"
        numbers = {
            "thickness": self.thickness,
            "share_of_spread": share,
            "reach": self.reach,
            "contrast": self.contrast,
        }
        return Finding("thickness of the density", told, advice if self.contrast > SUSPECT else "", numbers)


def falls(log_prob: LogProb, rows: Tensor, train: Tensor, seed: int = 0) -> Falls:
    """Measure how a log-density falls around held-out rows.

    Args:
        log_prob: maps `(B, *S)` to `(B,)`, in nats; without gradients, in eval mode.
        rows: held-out, `(m, *S)`; 250 are enough.
        train: rows that neighbours are sought among, `(n, *S)`.
        seed: of the directions, and of what a bound draws.
    """
    spread = float((rows - rows.mean(0)).double().flatten(1).square().sum(1).mean().sqrt())
    scales = spread * torch.logspace(-DECADES, 0, RUNGS, dtype=torch.double)
    generator = torch.Generator().manual_seed(derive(seed, "directions"))
    random = torch.randn(rows.flatten(1).shape, generator=generator, dtype=torch.double)
    random /= random.norm(dim=1, keepdim=True)
    points, pool = rows.double().flatten(1), train.double().flatten(1)
    apart = torch.cdist(points, pool)

    def towards(s: float) -> Tensor:
        nearest = torch.where(apart >= s, apart, torch.inf).argmin(1)
        return torch.nn.functional.normalize(pool[nearest] - points, dim=1)

    def both(law: LogProb) -> list[Tensor]:
        steps = [[float(s) * random for s in scales], [float(s) * towards(float(s)) for s in scales]]
        draws = derive(seed, "draws")
        return [torch.tensor([_fall(law, rows, step, draws) for step in way], dtype=torch.double) for way in steps]

    off, along = both(log_prob)
    contrast, null = (_contrast(scales, *ways) for ways in ((off, along), both(_gaussian(pool))))
    return Falls(scales, off, along, spread, contrast / null)


def _half(scales: Tensor, values: Tensor) -> float:
    """Return the first s at which values reach half a nat, by a line in logs; an end of the scales if there is none."""
    fallen = values >= HALF
    first = int(fallen.int().argmax())
    if not bool(fallen.any()) or first == 0:
        return float(scales[0 if bool(fallen[0]) else -1])
    before, after = values[first - 1 : first + 1].clamp(min=TINY).log().tolist()
    low, high = scales[first - 1 : first + 1].log().tolist()
    return math.exp(low + (math.log(HALF) - before) / (after - before) * (high - low))


def _contrast(scales: Tensor, off: Tensor, along: Tensor) -> float:
    return (_half(scales, along) / _half(scales, off)) ** 2


def _fall(log_prob: LogProb, rows: Tensor, steps: Tensor, seed: int) -> float:
    pushes = steps.to(rows).view(rows.shape)
    with torch.no_grad(), torch.random.fork_rng([]):
        values: list[Tensor] = []
        for x in (rows, rows + pushes, rows - pushes):
            torch.manual_seed(seed)
            values.append(log_prob(x).double())
    known = values[0].isfinite()
    fallen = (values[0] - values[1] / 2 - values[2] / 2)[known].nan_to_num(nan=MOST).clamp(-MOST, MOST)
    return float(fallen.median()) if bool(known.any()) else 0.0


def _gaussian(pool: Tensor) -> LogProb:
    """Return the log-density of the Gaussian with mean and covariance of rows `(n, D)`."""
    mean, factor = mean_and_factor(pool)
    law = MultivariateNormal(mean, scale_tril=factor)

    def log_prob(x: Tensor) -> Tensor:
        return law.log_prob(x.double().flatten(1))

    return log_prob
