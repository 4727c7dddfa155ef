"""AVB against a linear decoder, where everything is known in closed form, and its discriminator against a known ratio.

With a decoder `m(z) = W z + b`, noise `ψ I` and a prior `N(0, s² I)`, the data are `N(b, s² W Wᵀ + ψ I)` and the
posterior is `N(M⁻¹ Wᵀ (y - b) / ψ, M⁻¹)` with `M = I / s² + Wᵀ W / ψ`. A linear encoder `z = A y + a + N ε` draws from
`N(A y + a, s_in² N Nᵀ)`.
"""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from helpers.configs import built
from twostep.core.schema import DataSpec
from twostep.models import avb
from twostep.models.avb import AVBConfig, moments
from twostep.models.base import evaluating
from twostep.nn.distributions import kl_to_prior

DIM, LATENT, NOISE, PSI = 4, 2, 3, 0.4
VECTORS = DataSpec(name="vectors", shape=(DIM,), size=50, low=-9, high=9)


def linear_avb(k=1, prior_sigma=1.0, input_sigma=3.0, shift=0.0, widen=1.0, **keys):
    """Return an AVB set by hand, the exact distribution of what its network sees, and the exact posterior of a point.

    `shift` moves its encoder off the posterior's mean, `widen` multiplies its deviations.
    """
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(DIM, LATENT, generator=generator, dtype=torch.float64)
    b = torch.randn(DIM, generator=generator, dtype=torch.float64)
    config = AVBConfig(
        latent_dim=LATENT,
        noise_dim=NOISE,
        encoder_hidden_dims=(),
        decoder_hidden_dims=(),
        discriminator_hidden_dims=(8,),
        k=k,
        prior_sigma=prior_sigma,
        input_sigma=input_sigma,
        **keys,
    )
    model = built(config, VECTORS).double().eval().requires_grad_(False)
    covariance = torch.linalg.inv(torch.eye(LATENT) / prior_sigma**2 + W.T @ W / PSI)
    to_mean = covariance @ W.T / PSI
    first = model.encoder.features[0]
    first.weight.copy_(to_mean)
    first.bias.copy_(shift - to_mean @ b)
    root = torch.linalg.cholesky(covariance)
    model.encoder.side.weight.copy_(widen * torch.cat([root, torch.zeros(LATENT, 1)], 1) / (input_sigma or 1))
    # noise whose covariance is exactly the identity, so that the proposal is the encoder's distribution
    m = 2 * NOISE
    half = torch.eye(NOISE, dtype=torch.float64) * math.sqrt((m - 1) / 2)
    model.noise_set = torch.cat([half, -half])
    model.decoder[0].weight.copy_(W)
    model.decoder[0].bias.copy_(b)
    model.log_sigma.fill_(0.5 * math.log(PSI))
    distribution = MultivariateNormal(b, prior_sigma**2 * W @ W.T + PSI * torch.eye(DIM))
    return model, distribution, lambda y: MultivariateNormal((y - b) @ to_mean.T, covariance)


def drawn(model, y):
    """Return a draw of the encoder at each point of the network's space."""
    return model.encoder(y, model._noise(len(y), y))


def points(distribution, n=3):
    torch.manual_seed(1)
    return torch.cat([distribution.sample((n,)), 2 * distribution.sample((n,))])


def bounds(model, x, draws=4000):
    """Return the mean bound over many draws, and its standard error."""
    torch.manual_seed(7)
    values = model.log_prob(x.repeat(draws, 1)).unflatten(0, (draws, len(x)))
    return values.mean(0), values.std(0) / math.sqrt(draws)


def fit(model, x, steps, objectives=None, batch=128, lr=None):
    rates = model.config.optimizers()
    objectives = objectives or model.objectives()
    optimizers = [torch.optim.Adam(one.parameters, lr=lr or rates[one.name].lr) for one in objectives]
    for step in range(steps):
        torch.manual_seed(step)
        rows = x[torch.randint(len(x), (batch,))]
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            if step % objective.every:
                continue
            optimizer.zero_grad()
            objective.loss(rows).backward(inputs=list(objective.parameters))
            optimizer.step()
            if objective.after:
                objective.after(lambda rows: rows)


