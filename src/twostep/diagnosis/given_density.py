"""How a trained density falls off its data and along them: its thickness, and whether that is a manifold's.

Rows x are pushed by a length s both ways, along random unit vectors u and along those towards a neighbour,

    fall(s) = median of  log p(x) - ½ log p(x + s u) - ½ log p(x - s u)

    off     u uniform on the unit sphere
    along   u = (y - x) / ‖y - x‖,  y the nearest training row at a distance of s or more

in which gradients cancel: a Gaussian N(m, τ² I) falls by s² / 2τ² either way, wherever it is. A density that has
found a manifold of d < D dimensions has a thickness τ of its own there and falls by about (D - d) / D s² / 2τ² off it,
while along it hardly falls at all. The normaliser cancels too, so an energy will do.

The *thickness* is the s at which `off` reaches half a nat. The slope of the pushed log-density against log s, which is
-d off / d log s, is about 0 below it; above, it says how the density's tails fall. The *contrast* off / along at the
thickness is held against that of a Gaussian with the data's covariance: flat directions have a contrast, too, that is
not the model's doing. On laws that fill their space the quotient of both is about 1 (0.8 to 1.1 for Gaussians, however
badly conditioned, and mixtures of 2 to 20 dimensions). For the law of points on a circle blurred by 0.1, 0.03, 0.01 of
its radius it is 9, 84, 800. Data on a flat subspace have a quotient of 1; their linear rank tells them. Data with
noise as thick as the density's have one between, as neighbours then lie off the manifold, too.

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

from twostep.diagnosis.findings import Finding
from twostep.distributions import mean_and_factor
from twostep.seeds import derive

LogProb = Callable[[Tensor], Tensor]

RUNGS = 13
DECADES = 6  # below the spread of the data
HALF = 0.5  # nats
LEAST_ALONG = 1e-3  # of the fall off the data, so that no contrast is infinite
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
        contrast: off / along at the thickness, over that of a Gaussian with the data's covariance.
    """

    scales: Tensor
    off: Tensor
    along: Tensor
    spread: float
    contrast: float

    @property
    def thickness(self) -> float:
        """The s at which the density has fallen by half a nat, by a line in logs; an end of the scales if none has."""
        fallen = self.off >= HALF
        if not bool(fallen.any()) or bool(fallen[0]):
            return float(self.scales[self.rung])
        before, after = (float(self.off[rung].clamp(min=TINY).log()) for rung in (self.rung - 1, self.rung))
        low, high = (float(self.scales[rung].log()) for rung in (self.rung - 1, self.rung))
        return math.exp(low + (math.log(HALF) - before) / (after - before) * (high - low))

    @property
    def rung(self) -> int:
        """The first scale at which it has fallen by half a nat; the last if none."""
        fallen = self.off >= HALF
        return int(fallen.int().argmax()) if bool(fallen.any()) else len(fallen) - 1

    @property
    def slopes(self) -> Tensor:
        """Slopes of the pushed log-density against log s between scales, `(k - 1,)`."""
        return -self.off.diff() / self.scales.log().diff()

    def finding(self) -> Finding:
        """Judge whether the density is thin for reasons of its own."""
        share = self.thickness / self.spread
        told = (
            f"half a nat is lost {self.thickness:.2g} off the data ({share:.1%} of their spread); off them it falls "
            f"{self.contrast:.2g} times as fast as along them, by the measure of a Gaussian"
        )
        advice = "the density is thin around a manifold: an autoencoder and a density on its embeddings"
        numbers = {"thickness": self.thickness, "share_of_spread": share, "contrast": self.contrast}
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

    def measure(law: LogProb, steps: Tensor) -> float:
        return _fall(law, rows, steps, derive(seed, "draws"))

    off = torch.tensor([measure(log_prob, float(s) * random) for s in scales], dtype=torch.double)
    along = torch.tensor([measure(log_prob, float(s) * towards(float(s))) for s in scales], dtype=torch.double)
    found = Falls(scales, off, along, spread, math.nan)
    s = float(scales[found.rung])
    gaussian = _gaussian(pool)
    null = [measure(gaussian, s * steps) for steps in (random, towards(s))]
    contrast = _contrast(float(off[found.rung]), float(along[found.rung])) / _contrast(*null)
    return Falls(scales, off, along, spread, contrast)


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


def _contrast(off: float, along: float) -> float:
    return off / max(along, LEAST_ALONG * off) if off > 0 else 1.0
