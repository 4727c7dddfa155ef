"""Langevin dynamics: its stationary distribution, its box, its clamp, and the random numbers it draws."""

import math

import pytest
import torch
from scipy import stats

from twostep.models.parts.langevin import Langevin

FAR = (-1e9, 1e9)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("curvature", [1.0, 4.0])
def test_a_quadratic_energy_has_its_gaussian_distribution(curvature):
    """With η = σ²/2 the chain is a Gaussian autoregression of variance 1 / (k (1 - η k / 2))."""
    sigma = 0.2
    step = sigma**2 / 2
    langevin = Langevin(step, sigma, FAR)
    y = langevin(lambda y: curvature * y, torch.full((4000, 1), 3.0, dtype=torch.float64), 500, seeded())
    variance = 1 / (curvature * (1 - step * curvature / 2))
    assert stats.kstest(y[:, 0].numpy(), "norm", (0, math.sqrt(variance))).pvalue > 0.01
    assert stats.kstest(y[:, 0].numpy(), "norm", (0, 1.15 * math.sqrt(variance))).pvalue < 0.01, "the test is sharp"


def test_a_double_well_is_visited_by_its_weights():
    """E = -log(0.7 N(-1, 0.5²) + 0.3 N(1, 0.5²)): chains that all start in one well spread as the density says."""
    distribution = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.7, 0.3])),
        torch.distributions.Normal(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 0.5])),
    )

    def gradient(y):
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            return torch.autograd.grad(-distribution.log_prob(y).sum(), y)[0]

    y = Langevin(0.02, 0.2, FAR)(gradient, torch.ones(2000, 1), 1000, seeded())
    assert stats.kstest(y[:, 0].numpy(), lambda y: distribution.cdf(torch.from_numpy(y)).numpy()).pvalue > 0.01


def test_one_step_is_the_formula():
    start = torch.tensor([[0.5, -0.25]])
    y = Langevin(0.1, 0.0, FAR, gradient_limit=2.0)(lambda y: torch.tensor([[5.0, -0.5]]), start, 1)
    assert torch.allclose(y, torch.tensor([[0.5 - 0.1 * 2.0, -0.25 + 0.1 * 0.5]]))
    free = Langevin(0.1, 0.0, FAR)(lambda y: torch.tensor([[5.0, -0.5]]), start, 1)
    assert torch.allclose(free, torch.tensor([[0.0, -0.2]]))


def test_points_stay_in_the_box():
    y = Langevin(1.0, 5.0, (-0.5, 2.0))(torch.zeros_like, torch.zeros(500, 3), 20, seeded())
    assert float(y.min()) == -0.5
    assert float(y.max()) == 2.0


def test_noise_comes_from_the_generator_and_start_is_left_alone():
    langevin, start = Langevin(0.1, 0.5, FAR), torch.rand(4, 2)
    kept, before = start.clone(), torch.get_rng_state()
    one = langevin(lambda y: y, start, 3, seeded(1))
    assert torch.equal(one, langevin(lambda y: y, start, 3, seeded(1)))
    assert not torch.equal(one, langevin(lambda y: y, start, 3, seeded(2)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(start, kept)
    langevin(lambda y: y, start, 1)
    assert not torch.equal(torch.get_rng_state(), before), "without a generator it is torch's own"


def test_each_step_draws_noise_of_its_own():
    y = Langevin(1.0, 1.0, FAR)(torch.zeros_like, torch.zeros(20_000, 1), 9, seeded())
    assert float(y.std()) == pytest.approx(3.0, rel=0.03)


def test_no_steps_change_nothing_and_no_graph_is_built():
    start = torch.rand(3, 2, requires_grad=True)
    y = Langevin(0.1, 0.5, FAR)(lambda y: y, start, 0)
    assert torch.equal(y, start)
    assert not y.requires_grad
