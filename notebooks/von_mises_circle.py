# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A density on a circle, in one step and in two
#
# The points lie on the unit circle, their angles follow a von Mises distribution with κ = 1: p(θ) ∝ exp(cos θ). It is
# the example of *Diagnosing and Fixing Manifold Overfitting in Deep Generative Models* (Loaiza-Ganem et al., 2022,
# arXiv 2204.07172). An energy-based model is trained on the points in the plane, and another one, with the same
# settings, on the one coordinate that an autoencoder finds. The page takes half a minute of one core.

# %%
import math
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from twostep.data.synthetic import distribution
from twostep.diagnosis import diagnose
from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.runs.overrides import Request

FIGURES = Path(os.environ.get("FIGURES", "."))
EPOCHS = (20, 40, 80)  # of an energy
ENERGY = {"loss_alpha": 0.05, "lr": 1e-3, "ld_steps": 20, "use_lr_scheduler": False, "max_epochs": EPOCHS[0]}
AUTOENCODER = {
    "latent_dim": 1,
    "encoder_hidden_dims": [32, 32, 32],
    "encoder_activation": "swish",
    "decoder_hidden_dims": [32, 32],
    "decoder_activation": "swish",
    "lr": 1e-2,
    "use_lr_scheduler": True,
    "max_epochs": 150,
}
RUN = {
    "dataset": "von-mises-circle",
    "dataset_kwargs": {"n": 1250},
    "train_batch_size": 50,
    "logdir_root": tempfile.mkdtemp(),
    "device": "cpu",
    "seed": 0,
}

circle = distribution("von-mises-circle", RUN["dataset_kwargs"])
angle = (torch.arange(400) + 0.5) / 400 * 2 * math.pi - math.pi
step = 2 * math.pi / len(angle)


def points(radius=1.0):
    """Return the points of a circle at all angles, `(400, 2)`."""
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


truth = circle.log_prob(points()).exp()

# %% [markdown]
# ## What `diagnose` reports
#
# Before anything is trained, it estimates the intrinsic dimension, and reports that the likelihood of a density in the
# plane is unbounded on such points.

# %%
one = start(Request({"model": "ebm"}, {"run": RUN, "model": ENERGY}))
found = diagnose(one.splits.train)
print("\n".join(found.lines()))

# %% [markdown]
# Noise of std s is added to the points. The mean log-density of the noisy points grows by D - d(s) nats for each factor
# of e by which s falls: in the left panel, d(s) is near 1 over the scales at which the circle is resolved, so a density
# in the plane (D = 2) gains a nat each time.

# %%
found.plot(FIGURES / "von_mises_diagnosis.png")
figure, axes = plt.subplots(figsize=(13, 4), layout="constrained")
axes.imshow(plt.imread(FIGURES / "von_mises_diagnosis.png"))
axes.set_axis_off()
figure

# %% [markdown]
# ## One step
#
# A negated energy is a log-density up to a constant, which a sum over a fine polar grid gives here. After 20, 40 and 80
# epochs the next cell prints two numbers:
#
# - *mass on the circle*: the integral of the density along it. It is not a probability, because the density is one of
#   the plane: it shows how large the density has become there.
# - *error*: the mean absolute difference between the true density and the density along the circle divided by that
#   mass, so that only the distribution of the angle counts. The last line has the error of a uniform distribution.

# %%
RADII = (torch.arange(1500) + 0.5) / 500  # up to 3


def log_constant(model, grid, log_cells):
    """Return the log of the integral of `exp(log_prob)` over the cells of a grid."""
    return torch.logsumexp(model.log_prob(grid).double() + log_cells, 0)


polar = torch.cat([points(float(radius)) for radius in RADII])
polar_cells = (RADII.double() * step / 500).log().repeat_interleave(len(angle))


def trained_to(experiment, epochs):
    """Train the last model of an experiment to that many epochs."""
    experiment.trainers[-1].set_max_epochs(epochs)
    experiment.fit()


def error(density):
    """Return the mean absolute difference of a density at the angles to the truth."""
    return float((density - truth).abs().mean())


