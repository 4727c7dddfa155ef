"""Flow matching: error of its log-density by the number of nodes, seconds, and the standard error of Hutchinson's.

Networks of the default size, trained on mixtures of Gaussians in 2, 20 and 64 dimensions. The reference has 128 nodes.
`rough` is the quadrature by every other node, whose distance from all nodes says when a row needs more of them
(`GAIN` in `nn/ode.py`). Seconds are of all cores, the least of some rounds; the plain divergence is that of
`vmap(jvp)`, timed in turn.

    python benchmarks/flow_matching.py [dimension ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

import twostep
from twostep.core.schema import DataSpec
from twostep.models.base import evaluating
from twostep.models.fm import FlowMatching, FlowMatchingConfig
from twostep.nn import ode
from twostep.nn.distributions import standard_normal_log_prob

DIMENSIONS = (2, 20, 64)
ROWS, STEPS, BATCH = 30_000, 4000, 128
POINTS = 64  # at which errors are measured
NODES = (8, 12, 16, 24, 32, 64)
REFERENCE = 128
ROUNDS = 3
PROBES = (4, 16, 64)


def mixture(dim: int) -> Distribution:
    generator = torch.Generator().manual_seed(0)
    means, stds = torch.randn(8, dim, generator=generator), 0.3 + 0.5 * torch.rand(8, dim, generator=generator)
    return MixtureSameFamily(Categorical(torch.ones(8)), Independent(Normal(means, stds), 1))


def trained(dim: int) -> FlowMatching:
    torch.manual_seed(1)
    spec = DataSpec(name="vectors", shape=(dim,), size=ROWS, low=-9, high=9)
    config = FlowMatchingConfig.for_data(spec, "de")
    model, x = config.build(spec), mixture(dim).sample((ROWS,))
    keys = {"max_steps": STEPS, "batch_size": BATCH, "use_lr_scheduler": True, "ema_decay": config.ema_decay}
    return twostep.fit(model, x, lr=config.lr, valid=None, **keys)


def seconds(call: Callable[[], object]) -> float:
    taken: list[float] = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def log_densities(model: FlowMatching, y: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the log-densities at `(B, d)`, and those by every other node."""
    u, total, rough = ode.to_start(model.velocity, model.with_divergence(None), y, nodes)
    start = standard_normal_log_prob(u)
    return start - total, start - rough


def errors(model: FlowMatching, y: Tensor) -> None:
    exact, levels = log_densities(model, y, REFERENCE)[0], torch.tensor([0.5, 0.9, 0.99])
    print("nodes   error: median, 90 %, 99 %   rough: the same   rough / error: lowest 1 %   stops   wrongly")
    for nodes in NODES:
        fine, rough = log_densities(model, y, nodes)
        error, apart = (fine - exact).abs(), (rough - fine).abs()
        stops = apart <= ode.GAIN * model.tolerance
        figures = "  ".join(" ".join(f"{value:.1e}" for value in of.quantile(levels)) for of in (error, apart))
        ratio = float((apart / error.clamp(min=1e-6)).quantile(0.01))
        wrongly = float((stops & (error > model.tolerance)).float().mean())
        print(f"{nodes:5}   {figures}   {ratio:6.1f}   {float(stops.float().mean()):.2f}   {wrongly:.3f}", flush=True)


def standard_errors(model: FlowMatching, x: Tensor) -> None:
    model.likelihood = "estimate"
    for model.probes in PROBES:
        found = torch.stack([model.log_prob(x) for _ in range(8)])
        own = float(model.estimate(x)[1].mean())
        print(f"{model.probes} probes: std of log-densities {float(found.std(0).mean()):.3f}, standard error {own:.3f}")
    model.likelihood = "exact"


def report(dim: int) -> None:
    model, truth = trained(dim), mixture(dim)
    torch.manual_seed(2)
    x = truth.sample((1000,))
    with evaluating(model):
        y, t = model.transform(x[:POINTS]), torch.tensor(0.5)
        errors(model, y)
        own, plain = model.with_divergence(), ode.with_divergence(model.velocity)
        ratio = seconds(lambda: plain(t, y)) / seconds(lambda: own(t, y))
        gap = truth.log_prob(x) - model.log_prob(x)
        scored, drawn = seconds(lambda: model.log_prob(x)), seconds(lambda: model.sample(10_000))
        print(
            f"{dim} dimensions: log_prob {scored:.1f} s for 1,000 points, divergence {ratio:.1f} times as fast as the"
        )
        print(f"plain one, sampling {drawn:.1f} s for 10,000; KL {float(gap.mean()):.3f} nats")
        standard_errors(model, x[:64])


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for dim in map(int, sys.argv[1:] or DIMENSIONS):
        report(dim)


if __name__ == "__main__":
    main()
