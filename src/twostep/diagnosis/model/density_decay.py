"""How a trained density decays off its data and along them: its thickness, and whether that is a manifold's.

Rows x are moved by a distance s both ways, along random unit vectors u (*off*) and towards a training row at a distance
of s or more (*along*),

    decay(s) = median of  log p(x) - ½ log p(x + s u) - ½ log p(x - s u)

in which gradients and the normaliser cancel: a Gaussian N(m, τ² I) decays by s² / 2τ² either way. A density that has
found a manifold of d < D dimensions has a thickness τ of its own there and decays by about (D - d) / D s² / 2τ² off it,
while along it hardly decays at all.

The *thickness* is the s at which `off` reaches half a nat, the *reach* that at which `along` does. The *contrast*
(reach / thickness)² is divided by that of a Gaussian with the data's covariance, because flat directions have one too:
0.8 to 2.7 for full-dimensional distributions, 6 to 620 on a circle with noise of 0.1 to 0.001 of its radius. Very heavy
tails, kernel estimates in 20 dimensions and an annulus reach 10 as well.

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

SCALES = 13
DECADES = 6  # below the rms radius of the data
HALF = 0.5  # nats
SUSPECT = 10.0
TINY = 1e-12  # nats that count as none
MOST = 1e9  # nats: where the support ends, the decay is infinite


@dataclass(frozen=True)
class DensityDecay:
    """Decay in nats, `off` and `along` the data, over ascending distances `scales`, each `(k,)`.

    `thickness` and `reach` are the distances of half a nat off and along the data, or an end of the scales.
    """

    scales: Tensor
    off: Tensor
    along: Tensor
    thickness: float
    reach: float
    rms_radius: float
    contrast: float

    def finding(self) -> Finding:
        """Assess whether the density is thinner than the data's covariance explains."""
        share = self.thickness / self.rms_radius
        text = (
            f"it decays by half a nat {self.thickness:.2g} off the data ({share:.1%} of their rms radius) and "
            f"{self.reach:.2g} along them, a contrast {self.contrast:.2g} times a Gaussian's"
        )
        advice = "the density concentrates on a manifold: fit it on embeddings of fewer dimensions"
        numbers = {"thickness": self.thickness, "share_of_spread": share}
        numbers |= {"reach": self.reach, "contrast": self.contrast}
        return Finding("thickness of the density", text, advice if self.contrast > SUSPECT else "", numbers)


def density_decay(log_prob: LogProb, rows: Tensor, train: Tensor, seed: int = 0) -> DensityDecay:
    """Measure how a log-density decays around held-out rows `(m, *S)`; 250 are enough.

    `log_prob` maps `(B, *S)` to `(B,)`, in nats, and neighbours are sought among training rows `(n, *S)`.
    """
    rms_radius = float((rows - rows.mean(0)).double().flatten(1).square().sum(1).mean().sqrt())
    scales = rms_radius * torch.logspace(-DECADES, 0, SCALES, dtype=torch.double)
    generator = torch.Generator().manual_seed(derive(seed, "directions"))
    random = torch.randn(rows.flatten(1).shape, generator=generator, dtype=torch.double)
    random /= random.norm(dim=1, keepdim=True)
    points, pool = rows.double().flatten(1), train.double().flatten(1)
    apart = torch.cdist(points, pool)

    def towards(s: float) -> Tensor:
        nearest = torch.where(apart >= s, apart, torch.inf).argmin(1)
        return torch.nn.functional.normalize(pool[nearest] - points, dim=1)

    steps = [[float(s) * random for s in scales], [float(s) * towards(float(s)) for s in scales]]
    draws = derive(seed, "draws")

    def decays(log_prob: LogProb) -> list[Tensor]:
        values = [[_decay(log_prob, rows, step, draws) for step in way] for way in steps]
        return [torch.tensor(way, dtype=torch.double) for way in values]

    off, along = decays(log_prob)
    thickness, reach = _half(scales, off), _half(scales, along)
    mean, factor = mean_and_factor(pool)
    gaussian = MultivariateNormal(mean, scale_tril=factor)

    def gaussian_log_prob(x: Tensor) -> Tensor:
        return gaussian.log_prob(x.double().flatten(1))

    thickness_of_gaussian, reach_of_gaussian = (_half(scales, values) for values in decays(gaussian_log_prob))
    contrast = (reach / thickness) ** 2 / (reach_of_gaussian / thickness_of_gaussian) ** 2
    return DensityDecay(scales, off, along, thickness, reach, rms_radius, contrast)


def _half(scales: Tensor, values: Tensor) -> float:
    """Return the first s at which values reach half a nat, log-log linearly."""
    decayed = values >= HALF
    first = int(decayed.int().argmax())
    if not bool(decayed.any()) or first == 0:
        return float(scales[0 if bool(decayed[0]) else -1])
    before, after = values[first - 1 : first + 1].clamp(min=TINY).log().tolist()
    low, high = scales[first - 1 : first + 1].log().tolist()
    return math.exp(low + (math.log(HALF) - before) / (after - before) * (high - low))


def _decay(log_prob: LogProb, rows: Tensor, steps: Tensor, seed: int) -> float:
    moves = steps.to(rows).view(rows.shape)
    with torch.no_grad(), torch.random.fork_rng([]):
        values: list[Tensor] = []
        for x in (rows, rows + moves, rows - moves):
            torch.manual_seed(seed)
            values.append(log_prob(x).double())
    known = values[0].isfinite()
    decays = (values[0] - values[1] / 2 - values[2] / 2)[known].nan_to_num(nan=MOST).clamp(-MOST, MOST)
    return float(decays.median()) if bool(known.any()) else 0.0
