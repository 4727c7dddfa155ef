"""The energy-based model: its gradients, its ring of negatives, its norm, and the density that it learns."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.overrides import TorchFunctionMode

from helpers.configs import built
from helpers.contracts import Case
from twostep.core.schema import DataSpec, UserError
from twostep.models.base import evaluating
from twostep.models.ebm import EBMConfig
from twostep.nn.layers import SpectralNorm

PLANE = DataSpec(name="plane", shape=(2,), size=1000, low=-1, high=1)
IMAGES = DataSpec(name="images", shape=(2, 7, 5), size=50, low=0, high=255, discrete=True)


def alone(rows):
    """Gather on one rank."""
    return rows


def plane(seed=0, **keys):
    torch.manual_seed(seed)
    small = {"energy_func_hidden_dims": (8, 6), "ld_steps": 3, "max_length_buffer": 10}
    return built(EBMConfig.for_data(PLANE, "de", **{**small, **keys}), PLANE)


def images(**keys):
    torch.manual_seed(0)
    small = {"energy_func_hidden_dims": (8,), "energy_func_hidden_channels": (4, 3), "ld_steps": 3}
    model = built(EBMConfig.for_data(IMAGES, "de", max_length_buffer=20, **{**small, **keys}), IMAGES)
    model.fit_transform([255 * torch.rand(20, *IMAGES.shape)])
    return model


def train(model, x, steps, batch):
    (objective,) = model.objectives()
    config = model.config
    optimizer = torch.optim.Adam(objective.parameters, lr=config.lr)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = config.lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        objective.loss(x[torch.randint(len(x), (batch,))]).backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters, config.max_grad_norm)
        optimizer.step()
        objective.after(alone)
    return model.eval()


# ---- gradients


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("base", ["none", "gaussian"])
def test_the_slope_is_that_of_the_energy_whatever_the_blocks(net, base, monkeypatch):
    model = images(net=net, base=base).double()
    with torch.no_grad():
        y, shift = model._starts(11, torch.Generator().manual_seed(0)), torch.randn(11, *model.ring.rows.shape[1:])
        expected = (model.energy(y + 1e-6 * shift) - model.energy(y - 1e-6 * shift)) / 2e-6
        monkeypatch.setattr("twostep.nn.jacobian.BATCH", 4)
        got = model._slope(y)
    assert not got.requires_grad
    assert torch.allclose((got * shift).flatten(1).sum(1), expected, atol=1e-6)


@pytest.mark.parametrize("keys", [{"net": "mlp"}, {"net": "cnn"}, {"net": "cnn", "spectral_norm": False}])
def test_sampling_leaves_everything_as_it_was(keys):
    model = images(**keys).train()
    (objective,) = model.objectives()
    objective.loss(255 * torch.rand(6, *IMAGES.shape)).backward()
    objective.after(alone)
    first, *rest = model.parameters()
    first.requires_grad_(False)
    grads = [parameter.grad.clone() for parameter in rest]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        x = model.sample(4, torch.Generator().manual_seed(0))
    assert torch.equal(x, model.sample(4, torch.Generator().manual_seed(0))), "with gradients on as with them off"
    assert not x.requires_grad
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] + [True] * len(rest)
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(rest, grads, strict=True))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("keys", [{}, {"net": "cnn"}])
def test_sampling_goes_down_in_energy(keys):
    """Frozen weights are no obstacle; without noise every chain of small steps loses energy."""
    model = images(ld_steps=40, ld_sigma=0.0, ld_step_size=0.02, ld_grad_clamp=None, **keys).requires_grad_(False)
    with evaluating(model):
        start = model._starts(8, torch.Generator().manual_seed(0))
        end = model._draw(8, torch.Generator().manual_seed(0))
        assert (model.energy(end) < model.energy(start)).all()


# ---- the ring


def rows_of(values):
    return torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, 2)


def test_the_ring_keeps_the_newest_in_their_places():
    model = plane(max_length_buffer=5)
    (objective,) = model.objectives()
    for values in ([1, 2, 3], [4, 5, 6], [7]):
        model._negatives = rows_of(values)
        objective.after(alone)
    assert model.ring.rows[:, 0].tolist() == [6, 7, 3, 4, 5]
    assert (int(model.ring.position), int(model.ring.filled)) == (2, 5)


def test_a_batch_longer_than_the_ring_leaves_its_last_rows():
    model = plane(max_length_buffer=3)
    model._negatives = rows_of([1, 2, 3, 4, 5])
    model.objectives()[0].after(alone)
    assert model.ring.rows[:, 0].tolist() == [3, 4, 5]
    assert int(model.ring.filled) == 3


def test_every_rank_keeps_the_rows_of_all():
    """The second rank has no rows in the last batch; its ring and its power iteration are the first rank's."""
    one, two = plane(spectral_norm=True), plane(spectral_norm=True)
    first_u = {key: value.clone() for key, value in one.named_buffers() if key.endswith(".u")}
    for models in ((one, two), (one,)):
        for rank, model in enumerate(models):
            torch.manual_seed(rank)
            model.objectives()[0].loss(torch.rand(3, 2))
        parts = torch.cat([model._negatives for model in models])
        seen = []
        for model in (one, two):
            model.objectives()[0].after(lambda rows, seen=seen, parts=parts: seen.append(rows) or parts)
        assert [rows.shape for rows in seen] == [(3, 2), (3 if model in models else 0, 2)]
    assert int(one.ring.filled) == 9
    assert len(first_u) == 3
    assert not all(torch.equal(one.get_buffer(key), u) for key, u in first_u.items())
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


