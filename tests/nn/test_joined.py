"""A network of two inputs is the one that gets both side by side at its first linear layer."""

import torch
from torch import nn

from twostep.nn.cnn import ConvEncoder
from twostep.nn.joined import JoinedNet
from twostep.nn.mlp import MLP


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
    plain = ConvEncoder((2, 5, 4), (3, 3), 3, 1, 2, "relu")
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
    got = net.join(net.features(x)[:, None], side)
    assert got.shape == (4, 9, 2)
    assert torch.allclose(got[2, 5], net(x[2:3], side[5:6])[0], atol=1e-6)
