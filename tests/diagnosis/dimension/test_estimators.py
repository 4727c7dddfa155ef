"""Estimators of dimension: exact distributions of distances, values of scikit-dimension, invariances."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from helpers.distributions import coverage, gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.estimators import (
    SCALES,
    dimensions_around,
    local_pca,
    maximum_likelihood,
    two_nn,
)
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods

N = 5000


def exact(d, k, n=N, seed=0):
    """Give distances of a Poisson process in d dimensions: volumes of balls are sums of exponential variables."""
    generator = torch.Generator().manual_seed(seed)
    volumes = torch.empty(n, k, dtype=torch.double).exponential_(generator=generator).cumsum(1)
    return Neighbourhoods(gaussian(n, 2), volumes ** (1 / d), torch.zeros(n, k, dtype=torch.int64))


def drawn(name, n, **keys):
    return distribution(name, keys).sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("d", [0.5, 1, 3, 10, 40])
@pytest.mark.parametrize("k", [5, 20])
def test_maximum_likelihood_has_mean_d_where_its_assumption_holds(d, k):
    found = maximum_likelihood(exact(d, k), k)
    margin = 4 * d / math.sqrt(N * (k - 1))
    assert found.value == pytest.approx(d, abs=margin)
    assert abs(found.value * k / (k - 1) - d) > margin  # k in place of k - 1 would be seen
    assert found.low < d < found.high


@pytest.mark.parametrize("d", [0.5, 1, 3, 10, 40])
def test_two_nn_has_mean_d_where_its_assumption_holds(d):
    found = two_nn(exact(d, 2))
    assert found.value == pytest.approx(d, abs=4 * d / math.sqrt(0.9 * N))
    assert found.low < d < found.high
    near = exact(d, 2)
    near.distances[near.distances[:, 1] / near.distances[:, 0] > 20 ** (1 / d), 1] *= 1000  # one ratio in twenty
    assert two_nn(near).value == found.value


def test_intervals_cover_the_mean_of_the_estimator():
    found = [neighbourhoods(gaussian(400, 2, seed=seed), 20) for seed in range(60)]
    assert coverage([maximum_likelihood(near) for near in found]) > 0.85
    assert coverage([two_nn(near) for near in found]) > 0.85


def test_local_principal_components_count_directions():
    assert local_pca(neighbourhoods(drawn("affine", 600, manifold_dim=3, ambient_dim=12))).value == 3
    assert local_pca(neighbourhoods(drawn("affine", 600, manifold_dim=3, ambient_dim=200))).value == 3
    assert local_pca(neighbourhoods(drawn("torus", 3000)), 50).value == pytest.approx(2, abs=0.1)
    assert local_pca(neighbourhoods(gaussian(3000, 20))).value == pytest.approx(20, abs=0.1)


def test_local_estimates_distinguish_a_curve_from_a_disc():
    circle = drawn("von-mises-circle", 500) + torch.tensor([9.0, 0.0])
    near = neighbourhoods(torch.cat([circle, drawn("annulus", 500).double()]), 20)
    local, far = dimensions_around(near), near.points[:, 0] > 0
    assert float(1 / (1 / local[far]).mean()) == pytest.approx(1, abs=0.15)
    assert float(1 / (1 / local[~far]).mean()) == pytest.approx(2, abs=0.3)


EXPECTED = {  # scikit-dimension's TwoNN and maximum likelihood with 20 neighbours, n = 1000
    "sphere 10": (drawn("uniform_sphere", 1000, manifold_dim=10), 9.44, 8.78),
    "Gaussian 20": (gaussian(1000, 20), 17.2, 14.5),
    "swiss roll": (drawn("swiss_roll", 1000), 1.95, 1.94),
    "S-curve": (drawn("s_curve", 1000), 2.10, 1.95),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_estimates_are_those_of_scikit_dimension_on_its_sets(name):
    x, ratio, likelihood = EXPECTED[name]
    near = neighbourhoods(x, 20)
    assert two_nn(near).value == pytest.approx(ratio, rel=0.11)  # another sample, and a fit of a line
    assert maximum_likelihood(near).value == pytest.approx(likelihood, rel=0.04)


def test_digits_are_those_of_scikit_dimension():
    near = neighbourhoods(torch.from_numpy(load_digits().data), 20)
    assert two_nn(near).value == pytest.approx(8.9, rel=0.05)
    for k, figure in ((5, 8.1), (10, 7.4), (20, 6.8)):
        assert maximum_likelihood(near, k).value == pytest.approx(figure, rel=0.05)


def test_a_tenth_of_repeated_rows_changes_nothing():
    x = drawn("swiss_roll", 1000)
    plain, repeated = neighbourhoods(x, 50), neighbourhoods(torch.cat([x, x[:100]]), 50)
    for estimator in (maximum_likelihood, two_nn):
        assert estimator(repeated).value == estimator(plain).value


@pytest.mark.parametrize("dim", [3, 12])
def test_scale_and_rotation_change_nothing_and_order_not_one_bit(dim):
    x = drawn("uniform_sphere", 400, manifold_dim=2, ambient_dim=dim)
    turn = torch.linalg.qr(gaussian(dim, dim, seed=3)).Q
    estimators = (maximum_likelihood, two_nn, lambda near: local_pca(near, 30))
    plain = [estimator(neighbourhoods(x, 30)) for estimator in estimators]
    for changed in (1e-200 * x, 1e200 * x, x @ turn + 7):
        for estimator, before in zip(estimators, plain, strict=True):
            assert estimator(neighbourhoods(changed, 30)).value == pytest.approx(before.value, rel=1e-6)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(4))
    assert [estimator(neighbourhoods(x[order], 30)) for estimator in estimators] == plain


def test_the_scale_curve_shows_where_noise_ends():
    near = neighbourhoods(drawn("von-mises-circle", 3000, noise=2e-3))
    noisy = [maximum_likelihood(near, k).value for k in SCALES]
    assert noisy == sorted(noisy, reverse=True)
    assert noisy[0] > 1.5
    assert noisy[-1] < 1.1
