"""Sliced distances: closed forms, SciPy in one dimension, intervals that hold."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from helpers.distributions import coverage, gaussian
from twostep.metrics.samples import sliced
from twostep.metrics.samples.sliced import sliced_wasserstein


def test_a_shift_along_one_axis_has_a_closed_form():
    x = gaussian(200, 8)
    step = torch.tensor([4.0, 0, 0, 0, 0, 0, 0, 0])
    found = sliced_wasserstein(x, x + step, directions=4000)
    assert found.value == pytest.approx(4 / math.sqrt(8), rel=0.03)  # E cos² of a random direction is 1 / D
    assert found.low <= 4 / math.sqrt(8) <= found.high


@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 18), (7, 5), (1, 1)])
def test_in_one_dimension_it_is_the_best_assignment(n, m):
    x, y = gaussian(max(n, 2), 1), gaussian(max(m, 2), 1, 0.5, seed=1)
    n, m = len(x), len(y)
    whole = math.lcm(n, m)
    xs, ys = x.repeat_interleave(whole // n), y.repeat_interleave(whole // m)
    cost = (xs[:, None] - ys).square()
    rows, columns = linear_sum_assignment(cost)
    assert sliced_wasserstein(x, y).value == pytest.approx(math.sqrt(float(cost[rows, columns].mean())), rel=1e-9)


def test_equal_sets_have_distance_0_whatever_their_order():
    x = gaussian(100, 5)
    assert sliced_wasserstein(x, x.flip(0)).value == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(x, x.repeat(3, 1)).value == pytest.approx(0, abs=1e-9)


def test_the_same_seed_gives_the_same_digits_in_blocks_of_any_size(monkeypatch):
    x, y = gaussian(60, 5), gaussian(50, 5, 0.3, seed=1)
    found = sliced_wasserstein(x, y, seed=3)
    assert found == sliced_wasserstein(x, y, seed=3)
    assert found.value != sliced_wasserstein(x, y, seed=4).value
    monkeypatch.setattr(sliced, "AT_ONCE", 7)
    assert sliced_wasserstein(x, y, seed=3).value == pytest.approx(found.value, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "shift"), [(150, 150, 0.5), (200, 120, 1.0)])
def test_intervals_hold_the_mean(n, m, shift):
    found = [
        sliced_wasserstein(gaussian(n, 4, seed=2 * i), gaussian(m, 4, shift, 1.2, seed=2 * i + 1), 64, seed=i)
        for i in range(60)
    ]
    assert coverage(found) >= 0.85
    widths = torch.tensor([one.margin for one in found])
    deviation = torch.tensor([one.value for one in found]).std() * 1.96
    assert float(widths.mean() / deviation) == pytest.approx(1, abs=0.3)
