"""The network of points and times: its trace in closed form against automatic differentiation."""

from functools import partial

import pytest
import torch

from twostep.nn import ode
from twostep.nn.velocity import TimedMLP


@pytest.mark.parametrize("conditions", [0, 3])
@pytest.mark.parametrize(("dim", "blocks"), [(1, 1), (5, 0), (4, 3)])
def test_the_trace_is_that_of_automatic_differentiation(dim, blocks, conditions):
    torch.manual_seed(0)
    network = TimedMLP(dim, 16, blocks, conditions=conditions).double()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.4)
    t, y = torch.tensor(0.3).double(), torch.randn(6, dim).double()
    c = torch.eye(conditions).double()[:1] if conditions else None
    value, trace = network.with_trace(t, y, c)
    torch.testing.assert_close(value, network(t, y, c))
    torch.testing.assert_close(trace, ode.divergence(partial(network, c=c), t, y))
