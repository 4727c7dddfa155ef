"""Fréchet distances: closed forms, torchmetrics, bias for equal distributions, intervals that hold."""

import math

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from helpers.distributions import coverage, gaussian
from twostep.core.moments import Moments
from twostep.metrics.samples.frechet import distance, fd_infinity, frechet


class Given(nn.Module):
    """Features that are what is given."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return x.flatten(1)


def torchmetrics_fid(first, second):
    metric = FrechetInceptionDistance(Given(first.shape[1]), normalize=True).set_dtype(torch.float64)
    metric.update(first, real=True)
    metric.update(second, real=False)
    return float(metric.compute())


def distribution(mean, covariance):
    return Moments(2, torch.as_tensor(mean).double(), torch.as_tensor(covariance).double())


@pytest.mark.parametrize("dim", [3, 40])
def test_equal_to_torchmetrics(dim):
    mix = gaussian(dim, dim, seed=9)
    first, second = gaussian(300, dim) @ mix, gaussian(200, dim, 0.3, seed=1) @ mix.T
    assert frechet(first, second).value == pytest.approx(torchmetrics_fid(first, second), rel=1e-9)
    assert distance(Moments.of(first), Moments.of(second)) == pytest.approx(frechet(first, second).value, rel=1e-12)


def test_closed_form_of_commuting_covariances_also_where_they_are_singular():
    axes = torch.linalg.qr(gaussian(6, 6)).Q
    one, two = torch.tensor([4.0, 1.0, 9.0, 0.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.0, 4.0, 0.0, 8.0])
    first = distribution(torch.zeros(6), axes @ torch.diag(one.double()) @ axes.T)
    second = distribution(torch.ones(6), axes @ torch.diag(two.double()) @ axes.T)
    expected = 6 + float((one.sqrt() - two.sqrt()).square().sum())
    assert distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert distance(second, first) == pytest.approx(expected, rel=1e-10)


def test_fewer_rows_than_columns_give_the_nuclear_norm_of_the_rows():
    first, second = gaussian(12, 50), gaussian(9, 50, 0.5, 2, seed=1)
    one, two = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (first, second))
    expected = (first.mean(0) - second.mean(0)).square().sum() + one.square().sum() + two.square().sum()
    expected -= 2 * torch.linalg.svdvals(one @ two.T).sum()
    assert frechet(first, second).value == pytest.approx(float(expected), rel=1e-9)


def test_equal_sets_and_constant_sets():
    x = gaussian(100, 20)
    assert frechet(x, x).value == pytest.approx(0, abs=1e-9)
    zeros = torch.zeros(10, 3)
    assert frechet(zeros, zeros + 2).value == pytest.approx(12)
    padded = torch.cat([x, zeros.double().repeat(10, 1)], 1)
    assert frechet(padded, 2 * padded).value == pytest.approx(frechet(x, 2 * x).value, rel=1e-9)


def test_bias_of_two_samples_of_one_distribution():
    """The closed form of the bias of isotropic Gaussians is D (D + 1) / 2n + ...: 0.54 D²/n at D = 64, n = 5000."""
    values = [frechet(gaussian(5000, 64, seed=2 * i), gaussian(5000, 64, seed=2 * i + 1)).value for i in range(3)]
    assert sum(values) / 3 == pytest.approx(0.54 * 64**2 / 5000, rel=0.03)


@pytest.mark.parametrize(("shift", "scale", "floor"), [(0.0, 1.0, 0.9), (0.1, 1.0, 0.88), (0.3, 1.3, 0.88)])
def test_intervals_hold_the_mean_at_this_n_and_the_truth_without_the_bias(shift, scale, floor):
    dim, truth = 8, 8 * (shift**2 + (scale - 1) ** 2)
    pairs = [(gaussian(300, dim, seed=2 * i), gaussian(300, dim, shift, scale, seed=2 * i + 1)) for i in range(100)]
    plain, infinite = [frechet(*pair) for pair in pairs], [fd_infinity(*pair) for pair in pairs]
    assert coverage(plain) >= floor
    assert coverage(infinite, truth) >= floor
    # the bias is what the interval of the plain distance does not know of
    assert sum(one.value for one in plain) / 100 > truth + 0.08
    assert sum(one.value for one in infinite) / 100 == pytest.approx(truth, abs=0.03)
    if scale > 1:
        widths = torch.tensor([one.margin for one in plain])
        deviation = torch.tensor([one.value for one in plain]).std() * 1.96
        assert float(widths.mean() / deviation) == pytest.approx(1, abs=0.2)


def test_the_extrapolation_is_the_same_for_the_same_seed():
    first, second = gaussian(50, 3), gaussian(50, 3, seed=1)
    assert fd_infinity(first, second, 1) == fd_infinity(first, second, 1)
    assert fd_infinity(first, second, 1) != fd_infinity(first, second, 2)
