"""The network of points and times: its trace in closed form against automatic differentiation."""

import pytest
import torch

from twostep.nn import ode
from twostep.nn.velocity import TimedMLP


@pytest.mark.parametrize(("dim", "blocks"), [(1, 1), (5, 0), (4, 3)])
def test_the_trace_is_that_of_automatic_differentiation(dim, blocks):
    torch.manual_seed(0)
    network = TimedMLP(dim, 16, blocks).double()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.4)
    t, y = torch.tensor(0.3).double(), torch.randn(6, dim).double()
    value, trace = network.with_trace(t, y)
    torch.testing.assert_close(value, network(t, y))
    torch.testing.assert_close(trace, ode.divergence(network, t, y))
