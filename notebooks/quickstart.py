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
# # Quickstart
#
# Scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels with 17 shades of grey. Do they lie near a manifold?
# Fit an autoencoder and a density of its embeddings, draw new digits, and score images.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from twostep import IntrinsicDimension, TwoStepDensity

images = load_digits().images.astype(np.uint8)[:, None]  # (N, C, H, W)
train, test = images[:1500], images[1500:]
train.shape

# %% [markdown]
# ## How many dimensions do they have?
#
# An image has 64 numbers, but neighbouring digits differ in few ways.

# %%
dimension = IntrinsicDimension().fit(train.reshape(len(train), -1))
low, high = dimension.interval_
print(f"about {dimension.dimension_:.1f} dimensions, between {low:.1f} and {high:.1f}")

# %% [markdown]
# ## Two steps
#
# A variational autoencoder finds ten coordinates of an image; a normalizing flow is fitted to those of all images.

# %%
model = TwoStepDensity(
    "vae",
    "flow",
    latent_dim=10,
    preprocessing=None,  # pixels are scaled by the autoencoder itself
    gae_config={"max_epochs": 150, "lr": 2e-3, "use_lr_scheduler": True},
    de_config={"max_epochs": 40, "use_lr_scheduler": True},
    random_state=0,
).fit(train)
samples = model.sample(16, random_state=0)


# %%
def show(rows, titles):
    """Draw rows of images, each with a title at its left."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(12, 0.9 * len(rows)), layout="constrained")
    for line, shown, title in zip(axes, rows, titles, strict=True):
        line[0].set_title(title, loc="left", fontsize=10)
        for panel, image in zip(line, shown, strict=True):
            panel.imshow(image[0], cmap="gray_r", vmin=0, vmax=16)
            panel.axis("off")
    return figure


nearest = [train[np.square(train.astype(float) - one).sum((1, 2, 3)).argmin()] for one in samples]
figure = show([samples, nearest], ["samples", "the training image nearest to each"])

# %% [markdown]
# ## Scores
#
# The log-density is that of an image's projection onto the manifold; how far the image is from it is another number. An
# image turned upside down is not much less probable, but farther away: outlier scores need both
# (`TwoStepOutlierDetector` joins them).

# %%
turned = test[:, :, ::-1]
for name, rows in (("test images", test), ("upside down", turned)):
    density, distance = np.median(model.score_samples(rows)), np.sqrt(np.median(model.reconstruction_error(rows)))
    print(f"{name}: log-density {density:.1f} nats, distance to the manifold {distance:.2f} (medians)")

# %% [markdown]
# Images from the most to the least probable:

# %%
ordered = test[np.argsort(-model.score_samples(test))]
figure = show([ordered[:16], ordered[-16:]], ["most probable", "least probable"])

# %% [markdown]
# On the command line, the same with a test and a report:
#
#     twostep train --dataset digits --gae-model vae --de-model flow
