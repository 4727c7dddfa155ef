"""WAE: its critic against a known ratio, its embeddings against the prior, its losses in closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from twostep.core.schema import DataSpec, UserError
from twostep.models.base import OptimizerConfig, evaluating
from twostep.models.wae import WAEConfig
from twostep.runs.overrides import parse_overrides, split_single
from twostep.training.optim import cosine, set_rate

BOTH = {"discriminator": 0.02, "reconstruction": 0.002}
VECTORS = DataSpec(name="vectors", shape=(5,), size=2000, low=-4, high=4)
GREY = DataSpec(name="grey", shape=(1, 28, 28), size=60, low=0, high=255, discrete=True)
DIGITS = DataSpec(name="digits", shape=(1, 8, 8), size=60, low=0, high=16, discrete=True)
COLOUR = DataSpec(name="colour", shape=(3, 32, 32), size=60, low=0, high=255, discrete=True)


def build(spec=VECTORS, seed=0, hidden=32, **keys):
    torch.manual_seed(seed)
    sizes = {f"{net}_hidden_dims": (hidden,) for net in ("encoder", "decoder", "discriminator")}
    return WAEConfig(**{"latent_dim": 2, **sizes, **keys}).build(spec)


def sheet(n, seed=0):
    """Return points of a bent sheet in R^5, two coordinates of which are uniform on a square."""
    u = 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) - 1
    return torch.stack([u[:, 0], u[:, 1], u[:, 0] * u[:, 1], u[:, 0].square(), torch.sin(3 * u[:, 1])], 1)


def train(model, x, steps, rates, batch=256):
    """Take steps on random rows; `rates` are those of the named objectives, and fall to 0 by a cosine."""
    players = [(one, rates[one.name]) for one in model.objectives() if one.name in rates]
    optimizers = [torch.optim.Adam(one.parameters, rate, fused=True) for one, rate in players]
    for step in range(steps):
        torch.manual_seed(step)
        rows = x[torch.randint(len(x), (batch,))]
        for (objective, rate), optimizer in zip(players, optimizers, strict=True):
            set_rate(optimizer, cosine(OptimizerConfig(rate, True), step / steps))
            optimizer.zero_grad()
            objective.loss(rows).backward(inputs=objective.parameters)
            optimizer.step()


def discrepancy(one, other, shuffles=200):
    """Return the maximum mean discrepancy of two samples, and that of each random split of both (the null)."""
    both = torch.cat([one, other])
    distances = torch.cdist(both, both)
    kernel = (-distances / distances.median()).exp()
    torch.manual_seed(0)
    orders = [torch.arange(len(both)), *(torch.randperm(len(both)) for _ in range(shuffles))]
    sign = torch.cat([torch.ones(len(one)) / len(one), -torch.ones(len(other)) / len(other)])
    signs = torch.stack([torch.empty_like(sign).index_copy(0, order, sign) for order in orders])
    values = torch.einsum("si,ij,sj->s", signs, kernel, signs)
    return float(values[0]), values[1:]


def is_of_the_distribution(z, sigma):
    """Whether a sample passes for one of N(0, sigma² I), by a permutation test at 1 %."""
    torch.manual_seed(5)
    found, null = discrepancy(z, sigma * torch.randn_like(z))
    return found < float(null.quantile(0.99))


# ---- the distribution of the embeddings


SURE = {"penalty_weight": 1.0, "hidden": 64, "discriminator_hidden_dims": (64, 64)}


@pytest.fixture(scope="module")
def trained():
    model = build(sigma=0.5, **SURE)
    train(model, sheet(4000), 900, BOTH)
    return model


def test_embeddings_take_the_distribution_of_the_prior(trained):
    with evaluating(trained):
        z = trained.encode(sheet(150, seed=1))
        before = build(sigma=0.5, **SURE).encode(sheet(150, seed=1))
    assert is_of_the_distribution(z, 0.5)
    for wrong in (0.3, 0.8):
        assert not is_of_the_distribution(z, wrong)
    assert not is_of_the_distribution(before, 0.5)


def test_reconstructions_get_better_though_embeddings_are_held(trained):
    x = sheet(1000, seed=1)
    total = float(x.var(0).sum())
    with evaluating(trained):
        before, after = (float(m.reconstruction_error(x).mean()) for m in (build(**SURE), trained))
    assert before > 0.5 * total
    assert after < 0.05 * total


def test_one_latent_coordinate_is_enough_for_a_curve():
    t = torch.randn(3000, 1, generator=torch.Generator().manual_seed(0))
    x = torch.cat([t, t.square(), t.sin(), 0.5 * t, -t], 1)
    model = build(latent_dim=1, **SURE)
    train(model, x, 500, BOTH)
    with evaluating(model):
        z = model.encode(x[:150])
        error = float(model.reconstruction_error(x).mean()) / float(x.var(0).sum())
    assert z.shape == (150, 1)
    assert is_of_the_distribution(z, 1.0)
    assert not is_of_the_distribution(z, 0.6)
    assert error < 0.1


def test_the_discriminator_learns_the_log_ratio_of_prior_and_embeddings():
    """On a line, `z ~ N(0.4, 0.8²)` against the prior `N(0, 1.2²)`."""
    line = DataSpec(name="line", shape=(1,), size=50, low=-9, high=9)
    torch.manual_seed(0)
    model = WAEConfig(latent_dim=1, sigma=1.2, encoder_hidden_dims=(), discriminator_hidden_dims=(64,)).build(line)
    with torch.no_grad():
        model.encoder[0].weight.fill_(0.8)
        model.encoder[0].bias.fill_(0.4)
    train(model, torch.randn(4000, 1), 400, {"discriminator": 0.02}, batch=512)
    z = torch.linspace(-1.5, 2.0, 30)[:, None]
    true = Normal(0, 1.2).log_prob(z) - Normal(0.4, 0.8).log_prob(z)
    assert float((model.discriminator(z) - true).detach().abs().max()) < 0.25
    assert float(true.max() - true.min()) > 1


# ---- the two losses


def with_constant_critic(value, **keys):
    model = build(**keys).double()
    for parameter in model.discriminator.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(model.discriminator[-1].bias, value)
    return model


@pytest.mark.parametrize(("value", "weight"), [(0.0, 10.0), (1.5, 3.0), (-2.0, 0.0)])
def test_the_losses_under_a_critic_that_gives_one_chance_to_all(value, weight):
    model = with_constant_critic(value, penalty_weight=weight)
    x = sheet(50).double()
    critic, players = model.objectives()
    chance = 1 / (1 + math.exp(-value))
    assert float(critic.loss(x).detach()) == pytest.approx(-math.log(chance) - math.log(1 - chance))
    error = float(model.reconstruction_error(x).mean().detach())
    assert float(players.loss(x).detach()) == pytest.approx(error - weight * math.log(chance))


def test_without_a_penalty_it_is_least_squares():
    model = build(penalty_weight=0.0, hidden=1, encoder_hidden_dims=(), decoder_hidden_dims=())
    x = 3 * torch.randn(500, 5) * torch.tensor([3.0, 2.0, 0.3, 0.2, 0.1])
    train(model, x, 400, {"reconstruction": 0.05}, batch=500)
    least = float(torch.linalg.svdvals(x - x.mean(0))[2:].square().sum()) / len(x)
    assert float(model.reconstruction_error(x).mean().detach()) == pytest.approx(least, rel=0.1)


def test_the_critic_meets_draws_of_the_prior_and_embeddings():
    model = build(sigma=2.5)
    x = sheet(20_000)
    seen = []
    model.discriminator.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    torch.manual_seed(0)
    model.objectives()[0].loss(x)
    drawn, encoded = torch.cat(seen).chunk(2)
    assert torch.equal(encoded, model.encode(x).detach())
    assert (drawn.mean(0).abs() < 5 * 2.5 / math.sqrt(len(x))).all()
    assert torch.allclose(drawn.T.cov(), 2.5**2 * torch.eye(2), atol=0.2)


def test_each_step_does_no_work_for_the_other_player():
    model, x = build(), sheet(6)
    critic, players = model.objectives()
    ran = []
    model.decoder.register_forward_hook(lambda *_: ran.append("decoder"))
    model.encoder.register_forward_hook(lambda module, given, result: ran.append(result.requires_grad))
    critic.loss(x).backward()
    assert ran == [False], "one encoding without a graph, and no decoder"
    assert all(parameter.grad is None for parameter in players.parameters)
    assert all(parameter.grad is not None for parameter in critic.parameters)
    model.zero_grad()
    players.loss(x).backward(inputs=players.parameters)
    assert ran == [False, True, "decoder"]
    assert all(parameter.grad is None for parameter in critic.parameters)
    assert all(parameter.grad is not None for parameter in players.parameters)


def test_the_penalty_moves_the_encoder_towards_what_the_critic_takes_for_the_prior():
    model, x = build(penalty_weight=50.0), sheet(200)
    with torch.no_grad():
        before = model.discriminator(model.encode(x)).mean()
    train(model, x, 40, {"reconstruction": 0.01})
    with torch.no_grad():
        assert float(model.discriminator(model.encode(x)).mean() - before) > 0.1


# ---- samples


def test_samples_are_what_the_decoder_makes_of_the_prior():
    torch.manual_seed(0)
    model = WAEConfig(latent_dim=2, decoder_hidden_dims=(), sigma=1.5).build(VECTORS).double().requires_grad_(False)
    drawn = model.sample(50_000, torch.Generator().manual_seed(0))
    linear = model.decoder[0]
    assert torch.allclose(drawn.mean(0), linear.bias, atol=0.03)
    assert torch.allclose(drawn.T.cov(), 1.5**2 * linear.weight @ linear.weight.T, atol=0.05)
    assert torch.equal(
        model.sample(5, torch.Generator().manual_seed(3)), model.sample(5, torch.Generator().manual_seed(3))
    )


# ---- configuration


@pytest.mark.parametrize("key", ["penalty_weight", "lambda", "_lambda"])
def test_the_old_names_of_the_weight_still_set_it(key):
    overrides = split_single(parse_overrides([f"{key}=3.5"]), WAEConfig, "wae")
    config = WAEConfig.for_data(VECTORS, "gae", **overrides["model"])
    assert config.penalty_weight == 3.5
    assert config == WAEConfig.for_data(VECTORS, "gae", penalty_weight=3.5)
    with pytest.raises(UserError, match=r"^penalty_weight = -1: input should be greater than or equal to 0"):
        WAEConfig.for_data(VECTORS, "gae", **{key: -1})


def test_images_are_convolved_and_vectors_are_not():
    for spec, stride in ((GREY, 2), (DIGITS, 1), (COLOUR, 2)):
        config = WAEConfig.for_data(spec, "gae")
        assert (config.encoder_net, config.decoder_net) == ("cnn", "cnn")
        assert config.decoder_hidden_channels == config.encoder_hidden_channels[::-1] == (32, 32, 64, 64)
        assert config.decoder_stride == config.encoder_stride == stride
        x = torch.rand(2, *spec.shape) * spec.high
        model = config.build(spec)
        model.fit_transform([x])
        assert model.decode(model.encode(x)).shape == x.shape
    vectors = WAEConfig.for_data(VECTORS, "gae")
    assert (vectors.encoder_net, vectors.decoder_net, vectors.latent_dim) == ("mlp", "mlp", 3)


def test_the_penalty_weighs_less_where_errors_are_sums_over_few_coordinates_and_the_papers_is_one_key_away():
    weights = [WAEConfig.for_data(spec, "gae").penalty_weight for spec in (VECTORS, DIGITS, GREY, COLOUR)]
    assert weights == pytest.approx([10 * 5 / 784, 10 * 64 / 784, 10, 10])
    for spec in (VECTORS, DIGITS, GREY, COLOUR):
        paper = WAEConfig.for_data(spec, "gae", preset="reference")
        assert (paper.penalty_weight, paper.encoder_stride, paper.decoder_stride) == (10, 1, 1)


def test_each_player_has_its_own_rate():
    rates = WAEConfig(disc_lr=0.1, rec_lr=0.2, use_rec_lr_scheduler=True).optimizers()
    assert (rates["discriminator"].lr, rates["discriminator"].use_scheduler) == (0.1, False)
    assert (rates["reconstruction"].lr, rates["reconstruction"].use_scheduler) == (0.2, True)
