"""Precision, recall, density, coverage: the package that defined them, equal distributions, faults of generators."""

import contextlib
import io
import math

import pytest
import torch
from prdc import compute_prdc

from helpers.distributions import coverage, gaussian
from twostep.metrics.samples.prdc import prdc

NAMES = ("precision", "recall", "density", "coverage")


def package(data, samples, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(data.numpy(), samples.numpy(), k)


@pytest.mark.parametrize("dim", [2, 30, 400])
@pytest.mark.parametrize("k", [1, 5])
def test_figures_are_those_of_the_package_where_there_are_no_ties(dim, k):
    data, samples = gaussian(200, dim), gaussian(150, dim, 0.1, 0.9, seed=1)
    ours, theirs = prdc(data, samples, k), package(data, samples, k)
    for name in NAMES:
        assert getattr(ours, name).value == pytest.approx(theirs[name], rel=1e-9)


def expected_coverage(n, m, k=5):
    """Return the mean coverage of n data points by m samples of the same distribution.

    A point is not covered if its k nearest among all other points are data.
    """
    return 1 - math.prod((n - 1 - i) / (n - 1 - i + m) for i in range(k))


def test_identical_sets_are_perfect_also_where_every_row_is_there_six_times():
    rows = gaussian(40, 3).repeat(6, 1)
    ours, theirs = prdc(rows, rows), package(rows, rows, 5)
    assert (ours.precision.value, ours.recall.value, ours.coverage.value) == (1, 1, 1)
    assert theirs["coverage"] < 0.5  # strict `<`: a ball of radius 0 is empty


def test_mean_coverage_of_one_distribution_is_the_closed_form():
    values = [prdc(gaussian(40, 4, seed=2 * i), gaussian(30, 4, seed=2 * i + 1), 3).coverage.value for i in range(50)]
    values = torch.tensor(values)
    assert expected_coverage(40, 30, 3) == pytest.approx(float(values.mean()), abs=4 * float(values.std()) / 50**0.5)
    assert expected_coverage(1000, 1000) == pytest.approx(0.96898, abs=1e-5)
    assert expected_coverage(2, 1, 1) == pytest.approx(0.5)  # of three points, the second nearest has even odds


def test_two_samples_of_one_distribution_have_the_expected_values():
    found = prdc(gaussian(1000, 16), gaussian(1000, 16, seed=1))
    assert found.coverage.low <= expected_coverage(1000, 1000) <= found.coverage.high
    assert found.coverage.value == pytest.approx(0.969, abs=0.02)
    assert found.density.low <= 1 <= found.density.high


def test_lost_modes_cost_recall_and_coverage_and_not_precision():
    centres = 20 * gaussian(10, 8, seed=5)
    data = centres.repeat_interleave(60, 0) + gaussian(600, 8)
    samples = centres[:5].repeat_interleave(120, 0) + gaussian(600, 8, seed=1)
    found = prdc(data, samples)
    assert found.precision.value > 0.8
    assert found.recall.high < 0.6
    assert found.coverage.high < 0.6


def test_noise_costs_precision_and_density():
    found = prdc(gaussian(400, 8), gaussian(400, 8, scale=3, seed=1))
    assert found.precision.high < 0.5
    assert found.density.high < 0.5


@pytest.mark.parametrize(("shift", "scale", "dim"), [(0.0, 1.0, 2), (0.5, 1.0, 16)])
def test_intervals_hold_the_mean(shift, scale, dim):
    found = [prdc(gaussian(200, dim, seed=2 * i), gaussian(200, dim, shift, scale, seed=2 * i + 1)) for i in range(40)]
    for name in NAMES:
        assert coverage([getattr(one, name) for one in found]) >= 0.8  # 95 % of 40: below 33 in 1 of 1,000
