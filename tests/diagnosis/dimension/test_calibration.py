"""Calibrations return the dimension of their own distributions, even or not; narrow directions don't count."""

import math

import pytest
import torch

from helpers.distributions import gaussian
from twostep.diagnosis.dimension.calibration import VISIBLE, Calibration, visible
from twostep.diagnosis.dimension.estimators import likelihood, ratio
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods

STEEP = torch.logspace(0, -1, 20, dtype=torch.double)
EVEN = torch.ones(20, dtype=torch.double)


@pytest.mark.parametrize("d", [1, 3, 7, 15])
@pytest.mark.parametrize("estimator", [likelihood, ratio])
def test_a_correction_returns_the_dimension_of_its_own_distribution(d, estimator):
    near = neighbourhoods(gaussian(1500, d, seed=5), 20)
    corrected = Calibration("Gaussian", torch.ones(100), 1500, 20).correct(estimator(near), estimator)
    assert corrected == pytest.approx(d, rel=0.08)


@pytest.mark.parametrize("d", [4, 12])
def test_an_uneven_distribution_returns_dimensions_that_an_even_one_loses(d):
    near = neighbourhoods(gaussian(1500, d, seed=5) * STEEP[:d], 20)
    value = likelihood(near)
    uneven, even = (Calibration("Gaussian", stds, 1500, 20).correct(value, likelihood) for stds in (STEEP, EVEN))
    assert uneven == pytest.approx(d, rel=0.08)
    assert even < uneven
    assert d < 10 or even < 0.9 * d


def test_a_correction_ends_at_the_limit_and_grows_with_the_value():
    calibration = Calibration("Gaussian", torch.ones(12), 300, 10)

    def corrected(value):
        return calibration.correct(value, lambda near: likelihood(near, 10))

    values = [corrected(value) for value in (0.0, 0.2, 1.0, 2.5, 4.0, 7.0, 9.0, 50.0)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == 12


def test_samples_in_fewer_dimensions_are_projections():
    calibration = Calibration("cube", STEEP, 100, 10)
    for small, large in zip(calibration.samples(3), calibration.samples(17), strict=True):
        assert torch.equal(small.points, large.points[:, :3])
    first, second = calibration.samples(3)[:2]
    assert not torch.equal(first.points, second.points)


@pytest.mark.parametrize("distance", [1e-3, 0.1, 1.0, 2.0])
def test_a_distance_is_shared_by_directions_as_far_as_they_are_wide(distance):
    stds = torch.logspace(0, -3, 40, dtype=torch.double)
    low, high = 0.0, distance
    for _ in range(100):
        middle = (low + high) / 2
        full = float((2 * stds.square()).clamp(max=middle**2).sum()) > distance**2
        low, high = (low, middle) if full else (middle, high)
    assert visible(stds, distance) == int((stds >= VISIBLE * high).sum())
    assert visible(7 * stds, 7 * distance) == visible(stds, distance)


@pytest.mark.parametrize("d", [1, 5, 200])
def test_even_directions_all_count_and_thin_ones_beside_them_do_not(d):
    near = neighbourhoods(gaussian(1000, d), 20)
    distance = float(near.distances[:, 19].median())
    stds = near.principal[1].flip(0)
    assert visible(stds, distance) == d
    thin = torch.full((50,), distance / 1000, dtype=torch.double)
    assert visible(torch.cat([stds, thin]), distance) == d


def test_a_distance_beyond_all_spread_leaves_one_direction_or_more():
    assert visible(torch.ones(3), math.inf) == 1
    assert visible(torch.ones(1), 0.0) == 1