# ---- the bound


@pytest.mark.parametrize("prior_sigma", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("k", [1, 5])
def test_the_bound_is_exact_where_the_encoder_draws_from_the_posterior(prior_sigma, k):
    model, distribution, _ = linear_avb(k, prior_sigma)
    x = points(distribution, 20)
    assert torch.allclose(model.log_prob(x), distribution.log_prob(x), rtol=0, atol=0.02)
    mean, _ = bounds(model, x, draws=200)
    assert torch.allclose(mean, distribution.log_prob(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("shift", "widen"), [(0.3, 1.0), (0.0, 1.7), (0.0, 0.6), (-0.2, 1.4)])
def test_the_gap_is_the_divergence_of_the_encoders_distribution_from_the_posterior(shift, widen):
    model, distribution, posterior = linear_avb(shift=shift, widen=widen)
    x = points(distribution)
    exact = posterior(x)
    encoder = MultivariateNormal(exact.mean + shift, widen**2 * exact.covariance_matrix)
    gap = kl_divergence(encoder, exact)
    mean, error = bounds(model, x)
    assert (gap > 0.1).all()
    assert ((distribution.log_prob(x) - mean - gap).abs() < 5 * error + 2e-3).all()


def test_the_bound_lies_below_the_exact_value_and_the_gap_closes_with_k():
    gaps = []
    for k in (1, 4, 16, 128):
        model, distribution, _ = linear_avb(k, shift=0.3, widen=1.3)
        x = points(distribution)
        mean, error = bounds(model, x, draws=2000)
        gaps.append(distribution.log_prob(x) - mean)
        assert (gaps[-1] > -4 * error).all()
    gaps = torch.stack(gaps)
    assert (gaps.diff(dim=0) < 0).all()
    assert (gaps[0] > 0.3).all()
    assert (gaps[-1].abs() < 0.03).all()


def test_a_proposal_from_few_draws_still_bounds():
    """The moments of 8 draws of the noise are far from the encoder's, and the bound is one for any moments."""
    model, distribution, _ = linear_avb(shift=0.2)
    torch.manual_seed(3)
    half = torch.randn(4, NOISE, dtype=torch.float64)
    model.noise_set = torch.cat([half, -half])
    x = points(distribution)
    mean, error = bounds(model, x)
    assert (mean < distribution.log_prob(x) - 5 * error).all()


def test_the_proposal_has_the_moments_of_the_encoders_draws():
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=3, noise_dim=5, encoder_hidden_dims=(16,)), VECTORS).double()
    y = torch.randn(2, DIM, dtype=torch.float64)
    with torch.no_grad():
        model.encoder.side.weight.mul_(2)
        mean, factor = moments(model._draws(y), 1.0)
        draws = drawn(model, y.repeat_interleave(50_000, 0)).unflatten(0, (2, 50_000))
    for i in range(2):
        expected = draws[i].T.cov()
        spread = float(expected.diagonal().mean())
        assert torch.allclose(mean[i], draws[i].mean(0), rtol=0, atol=0.25 * math.sqrt(spread))
        assert float((factor[i] @ factor[i].T - expected).norm()) < 0.35 * float(expected.norm())


def test_the_discriminator_has_no_part_in_the_density():
    model, distribution, _ = linear_avb(shift=0.3)
    x = points(distribution)
    torch.manual_seed(0)
    before = model.log_prob(x)
    for parameter in model.discriminator.parameters():
        parameter.fill_(torch.nan)
    torch.manual_seed(0)
    assert torch.equal(model.log_prob(x), before)


@pytest.mark.parametrize("keys", [{"whitening_transform": True}, {"scale_data": True}])
def test_the_transforms_jacobian_is_in_the_bound(keys):
    model, distribution, _ = linear_avb(**keys)
    torch.manual_seed(2)
    x = 5 + 40 * distribution.sample((200,))
    model.transform.fit([x])
    stretch = model.transform.log_abs_det_jacobian(x)
    assert (stretch < -5).all()
    assert torch.allclose(model.log_prob(x), distribution.log_prob(model.transform(x)) + stretch, rtol=0, atol=0.02)


