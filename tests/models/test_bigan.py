"""BiGAN: its critic against distances and slopes known in closed form, its players against each other's inverse."""

import math
from unittest.mock import Mock

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers.configs import built
from helpers.toys import new_trainer
from twostep.core.schema import DataSpec
from twostep.data.batches import Batches
from twostep.models.base import evaluating
from twostep.models.bigan import BiGANConfig
from twostep.training.engine import Engine
from twostep.training.optim import cosine, set_rate

PLANE = DataSpec(name="plane", shape=(2,), size=2000, low=-3, high=3)
VECTORS = DataSpec(name="vectors", shape=(5,), size=50, low=-4, high=4)
MODES = {"penalty": {}, "clamp": {"gradient_penalty": False}, "classical": {"wasserstein": False}}


def build(spec=VECTORS, seed=0, hidden=(8,), **keys):
    """Return a small model in double precision whose transform is the identity."""
    torch.manual_seed(seed)
    sizes = {f"{net}_hidden_dims": hidden for net in ("encoder", "decoder", "discriminator")}
    return built(BiGANConfig(**{"latent_dim": 2, **sizes, **keys}), spec).double()


def points(n=16, spec=VECTORS, seed=1):
    return torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(model, x, seed=0):
    """Return the logits that a loss sees on pairs of data and of the prior, whose draws follow from the seed."""
    torch.manual_seed(seed)
    z = model._prior(len(x))
    return model.discriminator(x, model.encoder(x)), model.discriminator(model.decoder(z), z)


def bent(n, seed=0):
    """Return points of a bent square, `(u, v + u²)`, spread unevenly."""
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([2 * u[:, 0] - 1, u[:, 1].square() + u[:, 0].square()], 1)


def train(model, x, steps, batch=64):
    """Take steps on random rows, as the trainer takes them."""
    objectives, rates = model.objectives(), model.config.optimizers()
    optimizers = [torch.optim.Adam(one.parameters, lr=rates[one.name].lr, fused=True) for one in objectives]
    for step in range(steps):
        torch.manual_seed(step)
        rows = x[torch.randint(len(x), (batch,))]
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            if step % objective.every == 0:
                set_rate(optimizer, cosine(rates[objective.name], step / steps))
                optimizer.zero_grad()
                objective.loss(rows).backward(inputs=objective.parameters)
                optimizer.step()


def errors(model, x):
    """Return how far `f(g(z))` is from z and `g(f(x))` from x, as shares of the variances."""
    with evaluating(model):
        z = 2 * torch.rand(1000, model.latent_dim, generator=torch.Generator().manual_seed(0)) - 1
        code = (model.encode(model.decode(z)) - z).square().mean() * 3
        return float(code), float(model.reconstruction_error(x).mean() / x.var(0).sum())


# ---- encoder and generator invert each other


def small_on_the_plane(**keys):
    torch.manual_seed(0)
    sizes = {"latent_dim": PLANE.dim, **{f"{net}_hidden_dims": (32,) for net in ("encoder", "decoder")}}
    x = bent(2000)
    model = built(BiGANConfig.for_data(PLANE, "gae", **{**sizes, "discriminator_hidden_dims": (64, 64), **keys}), PLANE)
    model.fit_transform([x])
    return model, x


def test_encoder_and_generator_become_inverse_to_each_other():
    model, x = small_on_the_plane(disc_lr=8e-3, ge_lr=8e-3)
    assert min(errors(model, x)) > 0.5
    train(model, x, 500)
    code, error = errors(model, x)
    assert code < 0.15
    assert error < 0.06


@pytest.mark.slow
def test_by_default_a_plane_is_inverted_and_with_the_papers_weights_it_is_not():
    found = {}
    for preset in ("twostep", "reference"):
        model, x = small_on_the_plane(preset=preset)
        train(model, x, 3000, batch=128)
        found[preset] = errors(model, x)
    assert max(found["twostep"]) < 0.05
    assert min(found["reference"]) > 3 * max(found["twostep"])


# ---- the critic's losses


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_the_penalised_critic_measures_a_shift_as_the_wasserstein_distance_says(shift):
    """Pairs `(y, y)` and `(z + δ, z)`, both uniform: a linear critic of slope s gains `s δ - λ (s - 1)²` at most."""
    line = DataSpec(name="line", shape=(1,), size=50, low=-1, high=1)
    model = build(line, hidden=(), latent_dim=1)
    with torch.no_grad():
        for net, bias in ((model.encoder, 0.0), (model.decoder, shift)):
            net[0].weight.fill_(1.0)
            net[0].bias.fill_(bias)
    critic, _ = model.objectives()
    optimizer = torch.optim.Adam(critic.parameters, lr=0.03)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    model._prior = lambda like: grid
    for _ in range(300):
        optimizer.zero_grad()
        loss = critic.loss(grid)
        loss.backward()
        optimizer.step()
    slope = 1 + shift / 20
    assert float(loss.detach()) == pytest.approx(-(slope * shift - 10 * (slope - 1) ** 2), abs=1e-4)
    assert float(model.discriminator.features[0].weight.detach()) == pytest.approx(-slope, abs=1e-3)


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_the_slope_penalty_of_a_linear_critic_and_its_gradient(slope):
    model = build(hidden=())
    layers = model.discriminator.features[0].weight, model.discriminator.side.weight
    norm = torch.cat(layers, 1).detach().norm()
    with torch.no_grad():
        for weight in layers:
            weight.mul_(slope / norm)
    penalty = model._slope_penalty(points(32), torch.randn(32, 2, dtype=torch.float64))
    assert float(penalty.detach()) == pytest.approx((slope - 1) ** 2, abs=1e-12)
    gradients = torch.autograd.grad(penalty, layers)
    for gradient, weight in zip(gradients, layers, strict=True):
        assert torch.allclose(gradient, 2 * (slope - 1) / slope * weight, atol=1e-12)


