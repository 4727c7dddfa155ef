"""How far a VAE's bounds lie below log p: against long annealed importance sampling, on 100 test points.

Chains go from the encoder's Gaussian to the posterior in latent space, each weight an unbiased estimate of p(x); more
steps bring the log nearer from below, so what still changes from the shorter to the longer run is what is left.

    python benchmarks/vae_gap.py [--steps 2000] [--chains 8]

Source: On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017, arXiv 1611.04273).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bound_curve import bound_curve
from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.models.parts.annealing import AnnealedPath
from twostep.models.vae import VAE
from twostep.nn.distributions import standard_normal_log_prob
from twostep.runs.overrides import Request

POINTS = 100
DRAWS = (1, 10, 100, 1000, 5000)


def trained(folder: str) -> tuple[VAE, Tensor]:
    """Return a VAE with the defaults, alone on the bundled digits, and test points."""
    run = {"dataset": "digits", "logdir_root": Path(folder), "device": "cpu"}
    experiment = start(Request({"model": "vae"}, {"run": run, "model": {}}))
    experiment.fit()
    experiment.run.close()
    return cast(VAE, experiment.module), experiment.splits.test[:POINTS].float()


def annealed(model: VAE, x: Tensor, steps: int, chains: int) -> Tensor:
    """Return log p of points `(B, *S)` by the mean weight of as many chains, `(B,)`, in nats."""
    y = model.transform(x)
    mean, log_std = (part.repeat(chains, 1) for part in model.posterior(y))
    y = y.repeat(chains, 1)

    def joint(u: Tensor) -> Tensor:
        z = mean + log_std.exp() * u
        return model.log_likelihood(y, z) + standard_normal_log_prob(z) + log_std.sum(1)

    path = AnnealedPath(standard_normal_log_prob, joint)
    begin = torch.randn_like(mean)
    betas = torch.linspace(0, 1, steps + 1).tolist()
    lengths = path.pilot(begin, betas)
    weights = path.log_weights(begin, list(zip(betas, lengths, strict=True))).unflatten(0, (chains, len(x)))
    return weights.logsumexp(0) - math.log(chains) + model.transform.log_abs_det_jacobian(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--chains", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, x = trained(folder)
    model.requires_grad_(False)
    for k, result in bound_curve(model, x, DRAWS).items():
        print(f"bound of {k:5,} draws: {result.value:.3f} nats", flush=True)
    torch.manual_seed(0)
    with evaluating(model):
        points = model.noise.dequantize(x)
        exact: Tensor | None = None
        for steps in (given.steps // 4, given.steps):
            began = time.process_time()
            exact = annealed(model, points, steps, given.chains).double()
            seconds = time.process_time() - began
            print(f"annealed, {steps:,} steps, {given.chains} chains: {exact.mean():.3f} nats ({seconds:.0f} CPU s)")
        assert exact is not None
        torch.manual_seed(0)
        weights = torch.cat([model.log_weights(points, 1000) for _ in range(5)]).double()
    for k in DRAWS:
        gaps = exact - torch.stack([w.logsumexp(0) - math.log(k) for w in weights[: 5000 // k * k].split(k)]).mean(0)
        print(f"gap at {k:5,} draws: {gaps.mean():.3f} ± {gaps.std() / math.sqrt(POINTS):.3f} nats a point")


if __name__ == "__main__":
    main()
