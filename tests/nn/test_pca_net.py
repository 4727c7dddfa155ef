"""Networks beside principal components: at the start they are those, and whatever the rows, they have numbers."""

import pytest
import torch

from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.base import evaluating
from twostep.nn.pca_net import PrincipalDecoder, PrincipalEncoder, fit_axes

COLOUR = DataSpec(name="colour", shape=(3, 16, 16), size=300, low=0, high=255, discrete=True)


def rows(n=300, dim=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=generator).double() @ torch.randn(dim, dim, generator=generator).double() + 3


def test_before_training_they_are_principal_component_analysis():
    x = rows()
    encoder, decoder = PrincipalEncoder(12, 4, 4, (8,), "swish").double(), PrincipalDecoder(12, 4, 0, (8,), "swish")
    fit_axes((encoder, decoder.double()), lambda: x.split(50))
    centred = x - x.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:4]
    z = encoder(x)
    torch.testing.assert_close(decoder(z) - x.mean(0), centred @ axes.T @ axes)
    torch.testing.assert_close(z.T @ z / len(x), torch.eye(4).double())


@pytest.mark.parametrize("x", [rows(1), rows(3), torch.ones(20, 12).double(), rows()[:, :1].expand(-1, 12)])
def test_few_rows_and_those_that_do_not_vary_have_finite_embeddings(x):
    encoder, decoder = PrincipalEncoder(12, 4, 4, (8,), "swish").double(), PrincipalDecoder(12, 4, 2, (8,), "swish")
    fit_axes((encoder, decoder.double()), lambda: [x])
    back = decoder(encoder(x))
    torch.testing.assert_close(back[:, :12], x, atol=1e-6, rtol=1e-6) if len(x) < 4 else None
    assert back.shape == (len(x), 14)
    assert torch.isfinite(back).all()


def test_fitting_draws_no_random_numbers():
    encoder, before = PrincipalEncoder(12, 4, 4, (8,), "swish").double(), torch.get_rng_state()
    fit_axes((encoder,), lambda: [rows()])
    assert torch.equal(torch.get_rng_state(), before)


def test_autoencoders_of_colour_images_start_there_by_default():
    config = MODELS["ae"].for_data(COLOUR, "gae")
    assert (config.encoder_net, config.decoder_net) == ("pcamlp", "pcamlp")
    assert (config.latent_dim, config.output) == (96, "linear")
    assert MODELS["ae"].for_data(COLOUR, "gae", preset="reference").encoder_net == "cnn"
    torch.manual_seed(0)
    mixing = torch.randn(8, 768) * 20
    x = (128 + torch.randn(300, 8) @ mixing).clamp(0, 255).reshape(300, 3, 16, 16)
    model = MODELS["ae"].for_data(COLOUR, "gae", latent_dim=8).build(COLOUR)
    model.fit_transform(x.split(100))
    with evaluating(model):
        left = model.reconstruction_error(x).mean() / (x - x.mean(0)).square().flatten(1).sum(1).mean()
    assert left < 0.1
