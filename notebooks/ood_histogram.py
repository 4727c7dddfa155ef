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
# # Do log-densities know what they were not trained on?
#
# A density on pixels often gives *higher* log-densities to another dataset than to its own. This page draws the figure
# that shows it: histograms of the log-densities of test points, in and out of distribution, of a density trained on the
# data themselves and of a two-step model, whose density lies on a learned manifold.
#
# The figure is that of *Diagnosing and Fixing Manifold Overfitting in Deep Generative Models* (Loaiza-Ganem et al.,
# 2022, arXiv 2204.07172). It needs two finished runs on the same data, for example
#
#     twostep train-single --dataset fashion-mnist --model flow
#     twostep train --dataset fashion-mnist --gae-model ae --de-model flow
#
# Give their directories in the environment variables `ONE_STEP` and `TWO_STEP`; `OOD` names the other dataset, and may
# be left out where the dataset has a usual partner. Without them, the next cell but one trains two small models on
# scikit-learn's digits, and the other data are patches of its two photographs.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from twostep.core.figures import draw_histogram
from twostep.data.batches import Batches, subsample
from twostep.data.load import load_data
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.load import load_run
from twostep.experiment.prepare import start
from twostep.metrics.ood.detection import auroc, stump
from twostep.metrics.ood.scores import MAX_ROWS, finite, score_splits
from twostep.runs.directory import Run
from twostep.runs.overrides import Request

RUNS = {"one-step": os.environ.get("ONE_STEP"), "two-step": os.environ.get("TWO_STEP")}
OOD = os.environ.get("OOD")

# %% [markdown]
# Photographs are averaged to an eighth of their size, in 17 shades of grey like the digits, and cut into patches of
# 8 x 8 pixels.

# %%
if not all(RUNS.values()):
    folder = Path(tempfile.mkdtemp())
    patches = []
    for photograph in load_sample_images().images:
        grey = photograph[:424, :640].mean(2).reshape(53, 8, 80, 8).mean((1, 3))
        windows = np.lib.stride_tricks.sliding_window_view(grey, (8, 8)).reshape(-1, 1, 8, 8)
        patches.append(np.round(windows / 255 * 16).astype(np.uint8))
    patches = np.random.default_rng(0).permutation(np.concatenate(patches))
    OOD = str(folder / "patches.npz")
    np.savez(OOD, train=patches[:1500], test=patches[1500:2000])
    keys = {"dataset": "digits", "logdir_root": folder}
    for kind, models in (("one-step", {"model": "flow"}), ("two-step", {"gae": "ae", "de": "flow"})):
        given = {"run": keys, **{part: {"max_epochs": 60 if part == "gae" else 12} for part in models}}
        experiment = start(Request(models, given))
        experiment.fit()
        RUNS[kind] = experiment.run.path

# %% [markdown]
# Each run is loaded with its best weights and its data. Both models score their own points and those of the other
# dataset, or 10,000 evenly spaced ones of more.

# %%
scores = {}
for kind, run in RUNS.items():
    module, _, (train, _, test) = load_run(run)
    name = Run.open(Path(run)).spec.name
    other = OOD or OOD_PARTNERS[name]
    others = load_data(other, make_valid=False)
    points = {"in_train": train.data, "in": test.data, "out_train": others.train, "out": others.test}
    batches = {
        where: Batches(subsample(data, MAX_ROWS), test.batch_size, device=test.device) for where, data in points.items()
    }
    scores[kind] = score_splits(module, batches, lambda values: values, seed=0)

# %% [markdown]
# Higher means more in-distribution. An AUROC of 0.5 is chance, one below it an anti-correlated score. A
# log-density on the manifold is that of a point's projection, so a two-step model has a second score: the distance to
# its manifold.
#
# The dashed line is the decision boundary of the paper: the split of a decision stump that is fitted to training points
# of *both* sets. Its classification rate is the balanced accuracy on the test points.

# %%
figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
shown = (
    ("one-step", "log_prob", "log-density of pixels (nats)"),
    ("two-step", "log_prob", "log-density on the manifold (nats)"),
    ("two-step", "reconstruction_error", "negative squared distance to the manifold"),
)
areas, stumps = {}, {}
for axes, (kind, score, label) in zip(panels, shown, strict=True):
    rows = scores[kind][score]
    area = areas[kind, score] = auroc(finite(rows["in"]), finite(rows["out"]))
    draw_histogram(axes, {Path(name).stem: rows["in"], f"{Path(other).stem} (other)": rows["out"]}, label)
    inside, outside = ([finite(rows[f"{side}{split}"]) for split in ("_train", "")] for side in ("in", "out"))
    boundary, rate = stumps[kind, score] = stump(inside, outside)
    axes.axvline(boundary, color="black", linestyle="--", linewidth=1)
    axes.set_title(f"{kind}: AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}], stump {rate:.1%}", fontsize=10)
    print(f"{kind}, {score}: decision boundary {boundary:.6g}, classification rate {rate:.2%}")
figure.savefig(Path(os.environ.get("FIGURES", ".")) / "ood_histogram.png")
figure