off = torch.linspace(0.5, 1.5, 201)
around, across, masses, errors = {}, {}, {}, {}
for epochs in EPOCHS:
    trained_to(one, epochs)
    with evaluating(one.module):
        constant = log_constant(one.module, polar, polar_cells)
        around[epochs] = one.module.log_prob(points()).double() - constant
        across[epochs] = torch.stack(
            [one.module.log_prob(points(float(r))).double().logsumexp(0) - constant - math.log(len(angle)) for r in off]
        )
    density = around[epochs].exp()
    masses[epochs] = float(density.sum() * step)
    errors[epochs] = error(density / masses[epochs])
    print(f"{epochs:3d} epochs: mass on the circle {masses[epochs]:7.2f}, error {errors[epochs]:.3f}")
print(f"uniform distribution: error {error(torch.full_like(truth, 1 / (2 * math.pi))):.3f}")

# %% [markdown]
# The density at the circle grows, and the distribution along the circle gets no better: the error stays near that of
# the uniform distribution. This is manifold overfitting.
#
# ## Two steps
#
# The autoencoder has one latent coordinate, as the diagnosis recommends. A circle has no such chart without a
# discontinuity: at one place neighbours get embeddings that are far from each other, and a point there is not
# reconstructed. Its density
# is that of the embeddings, divided by how much the decoder stretches them: one by arc length, to be compared with the
# truth as it is.

# %%
two = start(Request({"gae": "ae", "de": "ebm"}, {"run": RUN, "gae": AUTOENCODER, "de": ENERGY}))
learned, errors_two = {}, {}
for epochs in EPOCHS:
    trained_to(two, epochs)
    with evaluating(two.module):
        z = two.module.encode(one.splits.train)
        low, high = float(z.min()), float(z.max())
        line = torch.linspace(2 * low - high, 2 * high - low, 30_001)[:, None]
        cells = math.log(3 * (high - low) / 30_000)
        learned[epochs] = (two.module.log_prob(points()).double() - log_constant(two.module.de, line, cells)).exp()
        gap = (two.module.decode(two.module.encode(points())) - points()).norm(dim=1)
    errors_two[epochs] = error(learned[epochs])
    mass = float(learned[epochs].sum() * step)
    print(f"{epochs:3d} epochs: mass on the circle {mass:7.2f}, error {errors_two[epochs]:.3f}")
torn = gap > 0.1
print(f"reconstructed up to 0.1 at {100 * float((~torn).double().mean()):.1f} % of the angles")

# %% [markdown]
# The same energy with the same settings, and its mass on the circle stays near 1 while its error falls with training.
# Embeddings fill their one coordinate, so there is no manifold to concentrate on.
#
# The settings matter. `loss_alpha` keeps an energy near 0; with its default of 0.001 and the constant rate used here,
# the energy of the embeddings diverged as well, after 20 epochs.
#
# ## Both around the circle
#
# Left: the density along the circle; the one-step model's is divided by its mass there. Grey is the discontinuity,
# where the autoencoder is off by more than 0.1; the two-step density has its spikes around it. Middle: the log-density
# of the one-step model as it is, along the circle, and right: across it, in the mean over the angles, as training goes
# on.

# %%
figure, (along, grown, beside) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
last = EPOCHS[-1]
along.fill_between(angle, 0, 1, where=torn, color="0.9", transform=along.get_xaxis_transform())
along.plot(angle, around[last].exp() / masses[last], color="C3", linewidth=1, label="one step, divided by its mass")
along.plot(angle, learned[last], color="C0", label="two steps")
along.plot(angle, truth, color="black", linestyle="--", label="truth")
along.set(xlabel="angle", ylabel="density by arc length", title=f"after {last} epochs of an energy", ylim=(0, 1))
along.legend(loc="best")
for shade, epochs in enumerate(EPOCHS):
    kind = {"color": plt.get_cmap("Reds")(0.4 + 0.25 * shade), "label": f"one step, {epochs} epochs"}
    grown.plot(angle, around[epochs], **kind)
    beside.plot(off, across[epochs], **kind)
grown.plot(angle, truth.log(), color="black", linestyle="--", label="truth, by arc length")
grown.set(xlabel="angle", ylabel="log-density (nats)", title="along the circle")
beside.axvline(1, color="black", linewidth=0.5)
beside.set(xlabel="distance from the centre", ylabel="log of the mean density (nats)", ylim=(-12, None))
beside.set_title("across the circle")
grown.legend(loc="best")
figure.savefig(FIGURES / "von_mises_circle.png")
figure
