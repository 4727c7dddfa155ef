"""Flow matching: closed forms of its start, and a trained flow against quadrature and the truth."""

import copy
import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import twostep
from twostep.core.schema import DataSpec
from twostep.models import FlowMatching
from twostep.models.base import evaluating
from twostep.models.fm import FlowMatchingConfig
from twostep.nn import jacobian, ode
from twostep.nn.velocity import TimedMLP


def test_before_training_it_is_a_gaussian_with_the_moments_of_the_data():
    spec = DataSpec(name="vectors", shape=(4,), size=100, low=-9, high=9)
    model = FlowMatchingConfig.for_data(spec, "de").build(spec).double()
    x = 3 + 2 * torch.randn(100, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.fit_transform([x])
    with evaluating(model):
        log_prob = model.log_prob(x)
        score = model.score(model.transform(x), 0.5)
    expected = Normal(x.mean(0), x.std(0, correction=0)).log_prob(x).sum(1)
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(score, -model.transform(x) / 1.25)


class ExactNetwork(torch.nn.Module):
    """What a network learns of data that are N(mean, std²) in each coordinate."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.variance = mean, std.square()

    def forward(self, s, y):
        s = s.reshape(-1, 1)
        slope = (s * self.variance - (1 - s)) / ((1 - s).square() + s.square() * self.variance)
        square = s.square() + (1 - s).square()
        return (self.mean + slope * (y - s * self.mean) - (2 * s - 1) / square * y) * square.sqrt()


def test_the_exact_velocity_of_a_gaussian_has_its_density_and_its_score():
    mean, std = torch.tensor([[1.0, -2.0, 0.5], [0.4, 1.0, 2.5]]).double()
    model = FlowMatching(ExactNetwork(mean, std), (3,), tolerance=1e-4)
    x = mean + std * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.log_prob(x), Normal(mean, std).log_prob(x).sum(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.score(x, 0.5), (mean - x) / (std.square() + 0.25))


def test_scaled_data_have_the_shifted_log_density():
    torch.manual_seed(0)
    spec, x = DataSpec(name="vectors", shape=(4,), size=50, low=-9, high=9), torch.randn(50, 4).double()
    model = FlowMatchingConfig.for_data(spec, "de", hidden_units=16).build(spec).double()
    torch.nn.init.normal_(model.network.last.weight, std=0.1)
    found = []
    for scale in (1, 3):
        model.fit_transform([scale * x])
        with evaluating(model):
            found.append(model.log_prob(scale * x))
    assert float(found[0].std()) > 0.1
    torch.testing.assert_close(found[0] - found[1], torch.full_like(found[0], 4 * math.log(3)), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def truth():
    means, stds = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([[0.3, 0.5], [0.3, 0.5]])
    return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, stds), 1))


@pytest.fixture(scope="module")
def trained(truth):
    torch.manual_seed(0)
    model = FlowMatching(TimedMLP(2, 48, 2), (2,))
    keys = {"max_epochs": 10, "batch_size": 256, "use_lr_scheduler": True, "valid": None}
    return twostep.fit(model, truth.sample((32768,)), lr=3e-3, **keys)


def test_a_trained_density_is_near_the_truth_and_integrates_to_one(trained, truth):
    torch.manual_seed(1)
    x = truth.sample((1000,))
    axis = torch.linspace(-5, 5, 81)
    with evaluating(trained):
        gap = truth.log_prob(x) - trained.log_prob(x)
        mass = trained.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (10 / 80) ** 2
    assert -0.01 < float(gap.mean()) < 0.02
    assert float(mass) == pytest.approx(1, abs=0.01)


def test_the_density_is_that_of_the_noise_that_the_network_carries(trained, truth):
    x = truth.sample((32,)).double()
    model = copy.deepcopy(trained).double()
    times = torch.linspace(1, 0, 41).double()

    def noise(y):
        return ode.integrate(model.velocity, y, times)

    with evaluating(model):
        stretched = torch.linalg.slogdet(jacobian.tangents(noise, x).permute(1, 2, 0)).logabsdet
        expected = Normal(0.0, 1.0).log_prob(noise(x)).sum(1) + stretched
        for model.tolerance in (0.1, 0.001):
            torch.testing.assert_close(model.log_prob(x), expected, atol=model.tolerance, rtol=0)
        back = ode.integrate(model.velocity, noise(x), times.flip(0))
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def test_an_estimate_is_the_exact_density_within_its_standard_error(trained, truth):
    torch.manual_seed(2)
    x, spread = truth.sample((64,)), []
    with evaluating(trained):
        exact, none = trained.estimate(x)
        trained.likelihood = "estimate"
        for trained.probes in (8, 128):
            estimated, error = trained.estimate(x)
            spread.append(float(error.square().mean().sqrt()))
            assert 0.7 < float(((estimated - exact) / error).square().mean().sqrt()) < 1.4
        trained.likelihood = "exact"
    assert not none.any()
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.2)


def test_samples_have_the_moments_of_the_truth(trained, truth):
    drawn = trained.sample(8000, torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn.mean(0), truth.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.var(0), truth.variance, atol=0.08, rtol=0)


@pytest.mark.slow
def test_a_density_in_twenty_dimensions_is_near_the_truth():
    generator = torch.Generator().manual_seed(0)
    means, stds = torch.randn(8, 20, generator=generator), 0.3 + 0.5 * torch.rand(8, 20, generator=generator)
    truth = MixtureSameFamily(Categorical(torch.ones(8)), Independent(Normal(means, stds), 1))
    torch.manual_seed(1)
    spec = DataSpec(name="vectors", shape=(20,), size=100_000, low=-9, high=9)
    config = FlowMatchingConfig.for_data(spec, "de")
    keys = {"max_steps": 5000, "batch_size": 256, "use_lr_scheduler": True, "ema_decay": config.ema_decay}
    model = twostep.fit(config.build(spec), truth.sample((100_000,)), lr=config.lr, valid=None, **keys)
    x = truth.sample((1000,))
    with evaluating(model):
        assert float((truth.log_prob(x) - model.log_prob(x)).mean()) < 0.1
