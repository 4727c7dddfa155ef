"""The bound as a function of its number of draws, against the closed form of a linear VAE."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from bound_curve import bound_curve
from helpers.contracts import Case
from twostep.core.schema import DataSpec, UserError
from twostep.models.vae import VAEConfig

SPEC = DataSpec(name="vectors", shape=(3,), size=50, low=-9, high=9)


def linear_vae(shift=0.0, widen=0.0, **keys):
    """Return a VAE of one latent with `y = w z + N(0, I / 4)`, the law of its data, and the divergence of q.

    The posterior is `N(4 wᵀy / m, 1 / m)` with `m = 1 + 4 wᵀw`; `shift` moves q from it, `widen` adds to its log std.
    """
    w = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    m = 1 + 4 * float(w @ w)
    config = VAEConfig(latent_dim=1, encoder_hidden_dims=(), decoder_hidden_dims=(), **keys)
    model = config.build(SPEC).double().requires_grad_(False)
    model.encoder[0].weight.copy_(torch.stack([4 * w / m, 0 * w]))
    model.encoder[0].bias.copy_(torch.tensor([shift, widen - 0.5 * math.log(m)]))
    model.decoder[0].weight.copy_(w[:, None])
    model.decoder[0].bias.zero_()
    model.log_sigma.fill_(math.log(0.5))
    divergence = (math.exp(2 * widen) + m * shift**2 - 1) / 2 - widen
    return model, MultivariateNormal(torch.zeros(3).double(), torch.outer(w, w) + torch.eye(3) / 4), divergence


@pytest.mark.parametrize("keys", [{}, {"whitening_transform": True}])
def test_with_the_exact_posterior_every_k_gives_the_density(keys):
    model, law, _ = linear_vae(**keys)
    x = law.sample((200,))
    truth = float(law.log_prob(x).mean())
    if keys:
        x = 3 * x + 1
        model.transform.parts[-1].mean.fill_(1)
        model.transform.parts[-1].std.fill_(3)
        truth -= 3 * math.log(3)
    curve = bound_curve(model, x, (1, 4, 10))
    assert [result.value for result in curve.values()] == pytest.approx([truth] * 3, abs=1e-9)
    assert {(result.kind, result.unit, result.measure, result.n) for result in curve.values()} == {
        ("bound", "nats", "Lebesgue on R^3", 200)
    }


def test_with_another_posterior_the_curve_climbs_from_the_evidence_bound_to_the_density():
    torch.manual_seed(0)
    model, law, divergence = linear_vae(shift=0.15, widen=0.5)
    x = law.sample((2000,))
    truth = float(law.log_prob(x).mean())
    curve = bound_curve(model, x, (1, 2, 5, 20, 100))
    gaps = [truth - result.value for result in curve.values()]
    assert gaps[0] == pytest.approx(divergence, rel=0.02)
    assert gaps == sorted(gaps, reverse=True)
    assert abs(gaps[-1]) < 0.03 * gaps[0]
    assert curve[1].standard_error == pytest.approx(float(law.log_prob(x).std()) / math.sqrt(2000), rel=0.1)
    assert [result.note for result in curve.values()][2] == "5 draws at each point, mean of 20 such"


def test_the_curve_at_its_model_k_is_the_models_own_log_prob():
    model, law, _ = linear_vae(widen=0.5, k=20)
    x = law.sample((500,))
    torch.manual_seed(3)
    own = float(model.log_prob(x).mean())
    assert bound_curve(model, x, [20], seed=3)[20].value == pytest.approx(own, abs=1e-12)


def test_draws_follow_from_the_seed_alone_in_whatever_order_ks_stand():
    model, law, _ = linear_vae(widen=0.5)
    x = law.sample((20,))
    before = torch.get_rng_state()
    assert bound_curve(model, x, (5, 1), 1) == bound_curve(model, x, (1, 5), 1) != bound_curve(model, x, (1, 5), 2)
    assert list(bound_curve(model, x, (5, 1))) == [1, 5]
    assert torch.equal(torch.get_rng_state(), before)


def test_avb_has_a_curve_that_climbs():
    case = Case("avb", "de", SPEC)
    curve = bound_curve(case.build(), case.data(), (1, 10, 100))
    values = [result.value for result in curve.values()]
    assert values == sorted(values)


def test_other_models_and_no_draws_are_refused():
    case = Case("flow", "de", SPEC)
    with pytest.raises(UserError, match="no bound by importance weights"):
        bound_curve(case.build(), case.data(), (1, 2))
    for ks in ((), (0, 5)):
        with pytest.raises(UserError, match="must be positive"):
            bound_curve(linear_vae()[0], case.data(), ks)


def test_integers_are_dequantised():
    model, law, _ = linear_vae()
    x = law.sample((50,)).round()
    assert bound_curve(model, x.to(torch.int8), (3,)) == bound_curve(model, x, (3,))