def test_validation_leaves_the_ring_alone():
    model = plane()
    (objective,) = model.objectives()
    with evaluating(model):
        objective.loss(torch.rand(4, 2))
    objective.after(alone)
    assert int(model.ring.filled) == int(model.ring.position) == 0
    objective.loss(torch.rand(4, 2))
    objective.after(alone)
    assert int(model.ring.filled) == 4


def test_chains_go_on_from_the_ring_and_a_share_starts_anew():
    model = plane(ld_eps_new=0.25, x_lims=(-3.0, 2.0), base="none")
    model._negatives = 5 + rows_of(range(10))
    model.objectives()[0].after(alone)
    start = model._starts(4000, torch.Generator().manual_seed(0))
    fresh = start[:, 0] < 5
    assert float(fresh.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert start[~fresh].unique(dim=0).tolist() == (5 + rows_of(range(10))).tolist()
    assert float(start[fresh].min()) == pytest.approx(-3, abs=0.02)
    assert float(start[fresh].max()) == pytest.approx(2, abs=0.02)


def test_a_partly_filled_ring_gives_no_empty_rows():
    model = plane(ld_eps_new=0.0)
    model._negatives = 5 + rows_of(range(3))
    model.objectives()[0].after(alone)
    start = model._starts(500, torch.Generator().manual_seed(0))
    assert start[:, 0].unique().tolist() == [5, 6, 7]


def test_the_ring_survives_a_reload_and_is_sampled_from():
    model = train(plane(ld_steps=1, ld_sigma=0.0), 0.1 * torch.randn(50, 2), 3, 4)
    fresh = plane(seed=1, ld_steps=1, ld_sigma=0.0).eval()
    fresh.load_state_dict(model.state_dict())
    assert int(fresh.ring.filled) == 10
    assert torch.equal(fresh.ring.rows, model.ring.rows)
    x = model.sample(20, torch.Generator().manual_seed(0))
    assert torch.equal(fresh.sample(20, torch.Generator().manual_seed(0)), x)
    fresh.ring.filled.zero_()
    assert not torch.equal(fresh.sample(20, torch.Generator().manual_seed(0)), x)


# ---- the norm


def test_the_norm_is_the_largest_singular_value_and_moves_only_after_a_step():
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(6, 4), torch.nn.Conv2d(2, 5, 3)):
        net = torch.nn.Sequential(layer)
        SpectralNorm.on(net)
        for _ in range(100):
            SpectralNorm.advance_all(net)
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=1e-4)
        before = layer.weight.detach().clone()
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(torch.rand(before.shape) + 1)
        off = layer.weight.detach().clone()
        assert torch.equal(layer.weight, off), "a look at the weight does not move it"
        SpectralNorm.advance_all(net)
        assert not torch.equal(layer.weight, off)


