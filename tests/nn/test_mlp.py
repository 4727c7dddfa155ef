"""Fully connected networks against their formulas: plain, residual, and of two inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twostep.nn.cnn import ConvEncoder, Convolutions
from twostep.nn.layers import ACTIVATIONS
from twostep.nn.mlp import MLP, JoinedNet, ResidualMLP

WIDTH = st.integers(1, 9)


@settings(deadline=None, max_examples=30)
@given(in_dim=WIDTH, hidden=st.lists(WIDTH, max_size=3), out_dim=WIDTH, batch=st.integers(0, 3))
def test_sizes_of_the_layers(in_dim, hidden, out_dim, batch):
    net = MLP(in_dim, hidden, out_dim, "relu")
    assert net(torch.randn(batch, in_dim)).shape == (batch, out_dim)
    widths = [(layer.in_features, layer.out_features) for layer in net if isinstance(layer, nn.Linear)]
    assert widths == list(zip([in_dim, *hidden], [*hidden, out_dim], strict=True))


@pytest.mark.parametrize(
    ("name", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("swish", lambda h: h * torch.sigmoid(h))]
)
def test_the_formula_with_each_activation(name, function):
    net = MLP(3, [4], 2, name)
    x = torch.randn(5, 3)
    expected = function(x @ net[0].weight.T + net[0].bias) @ net[2].weight.T + net[2].bias
    assert torch.allclose(net(x), expected, atol=1e-5)
    assert name in ACTIVATIONS


def test_without_hidden_layers_it_is_affine():
    net = MLP(3, [], 2, "relu")
    x = torch.randn(4, 3)
    assert torch.allclose(net(2 * x) - net(x), net(x) - net(0 * x), atol=1e-5)


def test_the_formula_of_residual_blocks():
    net = ResidualMLP(3, 6, 2, 2)
    nn.init.normal_(net.last.weight)
    x = torch.randn(5, 3)
    h = net.first(x)
    for block in net.blocks:
        h = h + block[3](torch.relu(block[1](torch.relu(h))))
    assert torch.allclose(net(x), net.last(h), atol=1e-5)
    assert len(net.blocks) == 2


@settings(deadline=None, max_examples=20)
@given(in_dim=WIDTH, width=st.integers(1, 64), blocks=st.integers(0, 3), out_dim=WIDTH)
def test_residual_networks_start_near_zero_and_can_leave(in_dim, width, blocks, out_dim):
    net = ResidualMLP(in_dim, width, out_dim, blocks)
    out = net(torch.randn(8, in_dim))
    assert out.shape == (8, out_dim)
    assert float(out.detach().abs().max()) < 0.1
    out.sum().backward()
    assert (net.last.bias.grad != 0).all()
    assert net.last.weight.grad.abs().sum() > 0


def test_an_mlp_of_two_inputs_is_one_of_both_side_by_side():
    torch.manual_seed(0)
    net = JoinedNet(MLP(5, (7, 6), 2, "tanh"), 3)
    both = MLP(8, (7, 6), 2, "tanh")
    first = net.features[0]
    with torch.no_grad():
        both[0].weight.copy_(torch.cat([first.weight, net.side.weight], 1))
        both[0].bias.copy_(first.bias)
    for ours, theirs in zip(list(net.rest)[1::2], list(both)[2::2], strict=True):
        theirs.load_state_dict(ours.state_dict())
    x, side = torch.randn(4, 5), torch.randn(4, 3)
    assert torch.allclose(net(x, side), both(torch.cat([x, side], 1)), atol=1e-6)


def test_a_cnn_gets_its_second_input_beside_the_flattened_features():
    torch.manual_seed(0)
    plain = ConvEncoder((2, 5, 4), Convolutions((3, 3)), 2)
    layers = list(plain)
    net = JoinedNet(plain, 6)
    x, side = torch.randn(4, 2, 5, 4), torch.randn(4, 6)
    flat = nn.Sequential(*layers[:-1])(x)
    weight = torch.cat([layers[-1].weight, net.side.weight], 1)
    expected = torch.cat([flat, side], 1) @ weight.T + layers[-1].bias
    assert torch.allclose(net(x, side), expected, atol=1e-6)


def test_the_weights_start_as_those_of_one_layer_of_both():
    torch.manual_seed(0)
    net = JoinedNet(MLP(300, (200,), 1, "relu"), 100)
    for weight in (net.features[0].weight, net.side.weight):
        assert 0.99 * 400**-0.5 < float(weight.detach().abs().max()) <= 400**-0.5


def test_features_of_one_point_meet_many_second_inputs():
    torch.manual_seed(0)
    net = JoinedNet(MLP(5, (7,), 2, "relu"), 3)
    x, side = torch.randn(4, 5), torch.randn(9, 3)
    got = net.rest(net.features(x)[:, None] + net.side(side))
    assert got.shape == (4, 9, 2)
    assert torch.allclose(got[2, 5], net(x[2:3], side[5:6])[0], atol=1e-6)
