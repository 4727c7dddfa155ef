"""Embeddings on a grid: the keys, the volume and what is out of its reach, and the density that sees the grid."""

import pytest
import torch

from twostep.core.schema import DataSpec, UserError
from twostep.models import MODELS
from twostep.models.base import evaluating
from twostep.models.two_step import latent_spec
from twostep.nn.unet import UNet
from twostep.nn.velocity import TimedMLP

IMAGES = DataSpec(name="images", shape=(3, 16, 16), size=100, low=0, high=255, discrete=True)


def config(**keys):
    return MODELS["ae"].for_data(IMAGES, "gae", **keys)


def test_a_grid_gives_the_number_of_coordinates_the_networks_and_their_levels():
    found = config(latent_shape="2x4x4")
    assert (found.latent_shape, found.latent_dim, found.encoder_net) == ((2, 4, 4), 32, "rescnn")
    assert len(found.encoder_hidden_channels) == 2
    assert found.decoder_hidden_channels == found.encoder_hidden_channels[::-1]
    assert type(found).parse(found.model_dump(), "ae") == found
    assert config(latent_shape=[2, 8, 8]).latent_dim == 128


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"latent_shape": "2x4"}, "like 4x7x7"),
        ({"latent_shape": "2x4xa"}, "like 4x7x7"),
        ({"latent_shape": "2x0x4"}, "like 4x7x7"),
        ({"latent_shape": "2x4x4", "latent_dim": 20}, "latent_dim=20, but latent_shape=2x4x4 has 32"),
        ({"latent_shape": "2x4x4", "latent_dim": "auto"}, "latent_dim=auto, but"),
        ({"latent_shape": "2x4x4", "encoder_net": "mlp", "decoder_net": "mlp"}, "needs encoder_net=rescnn"),
        ({"latent_shape": "2x5x5"}, "set latent_shape=2x4x4"),
        ({"latent_shape": "2x4x8"}, "set latent_shape=2x4x4"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_line(keys, words):
    with pytest.raises(UserError, match=words) as caught:
        config(**keys).build(IMAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [{"latent_shape": "2x4x4"}, {"encoder_net": "pcamlp", "decoder_net": "pcamlp"}],
    ids=lambda keys: next(iter(keys)),
)
def test_networks_that_noise_cannot_join_are_refused(keys):
    with pytest.raises(UserError, match="its noise could join"):
        MODELS["avb"].for_data(IMAGES, "gae", **keys).build(IMAGES)


def test_vectors_have_no_grid():
    vectors = DataSpec(name="vectors", shape=(5,), size=100, low=0, high=1)
    with pytest.raises(UserError, match="needs images"):
        MODELS["ae"].for_data(vectors, "gae", latent_shape="2x2x2").build(vectors)
    with pytest.raises(UserError, match="net=unet needs"):
        MODELS["fm"].for_data(vectors, "de", net="unet").build(vectors)


def test_above_its_largest_size_the_volume_is_out_of_reach_and_says_so():
    keys = {"encoder_hidden_channels": (4, 4), "decoder_hidden_channels": (4, 4)}
    x = torch.rand(2, 3, 16, 16) * 255
    near, far = (config(latent_shape=shape, **keys).build(IMAGES) for shape in ("1x4x4", "3x4x4"))
    with evaluating(near, far):
        assert torch.isfinite(near.log_volume(near.encode(x))).all()
        assert far.decode(far.encode(x)).shape == x.shape
        with pytest.raises(UserError, match="latent_dim=48 is above 32"):
            far.log_volume(far.encode(x))


def test_flow_matching_of_a_grid_is_a_unet_unless_another_network_is_asked_for():
    spec = latent_spec(IMAGES, 32, (2, 4, 4))
    kind = MODELS["fm"]
    assert isinstance(kind.for_data(spec, "de").build(spec).network, UNet)
    assert isinstance(kind.for_data(spec, "de", net="mlp").build(spec).network, TimedMLP)
    assert isinstance(kind.for_data(latent_spec(IMAGES, 32), "de").build(latent_spec(IMAGES, 32)).network, TimedMLP)
