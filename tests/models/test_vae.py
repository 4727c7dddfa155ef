"""The VAE against probabilistic PCA, where everything is known in closed form.

With a linear decoder `m(z) = W z + b`, noise `Ψ = diag ψ` and `z ~ N(0, I)`, the data are `N(b, W Wᵀ + Ψ)` and the
posterior is `N(M⁻¹ Wᵀ Ψ⁻¹ (y - b), M⁻¹)` with `M = I + Wᵀ Ψ⁻¹ W`, which is diagonal if the columns of W are
orthogonal under Ψ⁻¹.
"""

import itertools
import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from helpers.configs import built
from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.vae import VAEConfig

VECTORS = DataSpec(name="vectors", shape=(4,), size=50, low=-9, high=9)
DIM, LATENT = 4, 2


def linear_vae(single_sigma=True, k=1, transform=None, shift=0.0, widen=0.0):
    """Return a VAE set by hand to probabilistic PCA, and the exact distribution of what its network sees.

    `shift` and `widen` make its posterior a wrong one.
    """
    generator = torch.Generator().manual_seed(0)
    psi = torch.tensor([0.4] * DIM if single_sigma else [0.3, 0.5, 0.2, 0.8], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(DIM, LATENT, generator=generator, dtype=torch.float64)).Q
    W = psi.sqrt()[:, None] * basis * torch.tensor([2.0, 1.2], dtype=torch.float64)
    b = torch.randn(DIM, generator=generator, dtype=torch.float64)
    config = VAEConfig(
        latent_dim=LATENT,
        encoder_hidden_dims=(),
        decoder_hidden_dims=(),
        single_sigma=single_sigma,
        k=k,
        **(transform or {}),
    )
    model = built(config, VECTORS).double().eval().requires_grad_(False)
    M = torch.eye(LATENT).double() + W.T @ (W / psi[:, None])
    assert torch.allclose(M, torch.diag(M.diagonal()), atol=1e-12)
    to_mean = (W / psi[:, None]).T / M.diagonal()[:, None]
    encoder, decoder = model.encoder[0], model.decoder[0]
    encoder.weight.copy_(torch.cat([to_mean, torch.zeros(LATENT, DIM)]))
    encoder.bias.copy_(torch.cat([shift - to_mean @ b, widen - 0.5 * M.diagonal().log()]))
    if single_sigma:
        decoder.weight.copy_(W)
        decoder.bias.copy_(b)
        model.log_sigma.fill_(0.5 * math.log(0.4))
    else:
        decoder.weight.copy_(torch.cat([W, torch.zeros(DIM, LATENT)]))
        decoder.bias.copy_(torch.cat([b, 0.5 * psi.log()]))
    return model, MultivariateNormal(b, W @ W.T + torch.diag(psi))


