"""Missing dimensions by a trained denoiser: how much of the noise it can predict, over the scale of the noise.

With z = x + s ε and ε ~ N(0, I_D), de Bruijn's identity gives the slope of the mean log-density of the noisy data:

    d E log p_s(z) / d log s = -s² E ‖∇ log p_s(z)‖² = -(D - d(s)),   d(s) = E ‖ε - E[ε | z]‖²

The noise across a manifold is known from z, the noise along it is not: for s -> 0, d(s) is d on a manifold of d
dimensions, and D for full-dimensional distributions. Any function ε̂(z, s) in place of E[ε | z] gives an upper bound on
d(s) on held-out rows, so an undertrained network finds no manifold where there is none. Here, on whitened rows,

    ε̂ = s z / (1 + s²) + a(s) [f(z, q/s, s) + sum_k g_k(z, q/s, s) (q_k/s) ∇q_k],   q_k(z): the thinnest quadrics

The first term is exact for a Gaussian. f and g are one small network; a(s) in [0, 1] is fitted to validation rows, so
that a network that has overfitted does no worse than the Gaussian. The results are the *missing* dimensions D - d(s), a
lower bound, and their limit for s -> 0 from the two smallest scales: on a manifold they are constant there, edges of a
full-dimensional distribution make them grow like s.

Sources: Some Inequalities Satisfied by the Quantities of Information of Fisher and Shannon (Stam, 1959); LIDL (Tempczyk
et al., 2022, arXiv 2206.14882); FLIPD (Kamkari et al., 2024, arXiv 2406.03537).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from twostep.core.estimate import Estimate
from twostep.core.seeds import derive
from twostep.diagnosis.overfitting.quadrics import Quadrics, thinnest_quadrics
from twostep.nn.mlp import MLP

SCALES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""Stds of the noise, in stds of the whitened data."""
HIDDEN = (128, 128, 128)
STEPS, BATCH, RATE, DECAY = 2500, 256, 2e-3, 1e-2
HELD_OUT = 0.15  # of the rows, for validation and again for the test
NOISES = 20  # for each row of the test
CUT = 3.0  # stds of the noise


@dataclass(frozen=True)
class MissingDimensions:
    """Dimensions D - d(s) that data of D whitened coordinates lack, lower bounds, at ascending scales of the noise."""

    scales: tuple[float, ...]
    missing: tuple[Estimate, ...]
    dim: int

    @property
    def limit(self) -> Estimate:
        """The missing dimensions as the scale goes to 0."""
        (first, second), step = self.missing[:2], self.scales[1] / self.scales[0]
        value = (step * first.value - second.value) / (step - 1)
        error = math.hypot(step * first.standard_error, second.standard_error) / (step - 1)
        return Estimate.normal(value, error)


class Denoiser(nn.Module):
    """Prediction of the noise in `z = x + s ε` beyond the Gaussian's; `(B, D), (B, 1) -> (B, D)`."""

    def __init__(self, dim: int, quadrics: Quadrics) -> None:
        super().__init__()
        self.quadrics, self.dim = quadrics, dim
        count = len(quadrics.constants)
        self.net = MLP(dim + count + 2, HIDDEN, dim + count, "swish")
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        """Predict the rest of the noise."""
        values, gradients = self.quadrics.values(z)
        relative, log_s = values / s, s.log()
        out = self.net(torch.cat([z, relative.asinh(), log_s, log_s.square() / 4], 1))
        weights = out[:, self.dim :] * relative.clamp(-CUT, CUT)
        return out[:, : self.dim] + (weights[:, :, None] * gradients).sum(1)


def missing_dimensions(points: Tensor, seed: int = 0) -> MissingDimensions:
    """Train a denoiser on 70 % of whitened points `(n, D)` and test it on 15 %."""
    generator = torch.Generator().manual_seed(derive(seed, "denoiser"))
    rows = points[torch.randperm(len(points), generator=generator)].float()
    held = max(1, round(HELD_OUT * len(rows)))
    train, valid, test = rows.split([len(rows) - 2 * held, held, held])
    model = _train(train, generator)
    missing = tuple(_missing_at(model, valid, test, s, generator) for s in SCALES)
    return MissingDimensions(SCALES, missing, points.shape[1])


def _train(rows: Tensor, generator: Generator) -> Denoiser:
    quadrics = Quadrics(*(part.float() for part in thinnest_quadrics(rows.double())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        model = Denoiser(rows.shape[1], quadrics)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        x = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        s = SCALES[0] ** torch.rand(BATCH, 1, generator=generator)
        left, predicted = _residuals(model, x, s, generator)
        loss = (left - predicted).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def _missing_at(model: Denoiser, valid: Tensor, test: Tensor, scale: float, generator: Generator) -> Estimate:
    s = torch.full((NOISES * len(test), 1), scale)
    left, predicted = _residuals(model, valid.repeat(NOISES, 1), s, generator)
    share = ((left * predicted).sum() / predicted.square().sum().clamp(min=1e-12)).clamp(0, 1)
    left, predicted = _residuals(model, test.repeat(NOISES, 1), s, generator)
    # ‖ε‖² - ‖ε - ε̂‖², averaged for each row; the Gaussian's contribution is known exactly
    gain = (2 * share * (left * predicted).sum(1) - share**2 * predicted.square().sum(1)).view(NOISES, -1).mean(0)
    of_gaussian = test.shape[1] * scale**2 / (1 + scale**2)
    return Estimate.normal(float(gain.mean()) + of_gaussian, float(gain.std()) / math.sqrt(len(gain)))


def _residuals(model: Denoiser, x: Tensor, s: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return what the Gaussian leaves of noise of stds s `(B, 1)`, and the network's prediction of that, `(B, D)`."""
    noise = torch.randn(x.shape, generator=generator)
    z = x + s * noise
    return noise - s * z / (1 + s.square()), model(z, s)
