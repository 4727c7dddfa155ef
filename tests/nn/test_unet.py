"""The U-Net of grids and times: zero at first, any size of grid, and its divergence estimated without bias."""

import pytest
import torch

from twostep.nn import ode
from twostep.nn.unet import UNet


def random_net(grid, **keys):
    torch.manual_seed(0)
    net = UNet(grid, 4, **keys).double()
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return net


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 5), (3, 7, 4)])
def test_grids_of_any_size_come_back_and_start_at_zero(grid):
    net, y = UNet(grid, 8), torch.randn(2, grid[0] * grid[1] * grid[2])
    assert torch.equal(net(torch.tensor([0.1, 0.9]), y), torch.zeros_like(y))


def test_every_value_depends_on_the_time_and_on_every_other_value():
    net, y = random_net((2, 5, 4)), torch.randn(2, 40).double()
    assert (net(torch.tensor(0.2).double(), y) != net(torch.tensor(0.7).double(), y)).all()
    J = torch.autograd.functional.jacobian(lambda row: net(torch.tensor(0.2).double(), row[None])[0], y[0])
    assert (J != 0).all()
    times = torch.tensor([0.2, 0.7]).double()
    torch.testing.assert_close(net(times, y)[1], net(times[1], y[1:])[0])


def test_the_divergence_is_autograds_and_its_estimate_is_unbiased():
    net, y = random_net((1, 4, 4)), torch.randn(2, 16).double()
    t = torch.tensor(0.3).double()
    exact = ode.divergence(net, t, y)
    rows = [torch.autograd.functional.jacobian(lambda row: net(t, row[None])[0], row).trace() for row in y]
    torch.testing.assert_close(exact, torch.stack(rows))
    probes = 1 - 2.0 * torch.randint(2, (1000, *y.shape)).double()
    estimates = ode.divergence(net, t, y, probes)
    error = estimates.std(0) / len(probes) ** 0.5
    assert ((estimates.mean(0) - exact).abs() < 4 * error).all()
    assert (error > 0).all()


def test_dropout_leaves_out_values_in_training_alone():
    net, y = random_net((1, 4, 4), dropout=0.5), torch.randn(3, 16).double()
    t = torch.tensor(0.3).double()
    assert not torch.equal(net(t, y), net(t, y))
    net.eval()
    assert torch.equal(net(t, y), net(t, y))
