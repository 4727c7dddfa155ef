"""Noise ladder of a normalised density: how many dimensions the data have at each scale, by one flow for all scales.

p_s is the density of z = x + s ε, ε ~ N(0, I_D). By the heat equation ∂p_s/∂s = s ∇²p_s the same d(s) is

    LIDL:   D + ∂ log p_s(x) / ∂ log s
    FLIPD:  D + s² (tr ∇² log p_s(x) + ‖∇ log p_s(x)‖²)                 in the mean over rows x of the data

at any point and for every law. Where and how the first is taken matters. For N(0, I_d) in R^D

    log p_s(z) = -d/2 log(1 + s²) - (D - d) log s - ‖z_∥‖²/(2 (1 + s²)) - ‖z_⊥‖²/(2 s²) + const

and with E ‖z_∥‖² = d at data points, d (1 + s²) at blurred ones, where E ‖z_⊥‖² = (D - d) s²,

    at fixed x, a row of the data           d (1 + 2s²)/(1 + s²)² = d (1 - s⁴/(1 + s²)²)
    of the mean E log p_s(x + s ε)          d/(1 + s²)            = d (1 - s²/(1 + s²))
    at fixed z = x + s ε                    D, whatever d is: E_{p_s} ∂ log p_s/∂s = ∂/∂s ∫ p_s = 0 for every law

The last is wrong. The first, by autograd through the flow's knowledge of s, is wrong by the fourth power of s and the
second by its square, so that a plateau is wider by the first, which is taken. It is what LIDL's regression over models
does, without their independent errors, and it has the same value as FLIPD. For a flow this holds only where it fits:
their gap, which is told, is of the fit alone. The second can be had from the mean held-out log-densities.

The dimension is read off the steadiest rung: where d(s) differs least from that of either neighbour, gap added. A flow
sees less and less of a manifold below the scale that its rows tell, and d(s) goes up to D there; at the scale of
curvature and extent it goes another way. So there may be no plateau, and then there is no dimension: 2,000 rows of a
network's 5-dimensional manifold in R^20 have none, while neighbours find 5. A flow that misses a manifold altogether
has one at D, so has noise above the finest scale (dequantised digits): what is read is rather too high than too low.

Intervals are of the mean over held-out rows; they know nothing of the flow's own error, of which the gap tells.

Sources: LIDL: Local Intrinsic Dimension Estimation Using Approximate Likelihood (Tempczyk et al., 2022, arXiv
2206.14882); A Geometric View of Data Complexity (Kamkari et al., 2024, arXiv 2406.03537).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.autograd import grad

from twostep.core.seeds import derive
from twostep.diagnosis.trained.blurred_flow import BlurredFlow, fitted_flow

SCALES = (0.03, 0.05, 0.08, 0.13, 0.22, 0.36, 0.6, 1.0)
HELD_OUT = 0.15  # of the rows, to choose weights, and again to measure
POINTS = 400  # at which is measured
STEADY = 0.1  # of d(s): change and gap at a rung that is read
FEW = 2.5  # dimensions up to which a quarter of one is steady enough
Z95 = 1.96


@dataclass(frozen=True)
class Reading:
    """A dimension and its 95 % interval.

    Args:
        value: mean over held-out rows.
        low: lower end.
        high: higher end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FlowRung:
    """The blurred data at one scale.

    Args:
        scale: std s of the noise, in units of the rows.
        lidl: d(s) by the slope of the log-density over log s.
        flipd: d(s) by its first two derivatives over the coordinates.
        log_density: of held-out rows with noise, in the mean, in nats.
    """

    scale: float
    lidl: Reading
    flipd: Reading
    log_density: float

    @property
    def gap(self) -> float:
        """What LIDL and FLIPD differ by; 0 for a flow that fits."""
        return abs(self.lidl.value - self.flipd.value)


@dataclass(frozen=True)
class FlowLadder:
    """The curve d(s) of a flow.

    Args:
        rungs: from small scales to large ones.
        dim: number of coordinates D.
    """

    rungs: tuple[FlowRung, ...]
    dim: int

    @property
    def plateau(self) -> FlowRung | None:
        """The steadiest rung; None if none is steady."""
        best = min(range(1, len(self.rungs) - 1), key=self._unsteady)
        return self.rungs[best] if self._unsteady(best) <= STEADY else None

    @property
    def dimension(self) -> Reading | None:
        """LIDL's dimension at the plateau, with an interval that holds those of both; None without a plateau."""
        rung = self.plateau
        if rung is None:
            return None
        low, high = min(rung.lidl.low, rung.flipd.low), max(rung.lidl.high, rung.flipd.high)
        return Reading(rung.lidl.value, low, high)

    def _unsteady(self, index: int) -> float:
        before, rung, after = self.rungs[index - 1 : index + 2]
        value = rung.lidl.value
        change = max(abs(value - before.lidl.value), abs(value - after.lidl.value))
        return (change + rung.gap) / max(value, FEW)


def flow_ladder(points: Tensor, seed: int = 0) -> FlowLadder:
    """Fit a flow to 70 % of rows `(n, D)` with stds of 1 or less, choose its weights by 15 %, measure it on 15 %."""
    generator = torch.Generator().manual_seed(derive(seed, "noise flow"))
    rows = points[torch.randperm(len(points), generator=generator)].float()
    held = max(2, round(HELD_OUT * len(rows)))
    train, valid, test = rows.split([len(rows) - 2 * held, held, held])
    flow = fitted_flow(train, valid, generator)
    return FlowLadder(tuple(_measured(flow, test[:POINTS], s, generator) for s in SCALES), points.shape[1])


def _measured(flow: BlurredFlow, rows: Tensor, scale: float, generator: Generator) -> FlowRung:
    s = torch.full((len(rows), 1), scale)
    noisy = flow.log_prob(rows + s * torch.randn(rows.shape, generator=generator), s)
    lidl, flipd = dimensions(flow, rows, s)
    return FlowRung(scale, _reading(lidl), _reading(flipd), float(noisy.mean()))


def dimensions(flow: BlurredFlow, rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return d(s) at single rows `(B, D)` by LIDL and by FLIPD, `(B,)` each, for scales `(B, 1)`."""
    x, log_s = rows.clone().requires_grad_(), scale.log().requires_grad_()
    slope, score = grad(flow.log_prob(x, log_s.exp()).sum(), (log_s, x), create_graph=True)
    trace = torch.zeros(len(x))
    for k in range(x.shape[1]):
        trace += grad(score[:, k].sum(), x, retain_graph=True)[0][:, k]
    flipd = x.shape[1] + scale[:, 0].square() * (trace + score.detach().square().sum(1))
    return x.shape[1] + slope.detach()[:, 0], flipd


def _reading(values: Tensor) -> Reading:
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    return Reading(mean, mean - Z95 * error, mean + Z95 * error)
