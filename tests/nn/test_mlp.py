"""Fully connected networks against their formulas, and the neutral start of the residual one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twostep.nn.layers import ACTIVATIONS
from twostep.nn.mlp import MLP, ResidualMLP

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
