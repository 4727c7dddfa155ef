"""Draw docs/idea.png: what goes wrong with one step, and how two steps mend it.

The data lie on a curve in the plane, denser at two places. A flow in the plane and an autoencoder with a flow on its
one coordinate get the same points. Above: data, and samples of both. Below: what both say of the density along the
curve, beside the truth.

    python docs/idea.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.runs.overrides import Request

POINTS = 10_000
EPOCHS = 60
SPLINES = {"tail_bound": 4.0}
NETWORKS = {
    "latent_dim": 1,
    "encoder_hidden_dims": [256, 256],
    "decoder_hidden_dims": [256, 256],
    "encoder_activation": "swish",
    "decoder_activation": "swish",
}


def curve(t: Tensor) -> Tensor:
    """Points of the curve, `(n, 2)`."""
    return torch.stack([t, torch.sin(1.6 * t)], 1)


def density(t: Tensor) -> Tensor:
    """True density of t: two Gaussians, a third and two thirds."""
    parts = [torch.distributions.Normal(-1.2, 0.45), torch.distributions.Normal(1.0, 0.35)]
    return parts[0].log_prob(t).exp() / 3 + 2 * parts[1].log_prob(t).exp() / 3


def draw_t(generator: torch.Generator) -> Tensor:
    """Draw places on the curve from `density`."""
    left = torch.rand(POINTS, generator=generator) < 1 / 3
    noise = torch.randn(POINTS, generator=generator)
    return torch.where(left, -1.2 + 0.45 * noise, 1.0 + 0.35 * noise)


def main() -> None:
    """Train both and draw the figure."""
    generator = torch.Generator().manual_seed(0)
    data = curve(draw_t(generator))
    line = torch.linspace(-2.6, 2.2, 400)
    speed = torch.sqrt(1 + (1.6 * torch.cos(1.6 * line)) ** 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curve.npy"
        np.save(path, data.numpy())
        run = {"dataset": str(path), "logdir_root": folder}
        fit = {"max_epochs": EPOCHS, "use_lr_scheduler": True}
        one = start(Request({"model": "flow"}, {"run": run, "model": fit | SPLINES}))
        two = start(Request({"gae": "ae", "de": "flow"}, {"run": run, "gae": fit | NETWORKS, "de": fit | SPLINES}))
        for experiment in (one, two):
            experiment.fit()
            experiment.run.close()
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=[1.3, 1])
    panels = (("data on a curve", None), ("one step: a flow in the plane", one), ("two steps: autoencoder + flow", two))
    for top, bottom, (title, experiment) in zip(above, below, panels, strict=True):
        truth = density(line)
        bottom.plot(line, truth, color="black", label="truth")
        points = data[:2000]
        if experiment is not None:
            with evaluating(experiment.module):
                points = experiment.module.sample(2000, generator)
                learned = experiment.module.log_prob(curve(line)).exp()
            top.plot(*curve(line).T, color="0.75", linewidth=1)
            bottom.plot(line, learned * speed, color="C3", label="the model's, along the curve")
        top.scatter(*points.T, s=2, color="C0")
        top.set(title=title, xlim=(-3, 2.6), ylim=(-1.7, 1.7), xticks=[], yticks=[])
        bottom.set(xlabel="place on the curve", ylabel="density", xlim=(-2.6, 2.2))
        bottom.legend(loc="upper left", fontsize=8)
    figure.savefig(Path(__file__).with_name("idea.png"), dpi=110)


if __name__ == "__main__":
    main()
