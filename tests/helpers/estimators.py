"""Estimators with small networks and few epochs, and rows to fit them to."""

import numpy as np

from twostep.estimators import DensityModel, TwoStepDensity

GAE = {"encoder_hidden_dims": (8,), "decoder_hidden_dims": (8,), "max_epochs": 2}
DE = {"hidden_units": 4, "num_layers": 1, "num_blocks_per_layer": 1, "max_epochs": 2}


def circle(n, seed=0):
    """Return points near a circle in R^3, `(n, 3)`."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, n)
    points = np.stack([np.cos(angle), np.sin(angle), np.cos(angle) * np.sin(angle)], 1)
    return points + 0.02 * random.normal(size=points.shape)


def two_step(**keys):
    keys = {"latent_dim": 2, "gae_config": GAE, "de_config": DE, "device": "cpu", "random_state": 0, **keys}
    return TwoStepDensity(**keys)


def density(**keys):
    return DensityModel(**{"de_config": DE, "device": "cpu", "random_state": 0, **keys})
