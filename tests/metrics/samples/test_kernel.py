"""Kernel distances: torchmetrics, brute force, no bias for equal distributions, intervals that hold."""

import itertools

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from helpers.distributions import coverage, gaussian
from twostep.metrics.samples import kernel
from twostep.metrics.samples.kernel import kid, mmd


@pytest.fixture(params=[1024, 16])
def block(request, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("shift", "dim"), [(0.0, 5), (0.3, 60)])
def test_one_subset_of_all_rows_is_that_of_torchmetrics(shift, dim):
    data, samples = gaussian(90, dim), gaussian(90, dim, shift, seed=1)
    assert kid(data, samples).value == pytest.approx(float(poly_mmd(data, samples)), rel=1e-9)
    assert kid(data.float(), samples.float()).value == pytest.approx(float(poly_mmd(data, samples)), rel=1e-3, abs=1e-5)


def brute_force(x, y, width):
    def k(a, b):
        return float(torch.exp(-(a - b).square().sum() / (2 * width**2)))

    n = len(x)
    pairs = list(itertools.permutations(range(n), 2))
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / len(pairs)
    return within - 2 * sum(k(a, b) for a in x for b in y) / n**2


@pytest.mark.usefixtures("block")
def test_mmd_is_that_of_brute_force():
    x, y = gaussian(25, 3), gaussian(25, 3, 0.5, seed=1)
    width = float(torch.pdist(torch.cat([x, y])).median())
    assert mmd(x, y).value == pytest.approx(brute_force(x, y, width), rel=1e-9)
    assert mmd(x + 1e4, y + 1e4).value == pytest.approx(brute_force(x, y, width), rel=1e-6)


def test_the_terms_of_the_variance_are_unbiased():
    """Small n, where a biased estimate would show: ζ of the product kernel h(i, j) = u_i u_j, u = x - y ~ N(s, 2)."""
    s = 0.7
    found = [
        kernel._discrepancy(gaussian(5, 1, s, seed=2 * i), gaussian(5, 1, seed=2 * i + 1), lambda x, y: x @ y.T)
        for i in range(4000)
    ]
    _, first, second = torch.tensor(found).T
    for values, truth in ((first, 2 * s**2), (second, (2 + s**2) ** 2 - s**4)):
        assert float(values.mean()) == pytest.approx(truth, abs=4 * float(values.std()) / 4000**0.5)


def repeated(measure, shift, rows=100, rounds=100):
    return [
        measure(gaussian(rows, 6, seed=2 * i), gaussian(rows, 6, shift, seed=2 * i + 1), seed=i) for i in range(rounds)
    ]


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.5])
def test_intervals_hold_the_mean(shift):
    for found in (repeated(kid, shift), repeated(mmd, shift)):
        assert coverage(found) >= 0.88
        widths = torch.tensor([one.margin for one in found])
        deviation = torch.tensor([one.value for one in found]).std() * 1.96
        assert float(widths.mean() / deviation) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("measure", [kid, mmd])
def test_two_samples_of_one_distribution_have_distance_0_in_the_mean(measure):
    values = torch.tensor([one.value for one in repeated(measure, 0.0)])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 10


def test_subsets_have_the_mean_and_the_interval_of_all_rows():
    found = repeated(lambda x, y, seed: kid(x, y, 20, 50, seed), 0.3, rows=400, rounds=60)
    whole = repeated(kid, 0.3, rows=400, rounds=60)
    values, truths = (torch.tensor([one.value for one in some]) for some in (found, whole))
    assert float(values.mean()) == pytest.approx(float(truths.mean()), abs=2 * float((values - truths).std()) / 60**0.5)
    assert coverage(found) >= 0.85
    assert "20 of 50 rows" in found[0].method


def test_rows_that_are_all_alike_have_distance_0():
    same = torch.ones(10, 3)
    assert mmd(same, same).value == pytest.approx(0, abs=1e-12)
    assert kid(same, same).value == pytest.approx(0, abs=1e-12)