def test_the_bound_integrates_to_at_most_one():
    torch.manual_seed(0)
    spec = DataSpec(name="line", shape=(1,), size=50, low=-9, high=9)
    config = AVBConfig(latent_dim=1, noise_dim=4, k=200, prior_sigma=1.5, whitening_transform=True)
    model = built(config, spec).double().requires_grad_(False)
    model.encoder.side.weight.mul_(3)  # so that the proposal is wider than the posterior
    model.transform.fit([30 + 4 * torch.randn(500, 1, dtype=torch.float64)])
    axis = torch.linspace(-30, 90, 601, dtype=torch.float64)
    mass = float(model.log_prob(axis[:, None]).exp().sum() * (axis[1] - axis[0]))
    assert 0.95 < mass < 1.01


@pytest.mark.parametrize("collapse", ["input_sigma", "weights", "tiny", "far"])
def test_a_collapsed_encoder_has_a_finite_bound_in_single_precision(collapse):
    torch.manual_seed(0)
    config = AVBConfig(latent_dim=20, noise_dim=8, input_sigma=0.0 if collapse == "input_sigma" else 3.0)
    model = built(config, VECTORS).eval().requires_grad_(False)
    model.encoder.side.weight.mul_({"weights": 0.0, "tiny": 1e-7}.get(collapse, 1.0))
    if collapse == "far":
        model.encoder.rest[-1].bias.fill_(1e4)
    for x in (torch.randn(6, DIM), 1e4 * torch.randn(6, DIM)):
        assert torch.isfinite(model.log_prob(x)).all()


def test_a_collapsed_encoder_still_bounds():
    model, distribution, _ = linear_avb(widen=0.0)
    x = points(distribution)
    assert (model.log_prob(x) < distribution.log_prob(x) - 1).all()


# ---- samples


@pytest.mark.parametrize("prior_sigma", [0.5, 2.0])
def test_samples_have_the_distribution_of_the_model_with_its_prior(prior_sigma):
    model, distribution, _ = linear_avb(prior_sigma=prior_sigma)
    samples = model.sample(100_000, torch.Generator().manual_seed(0))
    error = distribution.covariance_matrix.diagonal().sqrt() / math.sqrt(len(samples))
    assert ((samples.mean(0) - distribution.mean).abs() < 5 * error).all()
    assert torch.allclose(samples.T.cov(), distribution.covariance_matrix, rtol=0.03, atol=0.03 * prior_sigma**2)


# ---- the two losses


def test_the_discriminator_learns_the_log_ratio_of_encoder_and_prior():
    """On a line, `z | y ~ N(0.8 y, 0.5²)` against the prior `N(0, 1.2²)`."""
    torch.manual_seed(0)
    spec = DataSpec(name="line", shape=(1,), size=50, low=-9, high=9)
    hidden = {"encoder_hidden_dims": (), "discriminator_hidden_dims": (64, 64)}
    config = AVBConfig(latent_dim=1, noise_dim=1, input_sigma=2.0, prior_sigma=1.2, **hidden)
    model = built(config, spec)
    with torch.no_grad():
        model.encoder.features[0].weight.fill_(0.8)
        model.encoder.features[0].bias.zero_()
        model.encoder.side.weight.fill_(0.25)
    y = torch.randn(4000, 1)
    fit(model, y, 200, model.objectives()[:1], batch=256, lr=5e-3)
    torch.manual_seed(0)
    with torch.no_grad():
        z = torch.where(torch.rand(4000, 1) < 0.5, 0.8 * y + 0.5 * torch.randn(4000, 1), 1.2 * torch.randn(4000, 1))
        got = model.log_ratio(y, z)
        true = (Normal(0.8 * y, 0.5).log_prob(z) - Normal(0, 1.2).log_prob(z)).squeeze(1)
    likely = true > -8  # elsewhere neither draws
    assert float(torch.corrcoef(torch.stack([got, true])[:, likely])[0, 1]) > 0.97
    assert float((got - true)[likely].abs().mean()) < 0.3