def test_the_slope_penalty_is_that_of_autograd_between_the_pairs():
    model = build(hidden=(8, 8))
    data, codes = points(32), torch.randn(32, 2, dtype=torch.float64)
    seen = []
    handle = model.discriminator.register_forward_hook(lambda module, given, result: seen.append(given))
    penalty = model._slope_penalty(data, codes)
    handle.remove()
    ((x, z),) = seen
    share_x = (x - data[:16]) / (data[16:] - data[:16])
    share_z = (z - codes[:16]) / (codes[16:] - codes[:16])
    assert torch.allclose(share_x, share_x[:, :1].expand_as(share_x), atol=1e-9)
    assert torch.allclose(share_z, share_x[:, :2], atol=1e-9)
    assert float(share_x.detach().min()) >= 0
    assert float(share_x.detach().max()) <= 1
    assert float(share_x.detach().std()) > 0.15
    slopes = [
        torch.autograd.functional.jacobian(lambda both: model.discriminator(both[None, :5], both[None, 5:]).sum(), row)
        for row in torch.cat([x, z], 1).detach()
    ]
    assert float(penalty.detach()) == pytest.approx(float((torch.stack(slopes).norm(dim=1) - 1).square().mean()))


def test_the_penalty_enters_with_its_weight():
    x, losses = points(), []
    for weight in (0.0, 10.0, 25.0):
        critic, _ = build(penalty_weight=weight).objectives()
        torch.manual_seed(3)
        losses.append(float(critic.loss(x).detach()))
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(2.5 * (losses[1] - losses[0]))
    data, drawn = pairs(build(), x, seed=3)
    assert losses[0] == pytest.approx(float((drawn - data).mean().detach()))


def test_the_players_of_the_wasserstein_game_want_what_the_critic_does_not():
    model, x = build(gradient_penalty=False, recon_weight=0.0), points()
    losses = []
    for objective in model.objectives():
        torch.manual_seed(0)
        losses.append(float(objective.loss(x).detach()))
    assert losses[0] == pytest.approx(-losses[1])
    assert losses[0] != 0


