"""Closed forms against torch.distributions and against Monte Carlo."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from twostep.nn.distributions import kl_to_standard_normal, normal_log_prob, standard_normal_log_prob

SHAPES = [(1,), (7,), (3, 2, 5)]


def draw(*shape, seed=0):
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def independent(mean, std):
    return Independent(Normal(mean, std.expand_as(mean)), mean.ndim - 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_standard_normal(shape):
    z = 3 * draw(*shape)
    expected = independent(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)
    assert torch.allclose(standard_normal_log_prob(z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("broadcast", ["scalar", "one", "feature", "point"])
def test_normal_with_every_shape_of_deviation(shape, broadcast):
    x, mean = draw(*shape, seed=1), draw(*shape, seed=2)
    log_std = {
        "scalar": torch.tensor(-0.7, dtype=torch.float64),
        "one": torch.tensor([0.4], dtype=torch.float64),
        "feature": draw(*shape, seed=3)[0],
        "point": draw(*shape, seed=4),
    }[broadcast]
    got = normal_log_prob((x - mean).square(), log_std)
    assert got.shape == (4,)
    assert torch.allclose(got, independent(mean, log_std.exp()).log_prob(x), rtol=0, atol=1e-12)


def test_normal_with_a_full_covariance_that_is_diagonal():
    x, mean, log_std = draw(5, seed=1), draw(5, seed=2)[:1], draw(5, seed=3)[0]
    expected = MultivariateNormal(mean[0], torch.diag((2 * log_std).exp())).log_prob(x)
    assert torch.allclose(normal_log_prob((x - mean).square(), log_std), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_divergence_from_the_standard_normal(shape):
    mean, log_std = draw(*shape, seed=5), 0.5 * draw(*shape, seed=6)
    standard = independent(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(independent(mean, log_std.exp()), standard)
    assert torch.allclose(kl_to_standard_normal(mean, log_std), expected, rtol=0, atol=1e-12)


def test_divergence_is_the_mean_log_ratio_and_zero_only_at_the_prior():
    mean, log_std = torch.tensor([[0.5, -1.0]]), torch.tensor([[-0.3, 0.4]])
    torch.manual_seed(0)
    noise = torch.randn(200_000, 2)
    z = mean + log_std.exp() * noise
    ratio = normal_log_prob((z - mean).square(), log_std) - standard_normal_log_prob(z)
    error = float(ratio.std()) / len(z) ** 0.5
    assert abs(float(kl_to_standard_normal(mean, log_std)) - float(ratio.mean())) < 4 * error
    assert float(kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3))) == 0
    assert float(kl_to_standard_normal(mean, log_std)) > 0


def test_single_precision_survives_many_coordinates():
    x = 200 * torch.rand(2, 3 * 64 * 64)
    assert torch.isfinite(normal_log_prob(x.square(), torch.tensor(-5.0))).all()