def test_the_nll_is_the_evidence_bound_with_the_discriminators_ratio():
    model, distribution, posterior = linear_avb()
    x = distribution.sample((4,)).repeat(20_000, 1)
    for parameter in model.discriminator.parameters():
        parameter.zero_()
    model.discriminator.rest[-1].bias.fill_(3.0)
    _, nll = model.objectives()
    torch.manual_seed(0)
    W = model.decoder[0].weight
    exact = posterior(x[:4])
    spread = torch.diagonal(W @ exact.covariance_matrix[0] @ W.T)
    expected = 0.5 * ((x[:4] - model._likelihood(exact.mean)[0]).square() + spread) / PSI
    expected = (expected + 0.5 * math.log(2 * math.pi * PSI)).sum(1).mean()
    assert float(nll.loss(x)) == pytest.approx(float(expected) + 3.0, abs=0.03)


def test_each_step_does_no_work_for_the_other_player():
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=2, noise_dim=3), VECTORS)
    x = torch.randn(5, DIM)
    discriminator, nll = model.objectives()
    ran = []
    model.decoder.register_forward_hook(lambda *_: ran.append("decoder"))
    model.encoder.features.register_forward_hook(lambda module, given, result: ran.append(result.requires_grad))
    discriminator.loss(x).backward()
    assert ran == [False], "one encoding without a graph, and no decoder"
    assert all(parameter.grad is None for parameter in (*model.encoder.parameters(), *model.decoder.parameters()))
    model.zero_grad()
    nll.loss(x).backward(inputs=list(nll.parameters))
    assert ran == [False, True, "decoder"]
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    assert all(parameter.grad is not None for parameter in nll.parameters)


# ---- adaptive contrast


@pytest.mark.parametrize("prior_sigma", [1.0, 1.7])
def test_the_closed_part_is_the_divergence_of_the_gaussian_from_the_prior(prior_sigma):
    draws = torch.randn(3, 60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, factor = moments(draws, prior_sigma)
    covariance = prior_sigma**2 * torch.eye(2, dtype=torch.float64)
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    expected = kl_divergence(MultivariateNormal(mean, scale_tril=factor), prior)
    assert torch.allclose(kl_to_prior(mean, factor, prior_sigma), expected, atol=1e-12)


def test_batches_of_one_row_know_the_covariance_of_a_linear_encoder():
    """The closed part is the divergence of the encoder from the prior, however few rows a batch has."""
    model, distribution, posterior = linear_avb(shift=0.3, widen=1.4, adaptive_contrast=True)
    torch.manual_seed(3)
    model.train()
    for x in distribution.sample((1000,)).split(1):
        model._contrasted(x)
        model._keep_covariance(lambda rows: rows)
    found = model.covariance.mean(torch.eye(2))
    exact = posterior(distribution.sample((1,)))
    assert torch.allclose(found, 1.4**2 * exact.covariance_matrix[0].to(found), rtol=0.3, atol=0.1)


def test_the_covariance_is_that_of_the_rows_of_all_ranks():
    one, two, both = (linear_avb(adaptive_contrast=True)[0].train() for _ in range(3))
    halves = torch.randn(9, 2, dtype=torch.float64)
    one._halves, two._halves, both._halves = halves[:4], halves[4:], halves
    for model in (one, two, both):
        model._keep_covariance(lambda rows: halves)
    assert torch.equal(one.covariance.total, both.covariance.total)
    assert torch.equal(two.covariance.total, both.covariance.total)
    assert torch.allclose(both.covariance.mean(torch.eye(2).double()), halves.T @ halves / 9)


def test_the_covariance_is_factored_in_single_precision_where_the_rest_is_in_half(monkeypatch):
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=2, noise_dim=3, adaptive_contrast=True), VECTORS)
    seen, factor = [], torch.linalg.cholesky_ex

    def watched(covariance):
        seen.append((covariance.dtype, torch.is_autocast_enabled("cpu")))
        return factor(covariance)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", watched)
    for objective in model.objectives():
        with torch.autocast("cpu", torch.bfloat16):
            objective.loss(torch.randn(5, DIM)).backward(inputs=list(objective.parameters))
    assert seen == [(torch.float32, False)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("batch", [128, 16])
def test_small_batches_come_as_near_to_a_gaussian_as_large_ones(batch):
    """20 coordinates, of which a batch of 16 has no regular covariance; log p has a mean of -48.9 nats."""
    generator = torch.Generator().manual_seed(5)
    stds = torch.linspace(0.6, 6, 20)
    axes = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q * stds
    x = torch.randn(6000, 20, generator=generator) @ axes.T
    truth = -float(stds.log().sum()) - 10 * math.log(2 * math.pi * math.e)
    spec = DataSpec(name="gaussian", shape=(20,), size=4000, low=-99, high=99)
    nets = {f"{net}_hidden_dims": (64,) for net in ("encoder", "decoder", "discriminator")}
    torch.manual_seed(0)
    model = built(AVBConfig.for_data(spec, "de", noise_dim=40, **nets), spec)
    model.fit_transform([x[:4000]])
    for lr in (3e-3, 1e-3, 3e-4):
        fit(model, x[:4000], 500, batch=batch, lr=lr)
    with evaluating(model):
        found = float(model.log_prob(x[4000:]).mean())
    assert truth - 8 < found < truth + 0.5


def test_a_gaussian_encoder_leaves_the_discriminator_nothing_to_tell():
    """What it sees has mean 0 and covariance I, and the closed part is the whole divergence from the prior."""
    model, distribution, posterior = linear_avb(shift=0.3, widen=1.4, adaptive_contrast=True)
    x = distribution.sample((20_000,))
    torch.manual_seed(3)
    _, seen, closed = model._contrasted(x)
    exact = posterior(x)
    encoder = MultivariateNormal(exact.mean + 0.3, 1.4**2 * exact.covariance_matrix)
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert torch.allclose(seen.mean(0), torch.zeros(2, dtype=torch.float64), atol=0.03)
    assert torch.allclose(seen.T.cov(), torch.eye(2, dtype=torch.float64), atol=0.04)
    assert torch.allclose(closed, kl_divergence(encoder, prior), rtol=0.02, atol=0.02)


def test_gradients_reach_the_encoder_through_its_moments():
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=2, noise_dim=3, adaptive_contrast=True), VECTORS)
    _, _, closed = model._contrasted(torch.randn(5, DIM))
    gradients = torch.autograd.grad(closed.mean(), tuple(model.encoder.parameters()))
    assert all((gradient != 0).any() for gradient in gradients)


