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
# It needs two finished runs on the same data, for example
#
#     twostep train-single --dataset fashion-mnist --model flow
#     twostep train --dataset fashion-mnist --gae-model ae --de-model flow
#
# whose directories go into the next cell, or into the environment variables `ONE_STEP` and `TWO_STEP`. `OOD` names the
# other dataset; leave it out where the dataset has a usual partner. The figure is that of *Diagnosing and
# Fixing Manifold Overfitting in Deep Generative Models* (Loaiza-Ganem et al., 2022, arXiv 2204.07172).

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

from twostep.core.figures import draw_histogram
from twostep.data.batches import Batches, subsample
from twostep.data.load import load_data
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.load import load_run
from twostep.metrics.ood.detection import auroc, stump
from twostep.metrics.ood.scores import MAX_ROWS, finite, score_splits
from twostep.runs.directory import Run

RUNS = {
    "one-step": os.environ.get("ONE_STEP", "runs/one-step"),
    "two-step": os.environ.get("TWO_STEP", "runs/two-step"),
}
OOD = os.environ.get("OOD")

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
figure.savefig(os.environ.get("FIGURE", "ood_histogram.png"))
figure
