"""Two-step log-densities on manifolds where the truth is known: AE + flow on 10,000 points, judged on 2,000 others.

The gap is log p - truth, in nats. Points count as covered where the reconstruction error is under 1 % of the data's
variance. A curve or surface that closes can't be covered by one chart: there the gap sits at the cut, and the rest of
the points tell how good the density is elsewhere.

    python benchmarks/manifolds.py [--sets s_curve swiss_roll ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

from twostep.data.synthetic import law
from twostep.launch import start
from twostep.models.base import evaluating
from twostep.request import Request

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
    "max_epochs": 300,
    "lr": 2e-3,
    "use_lr_scheduler": True,
}
DE = {"max_epochs": 100, "lr": 2e-3, "hidden_units": 64}


def measure(name: str, kwargs: dict[str, Any], gae: dict[str, Any], de: dict[str, Any]) -> str:
    """Train, and return one line of the table."""
    truth = law(name, {"n": 10_000, **kwargs})
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = {"dataset": name, "dataset_kwargs": {"n": 10_000, **kwargs}, "logdir_root": folder}
        keys = {"latent_dim": truth.intrinsic_dim, **GAE, **gae}
        overrides = {"run": run, "gae": keys, "de": {**DE, **de}}
        experiment = start(Request({"gae": "ae", "de": "flow"}, overrides))
        experiment.fit()
        experiment.run.close()
    seconds = time.process_time() - began
    model, x = experiment.module, experiment.splits.test.double()
    model.double()
    with evaluating(model):
        gap = model.log_prob(x) - truth.log_prob(x)
        error = model.gae.reconstruction_error(x)
    covered = error < 0.01 * x.var(0).sum()
    inner = gap[covered]
    return (
        f"{name:18}{gap.mean():10.3f}{gap.median():10.3f}{covered.double().mean():10.1%}{inner.mean():10.3f}"
        f"{inner.mean() / truth.intrinsic_dim:12.3f}{inner.abs().quantile(0.9):10.3f}{seconds:9.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    options = parser.parse_args()
    head = ("mean gap", "median", "covered", "mean gap", "per dim", "90 % of |gap|", "CPU s")
    print(f"{'set':18}{head[0]:>10}{head[1]:>10}{head[2]:>10}{head[3]:>10}{head[4]:>12}{head[5]:>10}{head[6]:>9}")
    for name in options.sets:
        print(measure(name, SETS[name], {}, {}), flush=True)


if __name__ == "__main__":
    main()
