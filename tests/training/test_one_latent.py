"""A latent space of one dimension works for every pair: trained, scored and sampled."""

import pytest
import torch

from helpers.experiments import EVERY_PAIR, asked, trained
from twostep.models.base import evaluating


@pytest.mark.parametrize("models", EVERY_PAIR, ids=" + ".join)
def test_one_latent_coordinate_is_enough_for_every_pair(own_images, tmp_path, models):
    experiment = trained(asked(models, own_images, tmp_path, gae={"latent_dim": 1, "max_epochs": 1}))
    module, x = experiment.module, experiment.splits.test.float()
    with evaluating(module):
        z, samples = module.encode(x), module.sample(50, torch.Generator().manual_seed(0))
        log_probs = module.log_prob(x)
    assert z.shape == (10, 1)
    assert experiment.module.de.event_shape == (1,)
    assert samples.shape == (50, 1, 6, 6)
    assert samples.isfinite().all()
    assert log_probs.shape == (10,)
    assert log_probs.isfinite().all()
    assert samples.flatten(1).std(0).max() > 0
