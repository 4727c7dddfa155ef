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
# # Do your data lie on a manifold, and which `latent_dim` do they want?
#
# `diagnose` looks at rows of data, trains nothing, and answers three questions: what the intrinsic dimension is,
# whether a density fitted to them overfits a manifold, and which latent dimension an autoencoder should have.
#
# The data here are scikit-learn's bundled digits, 8 x 8 pixels. Put your own in their place: in the next cell, or into
# the environment variable `DATA`, a dataset's name or the path of a `.npy`, `.npz`, `.csv` or `.parquet` file or of a
# folder of images. An array that you have in memory needs no file: `rows = torch.as_tensor(array)`, one row for each
# point, 50 or more of them, with finite numbers.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

from twostep.data.load import training_rows
from twostep.diagnosis import diagnose

DATA = os.environ.get("DATA", "digits")
FIGURE = Path(os.environ.get("FIGURES", ".")) / "diagnosis.png"

rows = training_rows(DATA, {})
found = diagnose(rows)
print(f"{len(rows):,} rows of shape {tuple(rows.shape[1:])}")

# %% [markdown]
# The answers come first, then the evidence. Units count: a column whose std is small beside that of others has little
# influence, so standardise columns of different kinds before.

# %%
print("\n".join(found.lines()))

# %% [markdown]
# `overfitting: yes` says that the likelihood of a density of all coordinates is unbounded on these data: log-densities
# then measure how closely it concentrates on the manifold. `no` says that the data fill their space as far as this many
# rows can show, so a density alone will do; `undecided`, that this many rows can't decide: then
# `diagnose(rows, thorough=True)` trains a small denoiser.
#
# Left: the dimension of the data with added noise, over the scale of the noise; solid where it is resolved. Middle: an
# estimate from neighbours over their number; where it is not flat, the dimension depends on the scale. Right: the std
# along principal directions.

# %%
found.plot(FIGURE)
figure, axes = plt.subplots(figsize=(13, 4), layout="constrained")
axes.imshow(plt.imread(FIGURE))
axes.set_axis_off()
figure

# %% [markdown]
# The next step: a two-step model with this many latent coordinates. The next cell prints the command for the data
# above. `latent_dim=auto` lets the run estimate the dimension itself, from its own training rows, before it trains.
#
# The range is part of the answer. It is an estimate of the intrinsic dimension, not a value tuned for good samples: if
# they disappoint, try the upper end of the range or more.

# %%
low, high = found.interval
print(f"latent_dim={found.latent_dim}, range {low:.1f} to {high:.1f}, of {found.dim} coordinates")
if found.overfitting.verdict == "no":
    command = f"twostep train-single --dataset {DATA} --model flow"
else:
    command = f"twostep train --dataset {DATA} --gae-model ae --de-model flow --gae-config latent_dim=auto"
print(command)
