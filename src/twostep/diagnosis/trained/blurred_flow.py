"""A normalising flow of data that a noise of any scale has blurred: one density p_s(z) of z = x + s ε for all s.

The noise of a coordinate is independent of all others, so what is blurred stays so coordinate by coordinate,

    p_s(z) = prod_i p_s(z_i | z_<i),      p_s(z_i | z_<i) = ∫ p(x_i | z_<i, s) N(z_i; x_i, s²) dx_i

and with a mixture of Gaussians in the place of p(x_i | z_<i, s) each factor is

    sum_k w_k N(z_i; σ_i m_k, s² + σ_i² t_k²),      (w, m, t) = network(z_<i, log s),   σ_i: std of coordinate i

u_i = Φ⁻¹(F_i(z_i | z_<i)), with F_i the factor's distribution function, is the flow towards N(0, I): triangular, and
smooth, so that it has the second derivatives which splines lack. No factor is narrower than the noise: the density is
bounded at each s, by what s leaves to know. The coordinates are the principal ones, widest first; a Gaussian's
factors are then independent, and a direction in which the data don't vary costs nothing.

Small sets are overfitted soon. The weights are running means, and those are kept which gave validation rows the highest
log-density, in the mean over scales. Coupling splines are not used, as their second derivatives jump: FLIPD needs them.

Sources: RNADE (Uria et al., 2013, arXiv 1306.0186); MADE (Germain et al., 2015, arXiv 1502.03509); Neural
Autoregressive Flows (Huang et al., 2018, arXiv 1804.00779).
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import BoolTensor, Generator, Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn.functional import softplus
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from zuko.nn import MaskedMLP

FINEST, COARSEST = 0.02, 1.0  # scales of the noise, in stds of the data
HIDDEN = (128, 128, 128)
COMPONENTS = 8
SPREAD = 1.2  # of the components before training, in stds
FLAT = 1e-8  # variance that is taken for none
STEPS, BATCH, RATE, DECAY, AVERAGED = 3000, 256, 2e-3, 1e-2, 0.99
EVERY, PATIENCE = 100, 8  # steps from one look at the validation rows to the next, looks without gain
NOISES = 8  # scales at which each validation row is looked at


class BlurredFlow(nn.Module):
    """Density of blurred rows.

    Args:
        rows: those that give the principal coordinates, `(n, D)`.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(torch.cov(rows.double().T).view(rows.shape[1], -1))
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("axes", axes.flip(1).to(rows))
        self.register_buffer("variances", variances.flip(0).clamp(min=FLAT).to(rows))
        before = torch.ones(len(axes), len(axes)).tril(-1)
        seen = torch.cat([before, torch.ones(len(axes), 2)], 1).bool()
        adjacency = cast(BoolTensor, seen.repeat_interleave(3 * COMPONENTS, 0))
        self.network = MaskedMLP(adjacency, HIDDEN, nn.SiLU)
        self._spread(cast(nn.Linear, self.network[-1]))

    def log_prob(self, z: Tensor, scale: Tensor) -> Tensor:
        """Return the log-density of `z: (B, D)` at the scales `(B, 1)` of its noise, in nats, `(B,)`."""
        z, log_s = (z - self.mean) @ self.axes, scale.log()
        inputs = torch.cat([z / (self.variances + scale.square()).sqrt(), log_s, log_s.square() / 4], 1)
        logits, centres, widths = self.network(inputs).unflatten(1, (-1, 3, COMPONENTS)).unbind(2)
        stds = self.variances.sqrt()[:, None]
        noisy = (scale[:, :, None].square() + (stds * softplus(widths)).square()).sqrt()
        components = Normal(stds * centres, noisy, validate_args=False)
        mixture = MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)
        return mixture.log_prob(z).sum(1)

    @torch.no_grad()
    def _spread(self, last: nn.Linear) -> None:
        """Let all coordinates start as the same broad mixture."""
        last.weight.mul_(0.1)
        logits, centres = torch.zeros(COMPONENTS), torch.linspace(-SPREAD, SPREAD, COMPONENTS)
        last.bias.copy_(torch.cat([logits, centres, logits]).repeat(len(self.variances)))


def fitted_flow(train: Tensor, valid: Tensor, generator: Generator) -> BlurredFlow:
    """Fit the flow to rows `(n, D)` in float32, for scales from 0.02 to 1; validation rows choose the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        flow = BlurredFlow(train)
    averaged = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
    mean = cast(BlurredFlow, averaged.module)
    optimizer = torch.optim.AdamW(flow.parameters(), RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    judged = blurred(valid.repeat(NOISES, 1), generator)
    best, least, taken = copy.deepcopy(flow), math.inf, 0
    for step in range(1, STEPS + 1):
        x = train[torch.randint(len(train), (BATCH,), generator=generator)]
        optimizer.zero_grad()
        _loss(flow, *blurred(x, generator)).backward()
        optimizer.step()
        schedule.step()
        averaged.update_parameters(flow)
        if step % EVERY:
            continue
        with torch.no_grad():
            loss = float(_loss(mean, *judged))
        if loss < least:
            best, least, taken = copy.deepcopy(mean), loss, step
        elif step >= taken + PATIENCE * EVERY:
            break
    return best.requires_grad_(False)


def blurred(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return rows `(B, D)` with noise added, and its scales, `(B, 1)`, each drawn evenly in log s."""
    s = COARSEST * (FINEST / COARSEST) ** torch.rand(len(x), 1, generator=generator)
    return x + s * torch.randn(x.shape, generator=generator), s


def _loss(flow: BlurredFlow, z: Tensor, scale: Tensor) -> Tensor:
    return -flow.log_prob(z, scale).mean()
