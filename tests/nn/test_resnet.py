"""Residual convolutions: any size of image comes back, and a grid of embeddings keeps places apart."""

import pytest
import torch

from twostep.core.schema import UserError
from twostep.nn.resnet import Levels, ResidualDecoder, ResidualEncoder


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5), (2, 1, 9)])
@pytest.mark.parametrize("channels", [(4,), (4, 8)])
def test_a_decoder_makes_the_images_that_an_encoder_takes(shape, channels):
    encoder = ResidualEncoder(shape, Levels(channels), 3)
    decoder = ResidualDecoder(3, shape, Levels(channels[::-1]))
    x = torch.randn(2, *shape)
    assert encoder(x).shape == (2, 3)
    assert decoder(encoder(x)).shape == x.shape


def test_an_embedding_on_a_grid_sees_its_own_place_of_the_image():
    torch.manual_seed(0)
    levels = Levels((4,), grid=(2, 8, 8))
    encoder, x = ResidualEncoder((1, 16, 16), levels, 128).double(), torch.randn(1, 1, 16, 16).double()
    other = x.clone()
    other[..., :2, :2] += 1e-3  # the group norm's moments carry some of it everywhere
    moved = (encoder(other) - encoder(x)).abs().unflatten(1, levels.grid)[0].amax(0)
    assert moved[:2, :2].mean() > 5 * moved[5:, 5:].mean()
    assert ResidualDecoder(128, (1, 16, 16), levels).double()(encoder(x)).shape == x.shape


def test_a_grid_of_another_size_is_refused_with_the_one_that_fits():
    with pytest.raises(UserError, match="set latent_shape=2x4x3"):
        ResidualEncoder((1, 8, 6), Levels((4,), grid=(2, 8, 8)), 128)
