"""Normalisers of energies by annealed importance sampling, from below and from above.

    f_β(y) = q(y)^(1-β) exp(-β E(y)),   0 = β_0 < ... < β_T = 1,   Z = ∫ exp(-E)

    forward:  y_0 ~ q, each y_t from y_(t-1) by a kernel that leaves f_(β_t) as it is,
              log w = Σ_t (β_t - β_(t-1)) (-E - log q)(y_(t-1)),            E w = Z,      log mean w  <~ log Z
    reverse:  y_T ~ exp(-E) / Z, and down the same way with the same sum,   E 1/w = 1/Z, -log mean 1/w >~ log Z

By Jensen's inequality the first is a lower and the second an upper bound in the mean, up to the randomness of a mean of
few weights. The upper one holds as far as its first points follow the energy; here they are samples of the
model that further moves bring nearer to it. q is a Gaussian mixture that is fitted to other samples, and the kernel a
step of Hamiltonian Monte Carlo with a Metropolis test, whose lengths a pilot run has found. A mode without a
sample is missing from both bounds.

Sources: Annealed importance sampling (Neal, 2001); Sandwiching the marginal likelihood using bidirectional Monte Carlo
(Grosse et al., 2015, arXiv 1511.02543).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from twostep.nn.distributions import fitted_mixture, mean_and_factor

LEAPS = 3  # of a step of the kernel
ACCEPTED = 0.8  # share of steps that the pilot aims at
PILOT = 100  # chains

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LogNormalizer:
    """Estimates of `log Z` in nats from below and from above, with standard errors, by as many chains each way."""

    lower: float
    lower_error: float
    upper: float
    upper_error: float
    chains: int

    @property
    def value(self) -> float:
        """The middle of the two."""
        return (self.lower + self.upper) / 2

    @property
    def standard_error(self) -> float:
        """Of the middle: what the two errors make, and half of the gap."""
        return math.hypot(self.lower_error, self.upper_error, self.upper - self.lower) / 2

    def line(self) -> str:
        """Return both bounds in words."""
        below, above = f"{self.lower:.6g} ± {self.lower_error:.2g}", f"{self.upper:.6g} ± {self.upper_error:.2g}"
        rests = f"from below {below}; from above {above}, as far as samples follow the energy"
        return f"log Z {self.value:.6g} ± {self.standard_error:.2g} nats ({self.chains:,} chains each way; {rests})"


def log_normalizer(energy: LogDensity, samples: Tensor, temperatures: int, seed: int) -> LogNormalizer:
    """Estimate `log ∫ exp(-E)` by chains of T steps, the number of temperatures.

    Args:
        energy: maps points `(n, *S)` to energies `(n,)`; infinite where the density is 0.
        samples: points `(2n, *S)` that nearly follow the energy; every other one is where a reverse chain
            begins, to the rest q is fitted.
    """
    shape, flat = samples.shape[1:], samples.flatten(1)
    mean, factor = mean_and_factor(flat)
    unit = torch.linalg.solve_triangular(factor.T, flat - mean, upper=True, left=False)
    q, start = fitted_mixture(unit[::2], seed), unit[1::2]
    volume = factor.diagonal().log().sum()
    path = AnnealedPath(q.log_prob, lambda u: volume - energy((mean + u @ factor.T).unflatten(1, shape)))
    start = start[path.log_p(start).isfinite()]  # rounding takes some at the edge of a box out of it
    betas = torch.linspace(0, 1, temperatures + 1).tolist()
    with torch.random.fork_rng([samples.device] if samples.is_cuda else []):
        torch.manual_seed(seed)
        stops = list(zip(betas, path.pilot(q.sample(torch.Size([PILOT])), betas), strict=True))
        drawn = q.sample(torch.Size([len(start)]))
        inside = path.log_p(drawn).isfinite().double().mean()  # of q: reverse chains never see the rest
        lower, lower_error = _log_mean(path.log_weights(drawn, stops))
        for _ in range(temperatures // 4):
            start, _ = path.moved(start, *stops[-1])
        upper, upper_error = _log_mean(path.log_weights(start, stops[::-1]))
    return LogNormalizer(lower, lower_error, float(inside.log()) - upper, upper_error, len(start))


@dataclass(frozen=True)
class AnnealedPath:
    """The distributions between q and p, whose log-densities `(n, d) -> (n,)` need not be normalised."""

    log_q: LogDensity
    log_p: LogDensity

    def log_weights(self, u: Tensor, stops: list[tuple[float, float]]) -> Tensor:
        """Return the log-weights `(n,)` of chains that begin at `u` and move along (β, length of a step)."""
        total = u.new_zeros(len(u), dtype=torch.float64)
        for (beta, _), (following, length) in pairwise(stops):
            total += (following - beta) * (self.log_p(u) - self.log_q(u)).double()
            if 0 < following < 1:  # at the ends of the path no weight follows a move
                u, _ = self.moved(u, following, length)
        return total

    def moved(self, u: Tensor, beta: float, length: float) -> tuple[Tensor, float]:
        """Return where a Hamiltonian step at β takes chains `(n, d)`, and the share that was accepted."""
        length *= float(torch.rand(())) / 2 + 0.5  # or steps of half a period would not mix
        momentum = torch.randn_like(u)
        before, slope = self._at(u, beta)
        end, p, after = u, momentum, before
        for _ in range(LEAPS):
            p = p + length / 2 * slope
            end = end + length * p
            after, slope = self._at(end, beta)
            p = p + length / 2 * slope
        gain = after - before + (momentum.square() - p.square()).sum(1) / 2
        accepted = torch.rand_like(gain).log() < gain
        return torch.where(accepted[:, None], end, u), float(accepted.float().mean())

    def pilot(self, u: Tensor, betas: list[float]) -> list[float]:
        """Return the length of a step at each β that has `ACCEPTED` steps accepted, from chains that begin at `u`."""
        length = u.shape[1] ** -0.25
        lengths = [length]
        for beta in betas[1:]:
            for _ in range(2):
                u, accepted = self.moved(u, beta, length)
                length *= math.exp(accepted - ACCEPTED)
            lengths.append(length)
        return lengths

    @torch.enable_grad()
    def _at(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Return log f_β `(n,)` and its slope `(n, d)`."""
        u = u.detach().requires_grad_()
        value = (1 - beta) * self.log_q(u) + beta * self.log_p(u)
        return value.detach(), torch.autograd.grad(value.sum(), u)[0]


def _log_mean(log_weights: Tensor) -> tuple[float, float]:
    """Return the log of the mean of weights `(n,)`, and its standard error."""
    largest = log_weights.max()
    weights = (log_weights - largest).exp()
    error = weights.std() / weights.mean() / math.sqrt(len(weights))
    return float(largest + weights.mean().log()), float(error)
