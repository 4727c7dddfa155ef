"""Normalisers of energies: against closed forms and sums over a grid, from below and from above."""

import math

import pytest
import torch
from scipy import stats

from twostep.core.schema import DataSpec
from twostep.metrics.density_check.certificate import check_normalised
from twostep.models.ebm import EBMConfig
from twostep.models.normalized_ebm import NormalizedEBM
from twostep.models.parts import annealing
from twostep.models.parts.annealing import log_normalizer
from twostep.models.two_step import TwoStep, latent_spec
from twostep.nn.distributions import fitted_mixture

PLANE = DataSpec(name="plane", shape=(2,), size=1000, low=-1, high=1)


def noise(n, dim, seed=0):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(dim, n):
    """Return a correlated Gaussian's energy, with 3 added to it, samples, and its log-normaliser."""
    A = torch.eye(dim).double() + noise(dim, dim, 1) / 4
    precision = torch.linalg.inv(A @ A.T)
    truth = dim / 2 * math.log(2 * math.pi) + float(torch.linalg.slogdet(A).logabsdet) - 3
    return lambda y: ((y - 1) @ precision * (y - 1)).sum(1) / 2 + 3, 1 + noise(2 * n, dim) @ A.T, truth


def by_grid(energy, low, high):
    """Return the log of the sum of `exp(-E)` over a fine grid of the plane."""
    x = torch.linspace(low, high, 601, dtype=torch.float64)
    cell = float(x[1] - x[0]) ** 2
    return float((-energy(torch.cartesian_prod(x, x))).logsumexp(0)) + math.log(cell)


def test_a_gaussian_in_ten_dimensions_to_a_twentieth_of_a_nat():
    energy, samples, truth = gaussian(10, 300)
    found = log_normalizer(energy, samples, 20, 0)
    assert abs(found.value - truth) < 0.05
    assert abs(found.lower - truth) < 0.05
    assert abs(found.upper - truth) < 0.05
    assert abs(found.value - truth) < 4 * found.standard_error
    assert found.chains == 300


def test_samples_that_are_too_narrow_are_moved_apart():
    energy, samples, truth = gaussian(10, 300)
    found = log_normalizer(energy, 1 + 0.8 * (samples - 1), 30, 0)
    assert abs(found.value - truth) < 0.1


def test_a_crooked_density_in_the_plane_to_a_hundredth_of_a_nat():
    def energy(y):
        return 4 * (y.norm(dim=1) - 2) ** 2 + y[:, 0].cos()

    angle = 2 * math.pi * torch.rand(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ring = torch.cat([angle.cos(), angle.sin()], 1) * (2 + noise(2000, 1) / math.sqrt(8))
    found = log_normalizer(energy, ring, 30, 0)
    truth = by_grid(energy, -6, 6)
    assert abs(found.value - truth) < 0.01
    assert found.standard_error < 0.01


def test_few_steps_leave_one_bound_below_and_one_above():
    """The mixture is fitted to narrower points than those at which reverse chains begin, which are exact."""
    energy, samples, truth = gaussian(6, 500)
    samples[::2] = 1 + (samples[::2] - 1) / 3
    few, more = (log_normalizer(energy, samples, steps, 0) for steps in (2, 25))
    assert few.lower < truth - 0.2
    assert few.upper > truth + 0.2
    assert more.upper - more.lower < (few.upper - few.lower) / 3


def test_what_the_mixture_has_outside_of_a_box_counts_in_neither_direction():
    def energy(y):
        return torch.where((y.abs() < 1).all(1), y.sum(1), torch.inf)

    uniform = 2 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    found = log_normalizer(energy, uniform, 60, 0)
    truth = 2 * math.log(2 * math.sinh(1))
    assert abs(found.lower - truth) < 4 * found.lower_error
    assert abs(found.upper - truth) < 0.06, "the mixture has an eighth of its mass outside"


def test_the_kernel_leaves_its_distribution_as_it_is():
    """A quartic with steps so long that many are refused: without the refusal the distribution would be another."""
    exact = stats.gennorm(4, scale=2 ** (1 / 4))  # density of exp(-y^4 / 2)
    u = torch.from_numpy(exact.rvs((4000, 1), random_state=0))
    path = annealing.AnnealedPath(lambda u: -u.square().sum(1), lambda u: -(u**4).sum(1) / 2)
    torch.manual_seed(0)
    for _ in range(20):
        u, accepted = path.moved(u, 1.0, 1.2)
    assert 0.2 < accepted < 0.9
    assert stats.kstest(u[:, 0].numpy(), exact.cdf).pvalue > 0.01


def test_steps_are_as_long_as_the_pilot_has_them_accepted():
    distribution = fitted_mixture(noise(400, 5), 0)
    path = annealing.AnnealedPath(distribution.log_prob, lambda u: -50 * u.square().sum(1))
    torch.manual_seed(0)
    lengths = path.pilot(distribution.sample((200,)), torch.linspace(0, 1, 61).tolist())
    assert lengths[-1] < lengths[0] / 3
    _, accepted = path.moved(noise(4000, 5) / 10, 1.0, lengths[-1])
    assert 0.6 < accepted < 0.95


# ---- the energy-based model


def ebm(**keys):
    torch.manual_seed(0)
    model = EBMConfig.for_data(PLANE, "de", energy_func_hidden_dims=(16, 16), max_length_buffer=64, **keys).build(PLANE)
    model.fit_transform([3 * torch.randn(500, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]) + 5])
    with torch.no_grad():
        for layer in list(model.net)[::2]:
            layer.weight.mul_(2)
    return model.requires_grad_(False)