@pytest.fixture
def mean_of_quadratics(monkeypatch):
    """Make the noise run through all signs, so that the mean over 2^d repeats of a quadratic is exact."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=LATENT)), dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda like: signs.repeat(len(like) // len(signs), 1))

    def expected(model, x):
        return model.log_prob(x.repeat_interleave(len(signs), 0)).unflatten(0, (len(x), -1)).mean(1)

    return expected


def points(distribution, n=20):
    torch.manual_seed(1)
    return torch.cat([distribution.sample((n,)), 3 * distribution.sample((n,))])


# ---- the bound


@pytest.mark.parametrize("single_sigma", [True, False])
def test_the_evidence_bound_is_tight_at_the_exact_posterior(mean_of_quadratics, single_sigma):
    model, distribution = linear_vae(single_sigma)
    x = points(distribution)
    assert torch.allclose(mean_of_quadratics(model, x), distribution.log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("single_sigma", [True, False])
@pytest.mark.parametrize("k", [2, 7])
def test_importance_weights_are_constant_at_the_exact_posterior(single_sigma, k):
    model, distribution = linear_vae(single_sigma, k)
    x = points(distribution)
    assert torch.allclose(model.log_prob(x), distribution.log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shift", "widen"), [(0.5, 0.0), (0.0, 0.7), (-0.3, -0.4)])
def test_the_gap_of_the_evidence_bound_is_the_divergence_of_its_posterior(mean_of_quadratics, shift, widen):
    model, distribution = linear_vae(shift=shift, widen=widen)
    exact, _ = linear_vae()
    x = points(distribution)
    (mean, log_std), (true_mean, true_log_std) = model.posterior(x), exact.posterior(x)
    gap = kl_divergence(
        Independent(Normal(mean, log_std.exp()), 1), Independent(Normal(true_mean, true_log_std.exp()), 1)
    )
    assert torch.allclose(distribution.log_prob(x) - mean_of_quadratics(model, x), gap, rtol=0, atol=1e-10)
    assert (gap > 0.05).all()


def test_the_gap_of_a_wrong_posterior_closes_with_k():
    x = points(linear_vae()[1], 3)
    gaps = []
    for k in (1, 2, 8, 64):
        model, distribution = linear_vae(k=k, shift=0.5, widen=0.4)
        torch.manual_seed(k)
        bounds = model.log_prob(x.repeat(3000, 1)).unflatten(0, (3000, len(x)))
        gaps.append(distribution.log_prob(x) - bounds.mean(0))
    gaps = torch.stack(gaps)
    assert (gaps.diff(dim=0) < 0).all()
    assert (gaps[0] > 0.3).all()
    assert (gaps[-1].abs() < 0.03).all()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("keys", [{"whitening_transform": True}, {"scale_data": True}])
def test_the_transforms_jacobian_is_in_the_bound(mean_of_quadratics, keys, k):
    model, distribution = linear_vae(transform=keys, k=1)
    torch.manual_seed(2)
    x = 5 + 40 * distribution.sample((200,))
    model.transform.fit([x])
    stretch = model.transform.log_abs_det_jacobian(x)
    exact = distribution.log_prob(model.transform(x)) + stretch
    assert (stretch < -5).all()
    assert torch.allclose(mean_of_quadratics(model, x), exact, rtol=0, atol=1e-9)
    model.k = k
    got = mean_of_quadratics(model, x) if k == 1 else model.log_prob(x)
    assert torch.allclose(got, exact, rtol=0, atol=1e-9)


def test_the_bound_integrates_to_at_most_one():
    """A bound on a log-density lies under it everywhere, so the mass under it is at most 1."""
    torch.manual_seed(0)
    spec = DataSpec(name="line", shape=(1,), size=50, low=-9, high=9)
    model = built(VAEConfig(latent_dim=1, k=200, whitening_transform=True), spec).double().requires_grad_(False)
    data = 30 + 4 * torch.randn(500, 1, dtype=torch.float64)
    model.transform.fit([data])
    axis = torch.linspace(-60, 120, 3001, dtype=torch.float64)
    mass = float(model.log_prob(axis[:, None]).exp().sum() * (axis[1] - axis[0]))
    assert 0.95 < mass < 1.01


# ---- what else it promises


@pytest.mark.parametrize("single_sigma", [True, False])
def test_samples_have_the_distribution_of_the_model(single_sigma):
    model, distribution = linear_vae(single_sigma, transform={"scale_data": True})
    model.transform.fit([torch.full((1, DIM), -3.0)])
    samples = model.sample(200_000, torch.Generator().manual_seed(0)) / 3
    error = distribution.covariance_matrix.diagonal().sqrt() / math.sqrt(len(samples))
    assert ((samples.mean(0) - distribution.mean).abs() < 5 * error).all()
    assert torch.allclose(samples.T.cov(), distribution.covariance_matrix, atol=0.02)


def test_embeddings_are_posterior_means_and_decoding_is_the_mean_without_noise():
    model, distribution = linear_vae()
    x = points(distribution)
    W, b = model.decoder[0].weight, model.decoder[0].bias
    M = torch.eye(LATENT).double() + W.T @ W / 0.4
    expected = (x - b) @ W @ torch.linalg.inv(M) / 0.4
    assert torch.allclose(model.encode(x), expected, atol=1e-12)
    z = model.encode(x)
    assert torch.allclose(model.decode(z), z @ W.T + b, atol=1e-12)


def test_the_loss_is_the_negative_bound_in_the_networks_space(mean_of_quadratics):
    model, distribution = linear_vae(transform={"scale_data": True})
    model.transform.fit([torch.full((1, DIM), 7.0)])
    x = 7 * points(distribution).repeat_interleave(4, 0)
    (objective,) = model.objectives()
    expected = -distribution.log_prob(x / 7).mean()
    assert float(objective.loss(x)) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("single_sigma", [True, False])
def test_gradient_steps_from_the_exact_model_go_nowhere_on_its_own_distribution(single_sigma):
    """At the truth the expected gradient is zero, in the decoder's deviation too."""
    model, distribution = linear_vae(single_sigma)
    model.requires_grad_(True)
    torch.manual_seed(0)
    (objective,) = model.objectives()
    objective.loss(distribution.sample((200_000,))).backward()
    assert all(float(parameter.grad.abs().max()) < 0.03 for parameter in model.parameters())


