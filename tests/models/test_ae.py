"""The autoencoder of images: bounded outputs, residual blocks, standardised embeddings with noise."""

import pytest
import torch

from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.base import evaluating
from twostep.training.fit import fit

GREY = DataSpec(name="grey", shape=(1, 4, 4), size=200, low=0, high=255, discrete=True)
SIGNED = GREY.model_copy(update={"low": -1.0, "high": 1.0, "discrete": False})
SMALL = {"latent_dim": 3, "encoder_hidden_dims": (12, 8), "decoder_hidden_dims": (12, 8)}


def images(spec, n=200):
    unit = torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return spec.low + (spec.high - spec.low) * unit


def built(spec, **keys):
    torch.manual_seed(0)
    model = MODELS["ae"].for_data(spec, "gae", **{**SMALL, **keys}).build(spec).double()
    model.fit_transform([images(spec)])
    return model


@pytest.mark.parametrize(("spec", "low", "high"), [(GREY, 0.0, 255.0), (SIGNED, -1.0, 1.0)])
def test_images_are_decoded_into_their_range(spec, low, high):
    model = built(spec)
    decoded = model.decode(100 * torch.randn(500, 3, dtype=torch.float64))
    assert low <= decoded.min() < decoded.max() <= high
    assert decoded.max() - decoded.min() > (high - low) / 2


@pytest.mark.parametrize("spec", [GREY, SIGNED])
@pytest.mark.parametrize("net", ["mlp", "resmlp", "cnn"])
def test_the_log_volume_is_that_of_the_jacobian_of_autograd(spec, net):
    model = built(spec, encoder_net=net, decoder_net=net)
    z = torch.randn(5, 3, dtype=torch.float64)
    with evaluating(model):
        found = model.log_volume(z)
    for point, volume in zip(z, found, strict=True):
        J = torch.autograd.functional.jacobian(lambda u: model.decode(u[None]).flatten(), point)
        assert float(volume) == pytest.approx(float(0.5 * torch.logdet(J.T @ J)), abs=1e-8)


def test_saturated_pixels_have_no_slope_and_the_others_still_a_volume():
    model = built(GREY, output="sigmoid")
    with torch.no_grad():
        model.decoder[-1].bias[:8] = 1e4
    assert torch.isfinite(model.log_volume(torch.zeros(1, 3, dtype=torch.float64)))
    with torch.no_grad():
        model.decoder[-1].bias[:] = 1e4
    assert model.log_volume(torch.zeros(1, 3, dtype=torch.float64)) == -torch.inf


def test_embeddings_are_standardised_where_noise_is_added_to_them():
    model, x = built(GREY).float(), images(GREY).float()
    fit(model, x, valid=None, max_epochs=150, use_lr_scheduler=True)
    z = model.encode(x)
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=0.2)
    assert torch.allclose(z.std(0), torch.ones(3), atol=0.2)
    model.train()
    torch.manual_seed(0)
    losses = [float(model.objectives()[0].loss(x).detach()) for _ in range(2)]
    assert losses[0] != losses[1], "noise is drawn anew"


def test_data_that_are_not_scaled_are_not_bounded_unless_that_is_asked_for():
    config = MODELS["ae"]
    assert config.for_data(GREY, "gae").output == "sigmoid"
    assert config.for_data(GREY, "gae", scale_data=False).output == "linear"
    assert config.for_data(GREY, "gae", logit_transform=True).output == "linear"
    assert config.for_data(GREY, "gae", preset="reference").output == "linear"
    assert config.for_data(GREY, "gae", whitening_transform=True, scale_data=False, output="tanh").output == "tanh"
