"""Dimension over noise scales: derivatives of log-densities, closed forms for Gaussians, -(D - d) on manifolds."""

import math

import pytest
import torch

from helpers.distributions import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.distinct_rows import flat_directions
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods
from twostep.diagnosis.overfitting import noise_scales
from twostep.diagnosis.overfitting.noise_scales import gaussian_curve, local_dimensions, noise_scale_curve, thickness_of

ALL = torch.arange(300)


def drawn(name, n=1200, seed=0, **keys):
    return distribution(name, keys).sample(n, torch.Generator().manual_seed(seed))


def slope(curve):
    """Return the slope of the mean log-density against log s at the smallest resolved scale."""
    return curve.resolved[0].value - curve.dim


def log_density(x, scale):
    """Return the log-density of all other points plus noise, at each point, written down plainly."""
    squares = torch.cdist(x, x).square().fill_diagonal_(torch.inf)
    constant = math.log(len(x) - 1) + x.shape[1] * math.log(scale * math.sqrt(2 * math.pi))
    return (-squares / (2 * scale**2)).logsumexp(1) - constant


@pytest.mark.parametrize("scale", [0.1, 0.4, 2.0])
def test_the_curve_is_the_derivative_of_the_log_density(scale):
    x = gaussian(300, 3)
    step = 1e-4
    change = log_density(x, scale * math.exp(step)) - log_density(x, scale * math.exp(-step))
    values, _ = local_dimensions(x, ALL, torch.tensor([scale], dtype=torch.double))
    torch.testing.assert_close(values[:, 0] - 3, change / (2 * step), rtol=1e-4, atol=1e-4)


def test_below_the_spacing_only_the_nearest_other_counts():
    x = gaussian(300, 2)
    values, effective = local_dimensions(x, ALL, torch.tensor([1e-5], dtype=torch.double))
    nearest = torch.cdist(x, x).fill_diagonal_(torch.inf).min(1).values
    torch.testing.assert_close(values[:, 0], nearest.square() / 1e-10, rtol=1e-5, atol=0)  # 0 if a point were its own
    torch.testing.assert_close(effective, torch.ones_like(effective), rtol=1e-3, atol=0)


def test_the_gaussian_curve_is_the_derivative_of_its_log_density():
    stds, scale = torch.tensor([0.3, 1.0, 4.0], dtype=torch.double), torch.tensor(0.7, dtype=torch.double)

    def mean_log_density(log_scale):
        variances = stds.square() + (2 * log_scale).exp()
        return -0.5 * (variances.log() + stds.square() / variances).sum()

    slope = torch.autograd.functional.jacobian(mean_log_density, scale.log())
    torch.testing.assert_close(gaussian_curve(scale[None], stds)[0] - 3, slope)


@pytest.mark.parametrize("stds", [(1.0, 1.0), (2.0, 0.7, 0.3), (1.0,) * 10])
def test_gaussian_data_lie_on_the_gaussian_curve(stds):
    found = noise_scale_curve(neighbourhoods(gaussian(1000, len(stds)) * torch.tensor(stds), 20))
    assert len(found.resolved) >= 5
    for at in found.resolved:
        assert at.value == pytest.approx(at.gaussian, rel=0.06)
        assert at.low <= at.value <= at.high


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_on_the_circle_is_minus_1(seed):
    found = noise_scale_curve(neighbourhoods(drawn("von-mises-circle", seed=seed), 20), seed)
    assert slope(found) == pytest.approx(-1, abs=0.05)
    smallest, largest = found.range_of(1)
    assert smallest < 0.05
    assert largest > 0.5


@pytest.mark.parametrize(("name", "keys", "dim"), [("torus", {}, 3), ("sphere", {"ambient_dim": 8}, 8)])
def test_the_slope_is_minus_the_codimension(name, keys, dim):
    found = noise_scale_curve(neighbourhoods(drawn(name, 1500, **keys), 20))
    assert slope(found) == pytest.approx(2 - dim, abs=0.15)


def test_scales_are_in_units_of_the_data():
    x = drawn("von-mises-circle", 500)
    plain, large = (noise_scale_curve(neighbourhoods(data, 20)) for data in (x, 1000 * x + 7))
    assert large.rms_radius == pytest.approx(1000 * plain.rms_radius)
    for one, other in zip(plain.scales, large.scales, strict=True):
        assert other.scale == pytest.approx(1000 * one.scale)
        assert other.value == pytest.approx(one.value, rel=1e-5)


def test_blocks_change_nothing(monkeypatch):
    x, scales = gaussian(300, 4), torch.tensor([0.3, 1.0], dtype=torch.double)
    expected = local_dimensions(x, ALL, scales)
    monkeypatch.setattr(noise_scales, "ENTRIES", 700)
    for one, other in zip(expected, local_dimensions(x, ALL, scales), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_outliers_do_not_decide_the_curve():
    x = gaussian(1000, 2)
    x[:10] *= 1000
    found = noise_scale_curve(neighbourhoods(x, 20))
    assert found.scales
    assert all(at.value < 3 for at in found.scales if at.share > 0.5)


@pytest.mark.parametrize("name", ["von-mises-circle", "uniform_sphere"])
@pytest.mark.parametrize("noise", [0.05, 0.1])
def test_the_thickness_is_the_std_of_the_noise(name, noise):
    found = noise_scale_curve(neighbourhoods(drawn(name, 2000, noise=noise), 20))
    thickness = thickness_of(found)
    if thickness is None:  # a surface needs more points for so little noise
        assert (name, noise) == ("uniform_sphere", 0.05)
    else:
        assert thickness == pytest.approx(noise, rel=0.3)


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_full_dimensional_data_are_not_thick(dim):
    cube = torch.rand(1000, dim, generator=torch.Generator().manual_seed(0))
    for x in (cube, gaussian(1000, dim)):
        assert thickness_of(noise_scale_curve(neighbourhoods(x, 20))) is None


def test_flat_directions_lie_below_a_gap():
    assert flat_directions(torch.tensor([1e-3, 1.1e-3, 1.0, 2.0]), 200) == 2
    assert flat_directions(torch.logspace(-4, 0, 5), 20) == 0
    assert flat_directions(torch.ones(1), 20) == 0