def test_gradients_pass_through_the_norm():
    torch.manual_seed(0)
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    norm = SpectralNorm(weight.detach().float()).double()
    assert torch.autograd.gradcheck(norm, (weight,))


def test_the_norm_is_in_the_networks_of_images():
    flat, grown = images(preset="reference"), images(preset="reference")
    with torch.no_grad():
        for parameter in grown.parameters():
            if parameter.ndim > 1:
                parameter.mul_(7)
    y = torch.rand(4, 70)
    assert torch.allclose(flat.energy(y), grown.energy(y), atol=1e-5)
    assert not any("original" in key for key in plane().state_dict())


# ---- the loss and the density


@pytest.mark.parametrize("base", ["none", "gaussian"])
def test_the_loss_is_contrastive_divergence_and_the_penalty_is_the_networks(base):
    model = plane(ld_sigma=0.0, loss_alpha=0.3, base=base)
    x = torch.rand(5, 2)
    model.fit_transform([torch.randn(50, 2)])
    torch.manual_seed(1)
    loss = model.objectives()[0].loss(x)
    data, drawn = model.transform(x), model._negatives
    expected = model.energy(data).mean() - model.energy(drawn).mean()
    expected = expected + 0.3 * (model.net(data).square().mean() + model.net(drawn).square().mean())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    assert not model._negatives.requires_grad


def test_the_density_is_the_energy_in_the_datas_units():
    model = plane(preset="reference").double()
    x = torch.randn(9, 2, dtype=torch.float64)
    model.transform.fit([torch.full((1, 2), 4.0, dtype=torch.float64)])
    assert torch.allclose(model.log_prob(x), -model.energy(x / 4) - 2 * math.log(4), atol=1e-12)


# a small network at a high rate, and steps small beside the narrowest component
FAST = {"lr": 4e-3, "energy_func_hidden_dims": (32, 32), "ld_steps": 30, "ld_eps_new": 0.2} | {
    "ld_step_size": 0.02,
    "ld_sigma": 0.2,
}


@pytest.fixture(scope="module")
def learnt():
    """A mixture of three round Gaussians, and an energy fitted to 10,000 of its points."""
    centres = torch.tensor([[-0.6, -0.4], [0.6, -0.3], [0.1, 0.6]])
    widths = torch.tensor([0.15, 0.2, 0.12])
    distribution = MixtureSameFamily(
        Categorical(torch.tensor([0.5, 0.3, 0.2])), Independent(Normal(centres, widths[:, None].expand(3, 2)), 1)
    )
    torch.manual_seed(0)
    x = distribution.sample((10_000,))
    model = built(EBMConfig.for_data(PLANE, "de", **FAST), PLANE)
    model.fit_transform([x])
    return train(model, x, 400, 256), distribution


def test_energies_differ_as_true_log_densities_do(learnt):
    model, distribution = learnt
    torch.manual_seed(1)
    x = distribution.sample((2000,))
    with evaluating(model):
        got, true = model.log_prob(x), distribution.log_prob(x)
    differences = (got[::2] - got[1::2], true[::2] - true[1::2])
    assert float(torch.corrcoef(torch.stack(differences))[0, 1]) >= 0.95
    slope = (differences[0] * differences[1]).sum() / differences[1].square().sum()
    assert 0.8 < float(slope) < 1.25, "in nats, not merely in proportion"


def test_samples_have_the_distribution_of_the_data(learnt):
    """The squared MMD of samples and data is near that of two samples of it; a Gaussian fit is far away."""
    model, distribution = learnt
    torch.manual_seed(2)
    x, other = distribution.sample((2000,)), distribution.sample((2000,))
    with evaluating(model):
        drawn = model.sample(2000, torch.Generator().manual_seed(0))
    gaussian = x.mean(0) + torch.randn(2000, 2) @ torch.linalg.cholesky(x.T.cov()).T

    def mmd(a, b):
        def k(u, v):
            return torch.exp(-torch.cdist(u, v).square() / (2 * 0.2**2)).mean()

        return float(k(a, a) + k(b, b) - 2 * k(a, b))

    assert mmd(x, other) < 0.003
    assert mmd(x, drawn) < 0.006
    assert mmd(x, gaussian) > 0.02
    assert torch.allclose(drawn.mean(0), x.mean(0), atol=0.06)


