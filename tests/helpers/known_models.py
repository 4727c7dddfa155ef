"""Models and scores whose figures are known, for the tests of detection."""

import numpy as np
import torch

from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep, latent_spec

SPLITS = ("in_train", "in_test", "ood_train", "ood_test")
SPEC = DataSpec(name="points", shape=(3,), size=50, low=-5, high=5)
SMALL = {"latent_dim": 2, "encoder_hidden_dims": (6,), "decoder_hidden_dims": (6,)}


class Given(DensityEstimator):
    """A density whose log-densities are the first coordinates of the points."""

    likelihood = "exact"

    def __init__(self, config, spec):
        super().__init__(spec.shape, **config.data_arguments(spec))
        self.config, self.spec = config, spec

    def log_density(self, x):
        return x[:, 0]

    def sample(self, n, generator=None):
        raise NotImplementedError

    def objectives(self):
        return ()


def given(spec=SPEC, **keys):
    return Given(MODELS["flow"].for_data(spec, "de", whitening_transform=False, **keys), spec)


def two_step():
    torch.manual_seed(0)
    gae = MODELS["ae"].for_data(SPEC, "gae", **SMALL).build(SPEC)
    latents = latent_spec(SPEC, 2)
    de = MODELS["vae"].for_data(latents, "de", **SMALL).build(latents)
    x = points(50)
    gae.fit_transform([x])
    de.fit_transform([gae.encode(x).detach()])
    return TwoStep(gae, de)


def points(n, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def normal(n, mean, std=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, std, n)


def rows(gap, n_in=4000, n_out=4000, std_out=1.0):
    """Give normal scores: in-distribution ones around `gap`, the others around 0."""
    return {
        "in_train": normal(n_in, gap, seed=1),
        "in_test": normal(n_in, gap, seed=2),
        "ood_train": normal(n_out, 0, std_out, seed=3),
        "ood_test": normal(n_out, 0, std_out, seed=4),
    }
