"""Integrals against closed forms: their errors hold the truth, narrow and wide densities included."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from twostep.metrics.density_check import importance, quadrature

TOLERANCE, MANY = 1e-3, 200_000


def drawn(n, dim, seed=0):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(dim, mass=1.0):
    factor = torch.linalg.cholesky(0.3 * torch.eye(dim).double() + 0.7)
    distribution = torch.distributions.MultivariateNormal(torch.full((dim,), 2.0).double(), scale_tril=factor)
    return (lambda x: mass * distribution.log_prob(x).exp()), 2 + drawn(1000, dim) @ factor.T


def holds(found, truth):
    return abs(found.value - truth) <= found.error


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("mass", [1.0, 7.5])
def test_a_gaussian_of_any_mass(dim, mass):
    f, points = gaussian(dim, mass)
    found = quadrature.integrate(f, points, TOLERANCE, MANY)
    assert holds(found, mass)
    assert found.error < (0.05 if dim == 3 else 2e-3)
    assert found.evaluations < 1.3 * MANY


def test_a_narrow_ring_is_seen_where_its_points_lie():
    """`exp(-(r - 1)² / 2s²)` has the integral `2π s √2π` up to what lies behind the origin."""
    s, angle = 0.01, 6.28 * torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ring = torch.stack([angle.cos(), angle.sin()], 1) * (1 + s * drawn(4000, 1))
    found = quadrature.integrate(lambda x: (-((x.norm(dim=1) - 1) ** 2) / 2 / s**2).exp(), ring, 1e-4, MANY)
    truth = 2 * math.pi * s * math.sqrt(2 * math.pi)
    assert holds(found, truth)
    assert found.error < 0.01 * truth


def test_the_region_grows_until_a_heavy_tail_ends():
    found = quadrature.integrate(lambda x: 1 / (math.pi * (1 + x[:, 0] ** 2)), drawn(200, 1), 1e-3, MANY)
    assert holds(found, 1)
    assert abs(found.value - 1) < 1e-3


def test_a_jump_costs_cells_and_half_a_per_cent():
    torch.manual_seed(0)
    f, points = (lambda x: (x.abs() < 1).all(1).double() / 4), 2 * torch.rand(4000, 2).double() - 1
    rough, fine = (quadrature.integrate(f, points, 1e-3, n) for n in (30_000, MANY))
    assert abs(rough.value - 1) < rough.error
    assert abs(fine.value - 1) < 0.005
    assert fine.error < rough.error


def test_a_tail_without_end_has_no_error_to_rely_on():
    assert quadrature.integrate(lambda x: torch.ones(len(x)).double(), drawn(100, 1), 1e-3, MANY).error == math.inf


def test_points_that_are_all_alike_have_a_region_too():
    f, _ = gaussian(1)
    assert holds(quadrature.integrate(f, torch.full((100, 1), 2.0), TOLERANCE, MANY), 1)


# ---- sampling


def test_the_distribution_of_the_draws_has_the_density_it_says():
    mixture = importance.StudentMixture.fit(drawn(400, 3) * torch.tensor([1.0, 5.0, 0.1]) + 3, 0)
    x = mixture.sample(50, torch.Generator().manual_seed(0))
    parts = [
        float(weight) * stats.multivariate_t(mean, factor @ factor.T, importance.FREEDOM).pdf(x)
        for weight, mean, factor in zip(mixture.weights, mixture.means, mixture.factors, strict=True)
    ]
    assert np.allclose(mixture.log_prob(x).exp(), sum(parts), rtol=1e-9)


def test_draws_have_the_covariance_of_students_t():
    mixture = importance.StudentMixture(
        *(part.double() for part in (torch.ones(1), torch.ones(1, 2), torch.eye(2)[None]))
    )
    x = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.cov(x.T), torch.eye(2).double() * 10 / 8, atol=0.04)


@pytest.mark.parametrize("mass", [1.0, 7.5])
def test_many_dimensions_within_the_standard_error(mass):
    f, points = gaussian(10, mass)
    found = [importance.integrate(f, points, 2000, seed) for seed in range(12)]
    scores = np.array([(each.value - mass) / each.error for each in found])
    assert abs(scores.mean()) < 4 / math.sqrt(12)
    assert 0.5 < scores.std() < 1.6
    assert all(1000 < each.effective < 2000 for each in found)


def test_a_density_elsewhere_has_a_small_effective_sample_size():
    f, points = gaussian(10)
    assert importance.integrate(f, points + 6, 2000, 0).effective < 50