# ---- the base


@pytest.mark.parametrize("keys", [{"net": "mlp"}, {"net": "cnn"}])
def test_without_a_network_the_model_is_the_gaussian_of_the_data(keys):
    """With F = 0 the density is normalised, and it is the Gaussian with the moments of the data."""
    model = images(denoising_sigma=0.0, **keys).double()
    x = 255 * torch.rand(400, *IMAGES.shape, dtype=torch.float64)
    x[:, 0] += x[:, 1]
    model.fit_transform([x[:150], x[150:]])
    for parameter in model.net.parameters():
        torch.nn.init.zeros_(parameter)
    distribution = MultivariateNormal(x.flatten(1).mean(0), x.flatten(1).T.cov(correction=0))
    with evaluating(model):
        assert torch.allclose(model.log_prob(x), distribution.log_prob(x.flatten(1)), rtol=0, atol=1e-6)
        starts = model.transform.inverse(model._starts(20_000, torch.Generator().manual_seed(0))).flatten(1)
    error = (starts.T.cov() - distribution.covariance_matrix).norm() / distribution.covariance_matrix.norm()
    assert float(error) < 0.1
    assert torch.allclose(starts.mean(0), distribution.mean, rtol=0, atol=8)


@pytest.mark.parametrize("keys", [{"net": "mlp"}, {"net": "cnn"}, {"net": "cnn", "base": "none"}])
def test_chains_go_down_the_slope_of_the_energy(keys):
    model = images(**keys).double().requires_grad_(False)
    y = model._starts(6, torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(model.energy(y).sum(), y)
    assert torch.allclose(model._slope(y.detach()), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("keys", [{}, {"net": "cnn"}, {"base": "none", "logit_transform": True, "scale_data": True}])
def test_the_score_is_the_gradient_of_the_density(keys):
    model = images(denoising_sigma=0.0, **keys).double().requires_grad_(False)
    x = (20 + 200 * torch.rand(5, *IMAGES.shape, dtype=torch.float64)).requires_grad_()
    (expected,) = torch.autograd.grad(model.log_prob(x).sum(), x)
    assert torch.allclose(model._score(x), expected, rtol=1e-7, atol=1e-9)


def test_a_sample_is_what_is_left_of_the_noisy_end_of_a_chain():
    """Where clean data are N(0, v) and the noise is N(0, σ²), the mean of clean given noisy is x v / (v + σ²)."""
    sigma, x = 2.0, 3 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    model = plane(denoising_sigma=sigma)
    model.transform.fit([x + sigma * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))])
    for parameter in model.net.parameters():
        torch.nn.init.zeros_(parameter)
    with evaluating(model):
        noisy = model.transform.inverse(model._draw(50, torch.Generator().manual_seed(2)))
        clean = model.sample(50, torch.Generator().manual_seed(2))
    assert torch.allclose(clean, noisy * 9 / 13, rtol=0.1, atol=0.15)
    assert not torch.allclose(clean, noisy, atol=0.5)


# ---- settings


def test_a_latent_space_of_one_dimension():
    case = Case("ebm", "de", DataSpec(name="line", shape=(1,), size=40, low=-1, high=1))
    model = case.build()
    with evaluating(model):
        assert model.sample(3, torch.Generator().manual_seed(0)).shape == (3, 1)
        assert model.log_prob(torch.rand(4, 1)).shape == (4,)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"net": "cnn"}, "a cnn needs images; plane"),
        ({"x_lims": (1.0, -1.0)}, "x_lims = (1.0, -1.0): the first limit must be below the second (key of ebm)"),
        ({"x_lims": (-math.inf, 1.0)}, "x_lims.0 = -inf: input should be a finite number (key of ebm)"),
        ({"ld_eps_new": 1.5}, "ld_eps_new = 1.5: input should be less than or equal to 1 (key of ebm)"),
        ({"ld_eps_new": True}, "ld_eps_new = True: input should be a valid number (key of ebm)"),
    ],
)
def test_mistakes_are_named(keys, message):
    with pytest.raises(UserError) as caught:
        plane(**keys)
    assert str(caught.value).startswith(message)