@pytest.mark.slow
def test_adaptive_contrast_brings_samples_to_the_distribution_of_the_data():
    """Energy distances of samples to data on a noisy bowl, with standardised draws and with plain ones."""
    torch.manual_seed(0)
    u = torch.randn(4000, 2)
    x = torch.cat([u, u[:, :1].square() + 0.2 * torch.randn(4000, 1)], 1)
    spec = DataSpec(name="bowl", shape=(3,), size=4000, low=-9, high=9)
    hidden = {f"{net}_hidden_dims": (64,) for net in ("encoder", "decoder", "discriminator")}
    found = []
    for adaptive in (True, False):
        torch.manual_seed(0)
        keys = {"latent_dim": 3, "noise_dim": 16, "adaptive_contrast": adaptive}
        model = built(AVBConfig.for_data(spec, "de", **keys, **hidden), spec)
        model.fit_transform([x])
        fit(model, x, 600, lr=3e-3)
        with evaluating(model):
            a, b = model.sample(1000, torch.Generator().manual_seed(0)) / x.std(0), x[:1000] / x.std(0)
        found.append(float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()))
    assert found[0] < 0.05, found
    assert found[0] < found[1] / 2, found


# ---- embeddings


def test_an_embedding_repeats_and_is_the_mean_of_the_encoder():
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=2, noise_dim=6), VECTORS).double().eval()
    x = torch.randn(3, DIM, dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(1)
        z = model.encode(x)
        torch.manual_seed(2)
        assert torch.equal(model.encode(x), z)
        draws = drawn(model, x.repeat_interleave(20_000, 0)).unflatten(0, (3, -1))
    assert (draws.std(1) > 0.1).all(), "single draws differ"
    assert torch.allclose(z, draws.mean(1), rtol=0, atol=0.15 * float(draws.std(1).mean()))


def test_evaluation_passes_a_bounded_number_of_rows_at_once(monkeypatch):
    torch.manual_seed(0)
    model = built(AVBConfig(latent_dim=2, noise_dim=3), VECTORS).eval()
    x = torch.randn(300, DIM)
    with evaluating(model):
        whole = model.encode(x)
        rows = []
        monkeypatch.setattr(avb, "BLOCK", 1000)
        model.encoder.rest.register_forward_hook(lambda module, given, result: rows.append(result[..., 0].numel()))
        assert torch.allclose(model.encode(x), whole, atol=1e-6)
        model.log_prob(x)
    assert len(rows) > 2 * 20
    assert max(rows) <= 1000


@pytest.mark.parametrize("role", ["gae", "de"])
def test_the_encoder_does_not_ignore_the_data(role):
    """Data on a bent sheet in R^5; its embeddings keep what distinguishes points."""
    torch.manual_seed(0)
    u = 2 * torch.rand(2000, 2) - 1
    x = torch.stack([u[:, 0], u[:, 1], u[:, 0] * u[:, 1], u[:, 0].square(), torch.sin(3 * u[:, 1])], 1)
    spec = DataSpec(name="sheet", shape=(5,), size=2000, low=-1, high=1)
    hidden = {f"{net}_hidden_dims": (64,) for net in ("encoder", "decoder", "discriminator")}
    model = built(AVBConfig.for_data(spec, role, latent_dim=2, noise_dim=16, **hidden), spec)
    model.fit_transform([x])
    fit(model, x, 400, batch=64, lr=5e-3)
    with evaluating(model):
        error = float(model.reconstruction_error(x).mean())
    assert error < 0.2 * float(x.var(0).sum())


# ---- configuration


@pytest.mark.parametrize(
    ("role", "noise_dim", "metric"), [("gae", 256, "l2_reconstruction_error"), ("de", 128, "log_likelihood")]
)
def test_each_role_has_its_noise_and_its_judge(role, noise_dim, metric):
    config = AVBConfig.for_data(VECTORS, role)
    assert config.noise_dim == noise_dim
    many = AVBConfig.for_data(VECTORS.model_copy(update={"size": 9000}), role)
    assert (many.max_steps, many.max_epochs) == (8000 if role == "gae" else None, 100)
    assert config.early_stopping_metric == metric
    assert config.valid_metrics == config.test_metrics == (metric,)
    paper = AVBConfig.for_data(VECTORS, role, preset="reference")
    stops = {"gae": ("l2_reconstruction_error", 50), "de": (None, 100)}
    assert (paper.early_stopping_metric, paper.max_epochs) == stops[role]
    assert config.adaptive_contrast == (role == "de")
    assert not paper.adaptive_contrast


def test_each_player_has_its_own_rate():
    config = AVBConfig(disc_lr=0.1, nll_lr=0.2, use_nll_lr_scheduler=False)
    rates = config.optimizers()
    assert (rates["discriminator"].lr, rates["discriminator"].use_scheduler) == (0.1, True)
    assert (rates["nll"].lr, rates["nll"].use_scheduler) == (0.2, False)


@pytest.mark.parametrize("single_sigma", [True, False])
@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 7, 4)])
def test_a_cnn_takes_noise_beside_its_features(shape, single_sigma):
    torch.manual_seed(0)
    spec = DataSpec(name="images", shape=shape, size=50, low=0, high=255, discrete=True)
    keys = {"encoder_net": "cnn", "decoder_net": "cnn", "latent_dim": 3, "single_sigma": single_sigma}
    model = built(AVBConfig.for_data(spec, "de", **keys), spec)
    x = torch.rand(4, *shape) * 255
    model.fit_transform([x])
    assert isinstance(model.encoder.features[0], torch.nn.Conv2d)
    with evaluating(model):
        one, other = (drawn(model, model.transform(x)) for _ in range(2))
        assert not torch.allclose(one, other, atol=1e-3)
        assert torch.isfinite(model.log_prob(x)).all()
        assert model.sample(2).shape == (2, *shape)