def normalized(model, chains, temperatures):
    return NormalizedEBM(model, model.log_normalizer(chains, temperatures))


SAMPLER = {"ld_steps": 40, "ld_step_size": 0.02, "ld_sigma": 0.2, "ld_grad_clamp": None, "ld_eps_new": 1.0}


@pytest.mark.parametrize("keys", [{}, {"preset": "reference", **SAMPLER}])
def test_the_model_agrees_with_a_grid(keys):
    model = ebm(**keys)
    low, high = (-8, 8) if not keys else (-1, 1)
    found = model.log_normalizer(chains=500, temperatures=20)
    truth = by_grid(lambda y: model.energy(y.float()).double(), low, high)
    assert abs(found.value - truth) < max(0.01, 3 * found.standard_error)
    assert found.standard_error < 0.03


def test_a_gap_shows_that_the_models_samples_have_not_its_distribution():
    """The published dynamics go down in energy until they are stopped at the edge of the box."""
    model = ebm(preset="reference", ld_steps=5)
    found = model.log_normalizer(chains=100, temperatures=10)
    truth = by_grid(lambda y: model.energy(y.float()).double(), -1, 1)
    assert abs(found.value - truth) < 3 * found.standard_error
    assert found.standard_error > 0.3


def test_a_normalised_energy_has_mass_one_in_data_space_and_is_called_an_estimate():
    model = normalized(ebm(), 500, 20)
    found = check_normalised(model, evaluations=10_000)
    assert found.verdict == "normalised", found.line()
    assert found.integral.kind == "estimate"
    assert found.integral.value == pytest.approx(1, abs=0.02)
    x = model.sample(5, torch.Generator().manual_seed(0))
    apart = model.log_prob(x) - model.model.log_prob(x)
    assert torch.allclose(apart, torch.full((5,), -model.log_z.value), atol=1e-4)


def test_outside_of_the_box_there_is_no_density():
    model = normalized(ebm(preset="reference", ld_steps=5), 100, 10)
    assert model.log_prob(torch.tensor([[1000.0, 1000.0]])).tolist() == [-math.inf]


def test_the_line_says_what_each_bound_rests_on():
    line = ebm().log_normalizer(100, 10).line()
    assert "100 chains each way" in line
    assert line.startswith("log Z ")


def test_nothing_but_the_seed_decides_and_nothing_is_changed():
    model = ebm().train()
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    first, again, other = (model.log_normalizer(50, 5, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training


def test_a_two_step_model_with_an_estimate_has_an_estimate():
    from twostep.models.ae import AutoencoderConfig

    spec = DataSpec(name="space", shape=(5,), size=100, low=-1, high=1)
    gae = AutoencoderConfig.for_data(spec, "gae", latent_dim=2).build(spec)
    model = EBMConfig.for_data(latent_spec(spec, 2), "de").build(latent_spec(spec, 2))
    model.fit_transform([torch.randn(50, 2)])
    assert TwoStep(gae, normalized(model, 50, 5)).likelihood == "estimate"