def test_a_decoder_of_images_can_have_a_deviation_for_each_pixel():
    spec = DataSpec(name="images", shape=(3, 6, 5), size=50, low=0, high=255, discrete=True)
    model = built(VAEConfig.for_data(spec, "de", single_sigma=False, latent_dim=3), spec)
    mean, log_std = model._likelihood(torch.randn(2, 3))
    assert mean.shape == log_std.shape == (2, 3, 6, 5)
    assert float(log_std.detach().std()) > 0
    x = torch.rand(2, 3, 6, 5) * 255
    model.fit_transform([x])
    assert torch.isfinite(model.log_prob(x)).all()
    assert model.sample(2).shape == (2, 3, 6, 5)


# ---- where a single deviation comes from


IMAGES = DataSpec(name="images", shape=(1, 6, 5), size=200, low=0, high=255, discrete=True)


def images(n=200):
    """Return images of smooth ramps with little noise, which a decoder soon has to few per cent."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.rand(n, 2, generator=generator)
    axes = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij"))
    ramps = torch.einsum("nk,khw->nhw", slopes, axes)
    return (20 * ramps[:, None] + torch.rand(n, 1, 6, 5, generator=generator)).round()


def trained(steps, **keys):
    torch.manual_seed(0)
    model = built(VAEConfig.for_data(IMAGES, "gae", latent_dim=2, lr=3e-3, **keys), IMAGES)
    x = images()
    model.fit_transform([x])
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=model.config.lr)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(x).backward()
        optimizer.step()
        objective.after(lambda rows: rows)
    return model, x


def lost_by_sigma(model, x):
    """Return by how many nats a factor to the deviation, the best one, would better the likelihood of points."""
    y = model.transform(x)
    torch.manual_seed(1)
    with torch.no_grad():
        code, log_width = model.posterior(y)
        mean, log_std = model._likelihood(code + log_width.exp() * torch.randn_like(code))
        ratio = float(((y - mean) / log_std.exp()).square().mean())
    return IMAGES.dim / 2 * (ratio - 1 - math.log(ratio))


def test_a_calibrated_deviation_is_never_far_from_the_errors():
    losses = {source: lost_by_sigma(*trained(60, sigma_from=source)) for source in ("calibrated", "parameter")}
    assert losses["calibrated"] < 0.5
    assert losses["parameter"] > 5, "which is what it is for"


def test_the_calibrated_deviation_is_the_default_and_old_configs_keep_the_parameter():
    for name, role in (("vae", "gae"), ("vae", "de"), ("avb", "gae"), ("avb", "de")):
        assert MODELS[name].for_data(IMAGES, role).sigma_from == "calibrated"
        saved = MODELS[name].for_data(IMAGES, role).model_dump(mode="json")
        for key in ("sigma_from", "padding"):
            del saved[key]
        model = built(MODELS[name].parse(saved, name), IMAGES)
        assert "log_sigma" in dict(model.named_parameters())


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5), (7,)])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_the_decoder_gives_one_deviation_for_each_latent(shape, net):
    spec = DataSpec(name="data", shape=shape, size=50, low=0, high=1)
    net = net if spec.is_image else "mlp"
    keys = {"encoder_net": net, "decoder_net": net, "sigma_from": "decoder", "latent_dim": 3}
    mean, log_std = built(VAEConfig.for_data(spec, "gae", **keys), spec)._likelihood(torch.randn(4, 3))
    assert mean.shape == (4, *(shape if net == "cnn" else (spec.dim,)))
    assert log_std.shape == (4, *(1 for _ in mean.shape[1:]))
    assert len(log_std.unique()) == 4


def test_ranks_calibrate_by_the_rows_of_all_of_them():
    squares = torch.rand(9)
    models = [VAEConfig(sigma_from="calibrated").build(VECTORS) for _ in range(3)]
    for model, rows in zip(models, (squares[:4], squares[4:], None), strict=True):
        model._squares = rows
        model.calibrate(lambda rows: squares)
        assert float(model.mean_square.mean(torch.ones(()))) == pytest.approx(float(squares.mean()))


def test_data_without_error_have_a_finite_deviation():
    model = built(VAEConfig(sigma_from="calibrated", latent_dim=2), VECTORS)
    model._squares = torch.zeros(5)
    model.calibrate(lambda rows: rows)
    assert torch.isfinite(model.log_prob(torch.randn(3, DIM))).all()
