"""How known densities decay: thickness and contrast in closed form, and densities with a flaw."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from helpers.charts import rows
from helpers.distributions import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.model.density_decay import density_decay


def normal(stds):
    return MultivariateNormal(torch.zeros(len(stds), dtype=torch.double), scale_tril=torch.diag(stds))


@pytest.mark.parametrize("std", [1e-2, 1.0, 50.0])
def test_a_gaussian_is_as_thick_as_its_std_and_decays_equally_everywhere(std):
    found = density_decay(
        normal(torch.full((5,), std).double()).log_prob, std * gaussian(250, 5), std * gaussian(1500, 5, seed=1)
    )
    parabola = found.scales.square() / (2 * std**2)
    assert torch.allclose(found.off, parabola, rtol=1e-6, atol=1e-9)
    assert torch.allclose(found.along, parabola, rtol=1e-6, atol=1e-9)
    assert found.thickness == pytest.approx(std, rel=1e-6)
    assert found.contrast == pytest.approx(1, abs=0.05)
    assert found.finding().verdict == "good"


@pytest.mark.parametrize("dim", [2, 10])
def test_flat_directions_are_no_fault_of_the_model(dim):
    stds = torch.logspace(0, -3, dim, dtype=torch.double)
    found = density_decay(normal(stds).log_prob, stds * gaussian(250, dim), stds * gaussian(1500, dim, seed=1))
    assert found.contrast == pytest.approx(1, abs=0.15)
    assert found.thickness < 0.05 * found.rms_radius


@pytest.mark.parametrize(("noise", "contrast"), [(0.03, 15), (0.001, 500)])
def test_a_thin_density_around_a_circle_is_reported(noise, contrast):
    thin = distribution("von-mises-circle", {"noise": noise})
    found = density_decay(
        thin.log_prob, rows("von-mises-circle", 80, 0).double(), rows("von-mises-circle", 1500, 1).double()
    )
    assert found.thickness == pytest.approx(noise * math.sqrt(2), rel=0.1), "half of a random push goes off the circle"
    assert found.contrast > contrast
    assert found.finding().verdict == "check"
    small = found.scales < noise
    assert (found.along[small].abs() < 0.01 + 0.1 * found.off[small]).all()


@pytest.mark.parametrize("name", ["8gaussians", "checkerboard", "pinwheel", "two_moons", "split-gaussian"])
def test_full_dimensional_distributions_are_not_thin(name):
    found = density_decay(distribution(name).log_prob, rows(name, 250, 0).double(), rows(name, 1500, 1).double())
    assert found.contrast < 4
    assert found.finding().verdict == "good"


def test_a_constant_changes_nothing_and_a_flat_density_never_decays():
    x, train = gaussian(200, 2), gaussian(500, 2, seed=1)
    density = normal(torch.ones(2).double()).log_prob
    assert density_decay(lambda x: density(x) + 1000, x, train).thickness == pytest.approx(
        density_decay(density, x, train).thickness
    )
    flat = density_decay(lambda x: x.sum(1), x, train)
    assert flat.off.abs().max() < 1e-9
    assert flat.thickness == pytest.approx(flat.rms_radius)
    assert flat.finding().verdict == "good"


def test_draws_of_a_bound_are_the_same_on_both_sides():
    density = normal(torch.ones(2).double()).log_prob

    def bound(x):
        return density(x) + 10 * torch.randn(len(x))

    x, train = gaussian(200, 2), gaussian(500, 2, seed=1)
    state = torch.get_rng_state()
    assert torch.allclose(density_decay(bound, x, train).off, density_decay(density, x, train).off, atol=1e-5)
    assert torch.equal(state, torch.get_rng_state())


def test_the_decay_at_the_end_of_the_support_is_finite():
    def box(x):
        return torch.where((x.abs() < 1).all(1), 0.0, -torch.inf)

    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = density_decay(box, x[:100], x[100:])
    assert not found.off.isnan().any()
    assert math.isfinite(found.contrast)
    assert found.thickness > 0.2