def test_the_papers_settings_are_one_key_away():
    paper = {"ld_step_size": 10, "ld_sigma": 0.005, "ld_grad_clamp": 0.03, "ld_eps_new": 0.05, "ld_steps": 60}
    latent = EBMConfig.for_data(PLANE, "de", preset="reference").model_dump()
    assert latent.items() >= {**paper, "loss_alpha": 0.1, "lr": 1e-3, "x_lims": (-1, 1), "scale_data": True}.items()
    grey = DataSpec(name="grey", shape=(1, 28, 28), size=50, low=0, high=255, discrete=True)
    image = EBMConfig.for_data(grey, "de", preset="reference").model_dump()
    assert image.items() >= {**paper, "loss_alpha": 1, "lr": 3e-4, "x_lims": (0, 1), "spectral_norm": True}.items()
    assert image["energy_func_hidden_dims"] == (256, 128)


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_chains_reach_all_scaled_pixels(low):
    spec = DataSpec(name="colour", shape=(3, 4, 4), size=50, low=low, high=1)
    model = built(EBMConfig.for_data(spec, "de", ld_steps=1, energy_func_hidden_channels=(4,)), spec)
    x = torch.tensor([low, 1.0]).view(2, 1, 1, 1).expand(2, *spec.shape)
    model.fit_transform([x])
    assert bool(model.boxed_energy(model.transform(x)).isfinite().all())
    drawn = model.sample(200, torch.Generator().manual_seed(0))
    assert (float(drawn.min()), float(drawn.max())) == pytest.approx((low, 1.0), abs=0.01)


def test_samples_are_ends_of_chains_of_the_configured_dynamics():
    keys = {"ld_steps": 4, "ld_step_size": 0.1, "ld_sigma": 0.3, "ld_grad_clamp": 0.2, "ld_eps_new": 1.0}
    model = plane(x_lims=(-0.8, 0.9), **keys).double().eval().requires_grad_(False)
    y = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.randn(50, 2, dtype=torch.float64, generator=generator)
    for _ in range(4):
        y.requires_grad_()
        (slope,) = torch.autograd.grad(model.energy(y).sum(), y)
        noise = torch.randn(50, 2, dtype=torch.float64, generator=generator)
        y = (y.detach() - 0.1 * slope.clamp(-0.2, 0.2) + 0.3 * noise).clamp(-0.8, 0.9)
    drawn = model.sample(50, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn, model.transform.inverse(y), atol=1e-12)
    assert EBMConfig.for_data(IMAGES, "de").net == "mlp"
    assert EBMConfig.for_data(IMAGES.model_copy(update={"shape": (3, 8, 8)}), "de").net == "cnn"


class Elsewhere(TorchFunctionMode):
    """Takes no array of a tensor that was not moved to the CPU first, as if tensors were on another device."""

    def __init__(self):
        super().__init__()
        self.moved = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu:
            self.moved[id(found)] = found
        if func is torch.Tensor.numpy:
            assert id(args[0]) in self.moved
        return found


def test_the_normaliser_is_estimated_where_the_weights_are(monkeypatch):
    model = plane()
    devices, make = [], torch.Generator

    def made(device="unnamed"):
        devices.append(str(device))
        return make("cpu")

    monkeypatch.setattr(torch, "Generator", made)
    before = torch.get_rng_state()
    with Elsewhere() as mode:
        model.log_normalizer(chains=10, temperatures=3)
    assert devices == ["cpu"], "of the weights, by name"
    assert mode.moved, "for scikit-learn"
    assert torch.equal(torch.get_rng_state(), before)
