"""Quadrics: found where data lie on one, not where they fill their space; gradients and their mean size."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.overfitting.quadrics import enough_rows, thinnest_quadrics


def whitened(x):
    x = x - x.mean(0)
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))
    return x @ directions / variances.sqrt()


def thinnest(x):
    """Return the thickness on held-out rows."""
    x = whitened(x)
    return float(thinnest_quadrics(x[: len(x) // 2]).thickness(x[len(x) // 2 :]).min())


def sphere(dim, noise=0.0):
    known = distribution("uniform_sphere", {"manifold_dim": dim - 1, "noise": noise})
    return known.sample(2000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [2, 5, 11, 20])
def test_spheres_and_ellipsoids_are_quadrics(dim):
    assert thinnest(sphere(dim)) < 1e-6
    assert thinnest(sphere(dim) * torch.logspace(0, -1, dim, dtype=torch.double)) < 1e-6


def test_the_sphere_itself_is_found():
    x = whitened(sphere(3))
    found = thinnest_quadrics(x)
    squares = found.squares[0] / found.squares[0, 0, 0]
    centre = torch.linalg.solve(found.squares[0], -found.linear[0] / 2)
    assert float(torch.linalg.eigvalsh(squares)[0]) > 0.8
    assert float(centre.norm()) < 0.1


@pytest.mark.parametrize("noise", [1e-3, 0.03])
def test_the_thickness_is_that_of_the_noise(noise):
    dim = 4
    assert thinnest(sphere(dim, noise)) == pytest.approx(noise * dim**0.5, rel=0.1)  # 1 / √dim is a std of the sphere


@pytest.mark.parametrize("dim", [2, 5, 10, 20])
def test_full_dimensional_data_are_near_no_quadric(dim):
    cube = torch.rand(2000, dim, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    assert thinnest(gaussian(2000, dim)) > 0.6
    assert thinnest(cube) > 0.4


def test_gradients_are_those_of_autograd_and_of_mean_size_1():
    x = whitened(gaussian(500, 4) + gaussian(500, 4, seed=1).square())
    found = thinnest_quadrics(x)
    _, gradients = found.values(x)
    for index in range(len(found.constants)):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(found.values(leaf)[0][:, index].sum(), leaf)
        torch.testing.assert_close(gradients[:, index], expected)
    torch.testing.assert_close(gradients.square().sum(2).mean(0), torch.ones(4, dtype=torch.double))
    torch.testing.assert_close(found.values(x)[0].mean(0), torch.zeros(4, dtype=torch.double), atol=1e-12, rtol=0)


def test_few_rows_fit_no_quadric():
    assert enough_rows(1000, 20)
    assert not enough_rows(400, 20)
