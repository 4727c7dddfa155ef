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
# # An encoder that you have
#
# The first step need not be trained here. Two examples on scikit-learn's digits: its PCA, encoder and decoder, and a
# classifier's features, an encoder alone.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from twostep import IntrinsicDimension, TwoStepDensity, TwoStepOutlierDetector
from twostep.models import ExternalAutoencoder

rows, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(rows))
rows, labels = rows[order].astype(np.float32), labels[order]
train, test = rows[:1500], rows[1500:]

# %% [markdown]
# ## PCA and a flow
#
# A linear decoder has one Jacobian, so the density on its plane is exact. The flow replaces PCA's Gaussian.

# %%
pca = PCA(10).fit(train)
gae = ExternalAutoencoder.of(pca, train)
model = TwoStepDensity(gae, "flow", preprocessing=None, de_config={"max_epochs": 60}, random_state=0).fit(train)
gaussian = torch.distributions.MultivariateNormal(torch.zeros(10), torch.tensor(np.cov(pca.transform(train).T)).float())
on_plane = gaussian.log_prob(torch.tensor(pca.transform(test))).mean()  # nats on the plane, like the model's
print(f"mean log-density of test rows: flow {model.score(test):.2f} nats, PCA's Gaussian {on_plane:.2f} nats")

figure, axes = plt.subplots(2, 12, figsize=(12, 2.2), layout="constrained")
mean, factor = pca.mean_, np.linalg.cholesky(np.cov(pca.transform(train).T))
normal = np.random.default_rng(0).normal(size=(12, 10))
drawn = {"PCA's Gaussian": pca.inverse_transform(normal @ factor.T), "flow": model.sample(12, random_state=0)}
for line, (name, samples) in zip(axes, drawn.items(), strict=True):
    line[0].set_title(name, loc="left", fontsize=10)
    for panel, sample in zip(line, samples, strict=True):
        panel.imshow(sample.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        panel.axis("off")

# %% [markdown]
# ## An encoder alone
#
# Features of a network that was trained for something else, here a classifier: the same with DINO, CLIP or a sentence
# encoder. A density of the features needs no decoder. It is fitted to rows that the classifier has not seen, as its
# features of those that it has seen are tidier than those of new ones.

# %%
torch.manual_seed(0)
features = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 32), torch.nn.SiLU())
network = torch.nn.Sequential(features, torch.nn.Linear(32, 10))
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
x, y = torch.tensor(rows[:600]) / 16, torch.tensor(labels[:600])
for _ in range(300):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()


def embed(images):
    """Return the features of images `(N, 64)`, an array `(N, 32)`."""
    with torch.no_grad():
        return features(torch.as_tensor(images, dtype=torch.float32) / 16).numpy()


dimension = IntrinsicDimension().fit(embed(rows[600:1500]))
print(f"32 features, of about {dimension.dimension_:.1f} dimensions")
detector = TwoStepOutlierDetector(random_state=0).fit(embed(rows[600:1500]))

# %% [markdown]
# Patches of photographs are not digits:

# %%
photograph = load_sample_images().images[0].mean(2)[:424, :640].reshape(53, 8, 80, 8).mean((1, 3)) / 255 * 16
patches = np.lib.stride_tricks.sliding_window_view(photograph, (8, 8)).reshape(-1, 64)[::10]
usual, unusual = detector.score_samples(embed(test)), detector.score_samples(embed(patches))
area = roc_auc_score(np.repeat([0, 1], [len(usual), len(unusual)]), -np.concatenate([usual, unusual]))
print(f"AUROC {area:.3f}; false positives {np.mean(detector.predict(embed(test)) == -1):.1%}")

# %% [markdown]
# On the command line, a module of yours makes the encoder; the run's directory stores its weights, never its code:
#
#     twostep train --dataset digits --gae-model external --gae-config module=my_encoder:make --de-model flow
