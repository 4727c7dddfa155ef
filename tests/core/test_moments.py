"""Moments in blocks, principal axes and Gaussian mixtures against closed forms."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.moments import Moments, gaussian_mixture, leading_axes, principal_axes


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_blocks_are_those_of_all_rows(offset):
    x = gaussian(500, 7, offset)
    merged = Moments.of_blocks(x.split(17))
    assert merged.n == 500
    torch.testing.assert_close(merged.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.covariance, torch.cov(x.T), rtol=1e-9, atol=1e-9)


def test_principal_axes_diagonalise_the_covariance_and_do_not_depend_on_the_unit():
    covariance = torch.cov(gaussian(100, 4).T)
    variances, axes = principal_axes(covariance)
    assert bool((variances.diff() < 0).all())
    torch.testing.assert_close(axes * variances @ axes.T, covariance)
    torch.testing.assert_close(principal_axes(1e6 * covariance)[1], axes)


@pytest.mark.parametrize(("n", "dim"), [(50, 4), (4, 50)])
def test_leading_axes_are_the_first_principal_axes(n, dim):
    x = gaussian(n, dim)
    mean, axes = leading_axes(x, 3)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close((axes.T @ principal_axes(torch.cov(x.T))[1][:, :3]).abs(), torch.eye(3).double())


@pytest.mark.parametrize("kind", ["full", "diag", "tied"])
def test_the_mixture_has_as_many_components_as_the_points_have_clusters(kind):
    x = torch.cat([gaussian(200, 2), gaussian(400, 2, 9.0, seed=1)])
    weights, means, covariances = gaussian_mixture(x, (1, 2, 4), 0, kind)
    order = weights.argsort()
    torch.testing.assert_close(weights[order], torch.tensor([1 / 3, 2 / 3]).double())
    torch.testing.assert_close(means[order], torch.stack([x[:200].mean(0), x[200:].mean(0)]))
    assert covariances.shape == {"full": (2, 2, 2), "diag": (2, 2), "tied": (2, 2)}[kind]


def test_a_score_decides_in_place_of_the_information_criterion():
    x = gaussian(200, 2)
    assert len(gaussian_mixture(x, (1, 3), 0, score=lambda mixture: mixture.n_components)[0]) == 3
