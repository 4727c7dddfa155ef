"""The map to principal axes: its moments, its Jacobian, its inverse, and what it does to data that hardly vary."""

import math

import pytest
import torch

from twostep.nn.principal import Principal


def data(n=500, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return 7 + torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mix


def fitted(x, power):
    principal = Principal(x.shape[1], power).double()
    principal.fit(x.split(120))
    return principal


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_coordinates_are_uncorrelated_and_have_the_stds_it_says(power):
    x = data()
    principal = fitted(x, power)
    covariance = principal(x).T.cov(correction=0)
    assert torch.allclose(covariance, torch.diag(principal.spread.square()), atol=1e-10)
    stds = torch.linalg.eigvalsh(x.T.cov(correction=0)).sqrt()
    assert torch.allclose(principal.spread, (stds / stds[0]) ** (1 - power))
    assert torch.allclose(principal(x).mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inverse_and_jacobian(power):
    x = data()
    principal = fitted(x, power)
    assert torch.allclose(principal.inverse(principal(x)), x, atol=1e-10)
    J = torch.autograd.functional.jacobian(lambda point: principal(point[None])[0], x[0])
    assert torch.allclose(principal.log_abs_det_jacobian(x), torch.linalg.slogdet(J).logabsdet.expand(len(x)))


def test_a_whitening_hardly_moves_where_two_axes_change_places():
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide, high = (fitted(x * torch.tensor(stds, dtype=torch.float64), 1.0) for stds in ((1.02, 1.0), (1.0, 1.02)))
    assert torch.allclose(wide(x), high(x), atol=0.2)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_directions_without_variance_keep_finite_coordinates(power):
    x = data()
    x = torch.cat([x, x[:, :1], torch.ones(len(x), 1, dtype=torch.float64)], 1)
    principal = fitted(x, power)
    largest = float(x.T.cov(correction=0).trace()) ** 0.5
    assert float(principal.scale.min()) >= 0.004 * largest
    assert torch.allclose(principal.inverse(principal(x)), x, atol=1e-9)
    still = fitted(torch.full((20, 3), 5.0, dtype=torch.float64), power)
    assert math.isclose(float(still.log_abs_det_jacobian(x[:1, :3])), 0.0, abs_tol=1e-12)
