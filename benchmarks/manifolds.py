"""Two-step log-densities on manifolds where the truth is known: AE + flow on 10,000 points, judged on 2,000 others.

The gap is log p - truth, in nats. Points count as covered where the reconstruction error is under 1 % of the data's
variance. A curve or surface that closes can't be covered by one chart: the others lie at the cut, and `at the cut` is
their part of the sum of all |gap|.

    python benchmarks/manifolds.py [--sets s_curve swiss_roll ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from twostep.data.synthetic import distribution
from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.models.two_step import TwoStep
from twostep.runs.overrides import Request

SETS: dict[str, dict[str, Any]] = {
    "s_curve": {},
    "swiss_roll": {},
    "network_manifold": {"manifold_dim": 2, "ambient_dim": 10},
    "von-mises-circle": {},
    "sphere": {},
    "torus": {},
}
GAE = {
    "encoder_hidden_dims": (256, 256),
    "decoder_hidden_dims": (256, 256),
    "encoder_activation": "swish",
    "decoder_activation": "swish",
    "max_epochs": 600,
    "lr": 2e-3,
    "use_lr_scheduler": True,
}
DE = {"max_epochs": 100, "lr": 2e-3, "use_lr_scheduler": True}


@dataclass(frozen=True)
class Accuracy:
    """How near the log-densities of test points are to the truth, in nats.

    Args:
        mean: of the gap over all points.
        median: of the gap.
        covered: share of the points that the chart covers.
        inner: mean of the gap over those.
        spread: nine in ten of those have a smaller gap, up or down.
        cut: part of the sum of all gaps, up or down, that lies on the points that are not covered.
        dim: of the manifold.
        seconds: of CPU time, for training.
    """

    mean: float
    median: float
    covered: float
    inner: float
    spread: float
    cut: float
    dim: int
    seconds: float

    @property
    def per_dim(self) -> float:
        """Mean gap over the covered points for each dimension of the manifold."""
        return self.inner / self.dim


def measure(name: str) -> Accuracy:
    """Train on a set, and judge the densities of its test points."""
    kwargs = {"n": 10_000, **SETS[name]}
    truth = distribution(name, kwargs)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": name, "dataset_kwargs": kwargs, "logdir_root": folder, "device": "cpu"}
        keys = {"latent_dim": truth.intrinsic_dim, **GAE}
        experiment = start(Request({"gae": "ae", "de": "flow"}, {"run": run, "gae": keys, "de": DE}))
        experiment.fit()
        experiment.run.close()
    seconds = time.process_time() - began
    model, x = experiment.module.double(), experiment.splits.test.double()
    assert isinstance(model, TwoStep)
    with evaluating(model):
        gap = model.log_prob(x) - truth.log_prob(x)
        covered = model.gae.reconstruction_error(x) < 0.01 * x.var(0).sum()
    inner = gap[covered]
    share, spread = covered.double().mean(), inner.abs().quantile(0.9)
    cut = gap[~covered].abs().sum() / gap.abs().sum()
    numbers = [float(number) for number in (gap.mean(), gap.median(), share, inner.mean(), spread, cut)]
    return Accuracy(*numbers, dim=truth.intrinsic_dim, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    columns = ("mean gap", "median", "covered", "mean there", "a dimension", "90 % of |gap|", "at the cut", "CPU s")
    print(f"{'set':18}" + "".join(f"{column:>15}" for column in columns))
    for name in parser.parse_args().sets:
        found = measure(name)
        gaps = f"{found.mean:15.3f}{found.median:15.3f}{found.covered:15.1%}{found.inner:15.3f}{found.per_dim:15.3f}"
        print(f"{name:18}{gaps}{found.spread:15.3f}{found.cut:15.1%}{found.seconds:15.0f}", flush=True)


if __name__ == "__main__":
    main()
