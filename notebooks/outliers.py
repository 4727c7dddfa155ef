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
# # Outliers in a table
#
# Breast tumours, measured in 30 columns of quite different units (scikit-learn's copy of the Wisconsin data). A
# detector that has seen only benign ones is asked about the others: which are unusual, how sure is that, and why?

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from twostep import TwoStepOutlierDetector

X, benign = load_breast_cancer(return_X_y=True, as_frame=True)
usual, malignant = X[benign == 1], X[benign == 0]
train, held_out = usual.iloc[:257], usual.iloc[257:]
new = np.concatenate([held_out, malignant])
is_malignant = np.arange(len(new)) >= len(held_out)
print(f"{len(train)} rows to train on; {len(held_out)} benign and {len(malignant)} malignant to ask about")

# %% [markdown]
# Rows are standardised, an autoencoder finds the manifold, a flow the density on it. With few rows, p-values are
# calibrated by cross-validation: several models, each asked about the rows that it has not seen.

# %%
detector = TwoStepOutlierDetector(alpha=0.05, random_state=0).fit(train.to_numpy())
found = detector.predict(new) == -1
print(f"false positives: {found[~is_malignant].mean():.1%} of the benign rows (at most 5 % expected)")
print(f"detected: {found[is_malignant].mean():.1%} of the malignant rows")

# %% [markdown]
# ## Beside other detectors
#
# On this table they are close; the means over 22 tables are in the documentation of out-of-distribution detection.

# %%
scaler = StandardScaler().fit(train.to_numpy())
neighbours = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train.to_numpy()))
scores = {
    "two-step": -detector.score_samples(new),
    "5 nearest neighbours": neighbours.kneighbors(scaler.transform(new))[0].mean(1),
    "isolation forest": -IsolationForest(random_state=0).fit(train.to_numpy()).score_samples(new),
}
for name, score in scores.items():
    print(f"AUROC {roc_auc_score(is_malignant, score):.3f}  {name}")

# %% [markdown]
# ## How sure, and why?
#
# A p-value is the share of usual rows that look at least as unusual. Of many rows at once, those with a q-value of at
# most 0.05 hold 5 % false positives on average. The score combines the distance of a row to the manifold, that to the
# nearest training row, and the log-density of the projection.

# %%
print(f"{(detector.q_values(new) <= 0.05).sum()} rows with q <= 0.05")
parts = detector.score_components(new)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for label, rows in (("benign", ~is_malignant), ("malignant", is_malignant)):
    axes.scatter(parts["distance"][rows], parts["log_prob"][rows], s=8, label=label)
axes.set_xlabel("distance to the manifold (standard deviations)")
axes.set_ylabel("log-density on the manifold (nats)")
axes.set_xscale("log")
_ = axes.legend()
