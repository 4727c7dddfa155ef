"""What integrates to 1 is certified; planted errors, bounds and undecided densities are reported as such."""

import math

import pytest
import torch

from twostep.core.schema import DataSpec, UserError
from twostep.metrics.density_check.certificate import check_normalised
from twostep.models import MODELS
from twostep.models.ae import AutoencoderConfig
from twostep.models.flow import FlowConfig
from twostep.models.two_step import TwoStep, latent_spec

SMALL = {
    "latent_dim": 2,
    "encoder_hidden_dims": (8,),
    "decoder_hidden_dims": (8,),
    "discriminator_hidden_dims": (8,),
    "noise_dim": 4,
    "energy_func_hidden_dims": (8,),
    "hidden_units": 8,
    "hidden_size": 8,
    "num_layers": 2,
    "num_blocks_per_layer": 1,
}


def spec_of(dim):
    return DataSpec(name="vectors", shape=(dim,), size=300, low=-30, high=30)


def correlated(dim):
    generator = torch.Generator().manual_seed(dim)
    return 2 + torch.randn(300, dim, generator=generator) @ (torch.eye(dim) + 0.3) * 3


def density(name, dim, **keys):
    torch.manual_seed(0)
    small = {key: value for key, value in SMALL.items() if key in MODELS[name].model_fields}
    model = MODELS[name].for_data(spec_of(dim), "de", **small, **keys).build(spec_of(dim))
    model.fit_transform([correlated(dim)])
    return model


def without_jacobian(model):
    """Plant the error: a log_prob that leaves out log|det| of the data's transform."""
    model.transform.log_abs_det_jacobian = lambda x: x.new_zeros(len(x))
    return model


def two_step(encoder=1.0, dim=2):
    """Return a linear two-step model whose encoder is `encoder` times the inverse of its decoder."""
    torch.manual_seed(0)
    gae = AutoencoderConfig(latent_dim=dim, encoder_hidden_dims=(), decoder_hidden_dims=()).build(spec_of(5))
    with torch.no_grad():
        gae.encoder[0].weight.copy_(encoder * torch.linalg.pinv(gae.decoder[0].weight))
        gae.encoder[0].bias.copy_(-gae.encoder[0].weight @ gae.decoder[0].bias)
    de = FlowConfig(num_layers=2, hidden_units=8, whitening_transform=True).build(latent_spec(spec_of(5), dim))
    de.fit_transform([correlated(dim)])
    return TwoStep(gae, de)


@pytest.mark.parametrize("name", ["flow", "arm"])
@pytest.mark.parametrize("dim", [1, 2, 10])
def test_an_exact_density_is_normalised_and_without_its_jacobian_it_is_not(name, dim):
    model, x = density(name, dim), correlated(dim)
    found = check_normalised(model, x, evaluations=20_000)
    assert found.verdict == "normalised", found.line()
    assert abs(found.integral.value - 1) < 0.02
    assert found.integral.kind == "exact"
    assert found.integral.measure == f"Lebesgue on R^{dim}"
    missing = math.exp(-float(model.transform.log_abs_det_jacobian(x[:1])))
    planted = check_normalised(without_jacobian(model), x, evaluations=20_000)
    assert planted.verdict == "not normalised", planted.line()
    assert planted.integral.value == pytest.approx(missing, rel=0.05)


@pytest.mark.parametrize("dim", [2, 10])
def test_five_per_cent_too_much_are_seen(dim):
    model = density("flow", dim)
    plain = model.log_prob
    model.log_prob = lambda x: plain(x) + math.log(1.05)
    assert check_normalised(model, evaluations=40_000).verdict == "not normalised"


@pytest.mark.parametrize(("name", "k"), [("vae", 1), ("vae", 20), ("avb", 5)])
def test_a_bound_has_at_most_the_mass_of_a_density(name, k):
    model = density(name, 2, k=k)
    found = check_normalised(model, correlated(2), evaluations=20_000)
    assert found.verdict == "a bound", found.line()
    assert found.integral.value < 1 + 3 * found.integral.standard_error
    assert found.integral.kind == "bound"
    assert check_normalised(without_jacobian(model), evaluations=10_000).verdict == "not normalised"


def test_more_draws_bring_a_bound_nearer_to_one():
    masses = [check_normalised(density("vae", 2, k=k), evaluations=30_000).integral.value for k in (1, 100)]
    assert masses[0] < 0.8 < 0.95 < masses[1] < 1.02


def test_an_unnormalised_density_is_refused():
    with pytest.raises(UserError, match=r"unnormalised .* estimate its normaliser"):
        check_normalised(density("ebm", 2))


def test_a_density_that_is_not_a_number_is_refused():
    model = density("flow", 2)
    model.log_prob = lambda x: torch.full((len(x),), torch.nan)
    with pytest.raises(UserError, match="not a number at"):
        check_normalised(model)


def test_too_few_draws_that_count_decide_nothing():
    """A narrow density inside of the draws' distribution meets a handful of them, whatever its mass is."""
    model = density("flow", 10)
    model.log_prob = lambda x: torch.distributions.Normal(2.0, 0.2).log_prob(x).sum(1)
    found = check_normalised(model, evaluations=5_000)
    assert found.verdict == "undecided"
    assert "effective sample size" in found.line()


# ---- on the manifold


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_the_mass_of_a_two_step_model_is_one(dim):
    found = check_normalised(two_step(dim=dim), correlated(5), evaluations=20_000)
    assert found.verdict == "normalised", found.line()
    assert found.integral.measure == "volume of the learned manifold"


@pytest.mark.parametrize("dim", [2, 4])
def test_an_encoder_that_is_no_inverse_of_the_decoder_is_seen(dim):
    found = check_normalised(two_step(encoder=1.5, dim=dim), evaluations=20_000)
    assert found.verdict == "not normalised"
    assert found.integral.value == pytest.approx(1.5**-dim, rel=0.03)


def test_a_decoder_whose_volume_is_left_out_is_seen():
    model = two_step()
    volume = float(model.gae.log_volume(torch.zeros(1, 2)).detach())
    model.log_prob = model.log_prob_latent
    found = check_normalised(model, evaluations=20_000)
    assert found.verdict == "not normalised"
    assert found.integral.value == pytest.approx(math.exp(volume), rel=0.02)


def test_points_at_which_the_decoder_is_singular_are_counted_and_named():
    """A unit that is dead on one side folds half of the plane to a line, which has no area."""
    model = two_step()
    model.gae.decoder.insert(0, torch.nn.Linear(2, 2))
    model.gae.decoder.insert(1, torch.nn.ReLU())
    with torch.no_grad():
        model.gae.decoder[0].weight.copy_(torch.eye(2))
        model.gae.decoder[0].bias.copy_(torch.tensor([100.0, -2.0]))
    found = check_normalised(model, evaluations=20_000)
    assert found.verdict == "not normalised"
    assert "Jacobian has rank below 2" in found.line()


def test_the_same_seed_gives_the_same_digits_and_leaves_the_generator_alone():
    model = density("vae", 2)
    before = torch.get_rng_state()
    first, again, other = (check_normalised(model, evaluations=5_000, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
