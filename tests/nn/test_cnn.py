"""Convolutional networks: every size of image, kernel and stride comes back exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twostep.core.schema import UserError
from twostep.nn.cnn import ConvDecoder, ConvEncoder, Convolutions
from twostep.nn.layers import ACTIVATIONS

SIDE = st.integers(1, 17)
KERNEL = st.integers(1, 8)
STRIDE = st.integers(1, 4)
LAYERS = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(height=SIDE, width=SIDE, kernel=KERNEL, stride=STRIDE, layers=LAYERS, padding=st.booleans())
def test_a_decoder_makes_exactly_the_images_an_encoder_takes(height, width, kernel, stride, layers, padding):
    shape = (layers % 3 + 1, height, width)
    try:
        encoder = ConvEncoder(shape, Convolutions(range(2, 2 + layers), kernel, stride, "tanh", padding), 3)
    except UserError:
        assert not padding
        assert min(height, width) < kernel * stride**layers * layers
        return
    decoder = ConvDecoder(3, shape, Convolutions(range(1 + layers, 1, -1), kernel, stride, "tanh", padding))
    x = torch.randn(2, *shape)
    z = encoder(x)
    assert z.shape == (2, 3)
    assert decoder(z).shape == x.shape


@settings(deadline=None, max_examples=40)
@given(height=SIDE, width=SIDE, kernel=KERNEL, stride=STRIDE, layers=LAYERS)
def test_the_decoder_mirrors_the_encoders_sizes(height, width, kernel, stride, layers):
    encoder = ConvEncoder((1, height, width), Convolutions([2] * layers, kernel, stride), 3)
    decoder = ConvDecoder(3, (1, height, width), Convolutions([2] * layers, kernel, stride))
    sizes = [(height, width)]
    h = torch.zeros(1, 1, height, width)
    for layer in encoder:
        if isinstance(layer, nn.Conv2d):
            h = layer(h)
            sizes.append(tuple(h.shape[2:]))
    h = decoder.image(decoder.linear(torch.zeros(1, 3)))
    mirrored = [tuple(h.shape[2:])]
    for layer in decoder.layers:
        h = layer(h)
        if isinstance(layer, nn.ConvTranspose2d):
            mirrored.append(tuple(h.shape[2:]))
    assert mirrored == sizes[::-1]


def test_an_odd_kernel_with_stride_one_keeps_the_size():
    encoder = ConvEncoder((3, 9, 7), Convolutions([4, 5]), 2)
    assert encoder[0](torch.zeros(1, 3, 9, 7)).shape == (1, 4, 9, 7)
    assert encoder[-1].in_features == 5 * 9 * 7


def test_without_padding_each_layer_takes_the_kernel_less_one_from_each_side():
    encoder = ConvEncoder((1, 28, 28), Convolutions([2] * 4, padding=False), 2)
    assert encoder[-1].in_features == 2 * 20 * 20
    with pytest.raises(UserError, match="padding=False"):
        ConvEncoder((1, 28, 8), Convolutions([2] * 4, padding=False), 2)


def test_every_pixel_is_seen_and_every_pixel_is_made():
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    encoder = ConvEncoder((2, 6, 5), Convolutions([3, 4], 3, 2, "swish"), 2).double()
    encoder(x).sum().backward()
    assert (x.grad != 0).all()
    decoder = ConvDecoder(2, (2, 6, 5), Convolutions([4, 3], 3, 2, "swish")).double()
    low, high = decoder(torch.zeros(1, 2, dtype=torch.float64)), decoder(torch.ones(1, 2, dtype=torch.float64))
    assert (low != high).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_named_activation_stands_after_each_convolution(name):
    encoder = ConvEncoder((1, 5, 5), Convolutions([2, 2], activation=name), 2)
    assert [type(layer) for layer in encoder] == [
        nn.Conv2d,
        ACTIVATIONS[name],
        nn.Conv2d,
        ACTIVATIONS[name],
        nn.Flatten,
        nn.Linear,
    ]
    decoder = ConvDecoder(2, (1, 5, 5), Convolutions([2, 2], activation=name))
    assert [type(layer) for layer in decoder.layers] == [ACTIVATIONS[name], nn.ConvTranspose2d] * 2
