"""Flow matching: closed forms of its start, and a trained flow against quadrature and the truth."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import twostep
from twostep.core.schema import DataSpec
from twostep.models import FlowMatching
from twostep.models.base import evaluating
from twostep.models.fm import FlowMatchingConfig
from twostep.nn.velocity import TimedMLP


def test_before_training_it_is_a_gaussian_with_the_moments_of_the_data():
    spec = DataSpec(name="vectors", shape=(4,), size=500, low=-9, high=9)
    model = FlowMatchingConfig.for_data(spec, "de").build(spec).double()
    x = 3 + 2 * torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.fit_transform([x])
    with evaluating(model):
        log_prob = model.log_prob(x)
        score = model.score(model.transform(x), 0.5)
    expected = Normal(x.mean(0), x.std(0, correction=0)).log_prob(x).sum(1)
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(score, -model.transform(x) / 1.25)


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
    x = truth.sample((2000,))
    axis = torch.linspace(-5, 5, 121)
    with evaluating(trained):
        gap = truth.log_prob(x) - trained.log_prob(x)
        mass = trained.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (10 / 120) ** 2
    assert -0.01 < float(gap.mean()) < 0.03
    assert float(mass) == pytest.approx(1, abs=0.01)


def test_an_estimate_has_the_exact_density_as_its_mean(trained, truth):
    torch.manual_seed(2)
    x = truth.sample((64,))
    with evaluating(trained):
        exact = trained.log_prob(x)
        trained.likelihood, trained.probes = "estimate", 64
        estimated = trained.log_prob(x)
        trained.likelihood = "exact"
    assert float((estimated - exact).abs().mean()) < 0.1
    assert float((estimated - exact).mean()) == pytest.approx(0, abs=0.05)


def test_samples_have_the_moments_of_the_truth(trained, truth):
    drawn = trained.sample(8000, torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn.mean(0), truth.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.var(0), truth.variance, atol=0.08, rtol=0)
