"""Noise ladder of a trained model: how many dimensions of a noise can't be told, at each of its scales.

With z = x + s ε and ε ~ N(0, I_D), de Bruijn's identity gives the slope of the mean log-density of blurred data:

    d E log p_s(z) / d log s = -s² E ‖∇ log p_s(z)‖² = -(D - d(s)),   d(s) = E ‖ε - E[ε | z]‖²

The noise across a manifold is known from z, the noise along it is not: for s -> 0, d(s) is d on a manifold of d
dimensions, and D for a law that fills the space. Any function ε̂(z, s) in the place of E[ε | z] gives an upper bound on
d(s), an honest one on held-out rows. Here, on whitened rows,

    ε̂ = s z / (1 + s²) + a(s) [f(z, q/s, s) + sum_k g_k(z, q/s, s) (q_k/s) ∇q_k],   q_k(z): the thinnest quadrics

The first term is exact for a Gaussian: the ladder starts from a law without a manifold. f and g are one small network,
a(s) in [0, 1] is fitted to validation rows, scale by scale, so that a network that has overfitted is worth no less than
the Gaussian. What is told are the *missing* dimensions D - d(s), a lower bound, and their limit for s -> 0 by the two
smallest scales: on a manifold they are constant there, edges of a full law make them grow like s.

A denoiser stands where a flow conditioned on s might: for Gaussian noise both have the same slope, and a denoiser's
error has a known sign. An undertrained network misses a manifold, and finds none that is not there.

Sources: Some Inequalities Satisfied by the Quantities of Information of Fisher and Shannon (Stam, 1959); LIDL (Tempczyk
et al., 2022, arXiv 2206.14882); FLIPD (Kamkari et al., 2024, arXiv 2406.03537).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from twostep.core.seeds import derive
from twostep.diagnosis.overfitting.quadrics import Quadrics, thinnest_quadrics
from twostep.nn.mlp import MLP

SCALES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
HIDDEN = (128, 128, 128)
STEPS, BATCH, RATE, DECAY = 2500, 256, 2e-3, 1e-2
NOISES = 20  # for each row that the ladder is measured on
CUT = 3.0  # stds of the noise
Z95 = 1.96


@dataclass(frozen=True)
class Missing:
    """Dimensions that the data lack at one scale, by what a denoiser knows of the noise.

    Args:
        scale: std of the noise, in stds of the whitened data.
        value: D - d(s), a lower bound up to its error.
        error: its standard error.
    """

    scale: float
    value: float
    error: float


@dataclass(frozen=True)
class TrainedLadder:
    """The ladder of a denoiser.

    Args:
        rungs: from small scales to large ones.
        dim: number of whitened coordinates D.
    """

    rungs: tuple[Missing, ...]
    dim: int

    @property
    def limit(self) -> tuple[float, float]:
        """The 95 % interval of the missing dimensions as the scale goes to 0."""
        first, second = self.rungs[:2]
        step = second.scale / first.scale
        value = (step * first.value - second.value) / (step - 1)
        error = math.hypot(step * first.error, second.error) / (step - 1)
        return value - Z95 * error, value + Z95 * error


class Denoiser(nn.Module):
    """What is known of the noise in `z = x + s ε`; `(B, D), (B, 1) -> (B, D)`, without the Gaussian's part."""

    def __init__(self, dim: int, quadrics: Quadrics) -> None:
        super().__init__()
        self.quadrics, self.dim = quadrics, dim
        count = len(quadrics.constants)
        self.net = MLP(dim + count + 2, HIDDEN, dim + count, "swish")
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        """Return what is added to the Gaussian's estimate."""
        values, gradients = self.quadrics.values(z)
        relative, log_s = values / s, s.log()
        out = self.net(torch.cat([z, relative.asinh(), log_s, log_s.square() / 4], 1))
        weights = out[:, self.dim :] * relative.clamp(-CUT, CUT)
        return out[:, : self.dim] + (weights[:, :, None] * gradients).sum(1)


def trained_ladder(points: Tensor, seed: int = 0) -> TrainedLadder:
    """Train a denoiser on seven tenths of whitened points `(n, D)` and measure it on the last fifteenth."""
    generator = torch.Generator().manual_seed(derive(seed, "denoiser"))
    rows = points[torch.randperm(len(points), generator=generator)].float()
    held = max(1, round(0.15 * len(rows)))
    train, valid, test = rows.split([len(rows) - 2 * held, held, held])
    model = _trained(train, generator)
    return TrainedLadder(tuple(_measured(model, valid, test, s, generator) for s in SCALES), points.shape[1])


def _trained(rows: Tensor, generator: Generator) -> Denoiser:
    fitted = thinnest_quadrics(rows.double())
    quadrics = Quadrics(fitted.squares.float(), fitted.linear.float(), fitted.constants.float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        model = Denoiser(rows.shape[1], quadrics)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        x = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        s = SCALES[0] ** torch.rand(BATCH, 1, generator=generator)
        noise, z = _blurred(x, s, generator)
        loss = (noise - _gaussian(z, s) - model(z, s)).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def _measured(model: Denoiser, valid: Tensor, test: Tensor, scale: float, generator: Generator) -> Missing:
    left, known = _parts(model, valid, scale, generator)
    share = ((left * known).sum() / known.square().sum().clamp(min=1e-12)).clamp(0, 1)
    left, known = _parts(model, test, scale, generator)
    # ‖ε‖² - ‖ε - ε̂‖² in the mean of each row, whose first part is of the Gaussian and known without noise
    gained = (2 * share * (left * known).sum(1) - share**2 * known.square().sum(1)).view(NOISES, -1).mean(0)
    known_to_gaussian = test.shape[1] * scale**2 / (1 + scale**2)
    return Missing(scale, float(gained.mean()) + known_to_gaussian, float(gained.std()) / math.sqrt(len(gained)))


def _parts(model: Denoiser, rows: Tensor, scale: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return what the Gaussian leaves of the noise, and what the network says of that, `(NOISES * n, D)`."""
    x = rows.repeat(NOISES, 1)
    s = torch.full((len(x), 1), scale)
    noise, z = _blurred(x, s, generator)
    return noise - _gaussian(z, s), model(z, s)


def _blurred(x: Tensor, s: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    noise = torch.randn(x.shape, generator=generator)
    return noise, x + s * noise


def _gaussian(z: Tensor, s: Tensor) -> Tensor:
    return s * z / (1 + s.square())