def test_the_classical_losses_are_cross_entropies_with_labels_and_with_labels_swapped():
    model, x = build(wasserstein=False, recon_weight=0.0), points()
    data, drawn = pairs(model, x)
    ones = torch.ones_like(data)
    for objective, label in zip(model.objectives(), (1.0, 0.0), strict=True):
        torch.manual_seed(0)
        expected = binary_cross_entropy_with_logits(data, label * ones)
        expected = expected + binary_cross_entropy_with_logits(drawn, (1 - label) * ones)
        assert float(objective.loss(x).detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_reconstruction_errors_enter_with_their_weight(mode):
    x, losses = points(), []
    for weight in (0.0, 7.0):
        model = build(recon_weight=weight, **MODES[mode])
        torch.manual_seed(0)
        losses.append(float(model.objectives()[1].loss(x).detach()))
    error = float(model.reconstruction_error(x).mean().detach())
    assert losses[1] - losses[0] == pytest.approx(7 * error)


# ---- who moves, when, and with whose gradients


@pytest.mark.parametrize("mode", MODES)
def test_each_step_fills_gradients_of_its_own_player_alone(mode):
    model, x = build(**MODES[mode]), points()
    critic, ge = model.objectives()
    graphs = []
    hooks = [
        net.register_forward_hook(lambda module, given, result: graphs.append(result.requires_grad))
        for net in (model.encoder, model.decoder)
    ]
    critic.loss(x).backward()
    assert graphs == [False, False], "one pass through each without a graph"
    assert all(parameter.grad is None for parameter in ge.parameters)
    assert all(parameter.grad is not None for parameter in critic.parameters)
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    ge.loss(x).backward(inputs=ge.parameters)
    assert all(parameter.grad is None for parameter in critic.parameters)
    assert all(parameter.grad is not None for parameter in ge.parameters)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_critic_takes_its_steps_for_each_of_the_players(steps):
    model = build(num_discriminator_steps=steps, max_epochs=2, early_stopping_metric=None).float()
    callback = Mock(must_stop=lambda: False)
    trainer = new_trainer("gae", model, Engine("cpu"), lambda *_: {})
    trainer.fit(Batches(points(40).float(), 4), callbacks=[callback])
    taken = [set(call.args[1]) for call in callback.step.call_args_list]
    assert len(taken) == 20
    assert all("discriminator" in names for names in taken)
    assert [step for step, names in enumerate(taken) if "ge" in names] == list(range(0, 20, steps))


@pytest.mark.parametrize("limit", [0.01, 0.3])
def test_without_a_penalty_weights_are_clamped_after_each_step_of_the_critic(limit):
    model = build(gradient_penalty=False, clamp=limit)
    critic, ge = model.objectives()
    assert max(float(parameter.detach().abs().max()) for parameter in critic.parameters) > limit
    others = [parameter.detach().clone() for parameter in ge.parameters]
    assert critic.after is not None
    before = [parameter.detach().clone() for parameter in critic.parameters]
    critic.after(lambda rows: rows)
    for parameter, old in zip(critic.parameters, before, strict=True):
        assert torch.equal(parameter, old.clamp(-limit, limit))
    assert all(torch.equal(parameter, old) for parameter, old in zip(ge.parameters, others, strict=True))
    assert ge.after is None


@pytest.mark.parametrize("mode", ["penalty", "classical"])
def test_no_other_critic_is_clamped(mode):
    assert all(objective.after is None for objective in build(**MODES[mode]).objectives())


def test_the_prior_is_uniform_on_the_cube():
    model = build(latent_dim=3)
    torch.manual_seed(0)
    z = model._prior(20_000)
    assert z.shape == (20_000, 3)
    assert z.dtype == torch.float64
    grid = (torch.arange(1, 20_001, dtype=torch.float64) / 20_000)[:, None]
    assert float(((z.sort(0).values + 1) / 2 - grid).abs().max()) < 1.95 / math.sqrt(20_000), "Kolmogorov, 0.1 %"
    correlations = torch.corrcoef(z.T) - torch.eye(3)
    assert float(correlations.abs().max()) < 4 / math.sqrt(20_000)


# ---- samples


def test_samples_are_what_the_generator_makes_of_the_prior():
    torch.manual_seed(0)
    model = built(BiGANConfig(latent_dim=2, decoder_hidden_dims=()), PLANE).double().requires_grad_(False)
    drawn = model.sample(50_000, torch.Generator().manual_seed(0))
    linear = model.decoder[0]
    assert torch.allclose(drawn.mean(0), linear.bias, atol=0.02)
    assert torch.allclose(drawn.T.cov(), linear.weight @ linear.weight.T / 3, atol=0.02), (
        "of a uniform distribution on [-1, 1]"
    )
    assert torch.equal(
        model.sample(5, torch.Generator().manual_seed(3)), model.sample(5, torch.Generator().manual_seed(3))
    )


# ---- configuration


@pytest.mark.parametrize("key", ["lambda", "_lambda"])
def test_the_old_names_of_the_weight_still_set_it(key):
    assert BiGANConfig.for_data(PLANE, "gae", **{key: 3}).penalty_weight == 3


def test_each_player_has_its_own_rate():
    rates = BiGANConfig(disc_lr=0.1, ge_lr=0.2, use_ge_lr_scheduler=False).optimizers()
    assert (rates["discriminator"].lr, rates["discriminator"].use_scheduler) == (0.1, True)
    assert (rates["ge"].lr, rates["ge"].use_scheduler) == (0.2, False)


def test_errors_weigh_more_where_they_are_sums_over_few_coordinates_and_the_papers_are_one_key_away():
    sets = {dim: DataSpec(name="data", shape=(dim,), size=9, low=0, high=1) for dim in (2, 64, 196, 784, 3072)}
    ours = [BiGANConfig.for_data(spec, "gae").recon_weight for spec in sets.values()]
    assert ours == [10, 10, 4, 1, 1]
    paper = BiGANConfig.for_data(sets[2], "gae", preset="reference")
    assert (paper.recon_weight, paper.disc_lr, paper.ge_lr) == (1, 1e-4, 1e-4)


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 7, 4)])
@pytest.mark.parametrize("mode", MODES)
def test_a_cnn_makes_pairs_too(shape, mode):
    spec = DataSpec(name="images", shape=shape, size=50, low=0, high=255, discrete=True)
    nets = {
        "encoder_net": "cnn",
        "decoder_net": "cnn",
        "encoder_hidden_channels": (3,),
        "decoder_hidden_channels": (3,),
    }
    torch.manual_seed(0)
    model = built(BiGANConfig.for_data(spec, "gae", latent_dim=2, **nets, **MODES[mode]), spec)
    x = 255 * torch.rand(4, *shape)
    model.fit_transform([x])
    critic, ge = model.objectives()
    assert all(torch.isfinite(objective.loss(x)) for objective in (critic, ge))
    assert model.decode(model.encode(x)).shape == x.shape
