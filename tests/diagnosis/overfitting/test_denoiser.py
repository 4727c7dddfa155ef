"""Missing dimensions by a denoiser: closed forms, never worse than a Gaussian, one dimension missing on spheres."""

import pytest
import torch
from torch import nn

from helpers.distributions import gaussian
from twostep.core.estimate import NORMAL, Estimate
from twostep.data.synthetic import distribution
from twostep.diagnosis.overfitting import denoiser
from twostep.diagnosis.overfitting.denoiser import MissingDimensions, missing_dimensions

SCALES = [0.03, 0.5, 1.0]


def measured(model, rows, scale):
    return denoiser._missing_at(model, rows, rows, scale, torch.Generator().manual_seed(0))


class Oracle(nn.Module):
    """What is known of the noise where each coordinate is 1 or -1, beyond what the Gaussian knows."""

    def forward(self, z, s):
        return (z - (z / s.square()).tanh()) / s - s * z / (1 + s.square())


class Noise(nn.Module):
    """A network that has learned nothing but noise."""

    def forward(self, z, s):
        return torch.randn(z.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", SCALES)
def test_without_a_network_the_result_is_the_gaussians(scale):
    found = measured(lambda z, s: torch.zeros_like(z), gaussian(200, 5).float(), scale)
    assert found.value == pytest.approx(5 * scale**2 / (1 + scale**2))


def test_the_best_denoiser_of_points_finds_all_dimensions_missing():
    signs = gaussian(300, 3).sign().float()
    assert measured(Oracle(), signs, 0.1).value == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("scale", SCALES)
def test_a_bad_network_is_worth_no_less_than_the_gaussian(scale):
    found = measured(Noise(), gaussian(200, 5).float(), scale)
    assert found.value == pytest.approx(5 * scale**2 / (1 + scale**2), abs=0.01)


def test_the_limit_is_constant_on_a_manifold_and_0_where_edges_grow_like_the_scale():
    def limit(small, large):
        missing = Estimate.normal(small, 0.01), Estimate.normal(large, 0.01)
        found = MissingDimensions((0.03, 0.06), missing, 5).limit
        return found.value, found.high - found.low

    assert limit(1.0, 1.0)[0] == pytest.approx(1)
    assert limit(0.2, 0.4)[0] == pytest.approx(0)
    assert limit(0.2, 0.4)[1] == pytest.approx(2 * NORMAL * 0.05**0.5 / 10)


def whitened_sphere(dim, n):
    points = distribution("uniform_sphere", {"manifold_dim": dim - 1}).sample(n, torch.Generator().manual_seed(0))
    return points / points.std(0)


def test_a_short_training_finds_the_sphere_and_none_in_a_gaussian(monkeypatch):
    monkeypatch.setattr(denoiser, "STEPS", 150)
    assert missing_dimensions(whitened_sphere(4, 600)).limit.low > 0.5
    assert missing_dimensions(gaussian(600, 4)).limit.high < 0.35


def test_training_is_seeded_and_leaves_the_global_generator(monkeypatch):
    monkeypatch.setattr(denoiser, "STEPS", 3)
    state = torch.random.get_rng_state()
    assert missing_dimensions(gaussian(200, 3), 1) == missing_dimensions(gaussian(200, 3), 1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [11, 20])
def test_one_dimension_of_high_spheres_is_missing_and_none_of_cubes(dim):
    assert (
        0.7 < missing_dimensions(whitened_sphere(dim, 1500)).limit.value < 1.1
    )  # a lower bound, 1 for a network without end
    cube = torch.rand(1500, dim, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    assert missing_dimensions((cube - 0.5) * 12**0.5).limit.high < 0.35
