"""The ARM: each coordinate sees only those before it, and all the conditionals make one density, that of its samples.

Most tests take a model of random weights, large enough that each conditional depends on its past.
"""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from twostep.core.schema import DataSpec
from twostep.models.arm import ARMConfig, earlier

TRANSFORMS = [
    {},
    {"whitening_transform": True},
    {"scale_data": True},
    {"scale_data": True, "whitening_transform": True},
    {"scale_data": True, "logit_transform": True},
    {"scale_data": True, "logit_transform": True, "whitening_transform": True},
    {"scale_data": True, "logit_transform": True, "dequantize": True},
    {"whitening_transform": True, "denoising_sigma": 0.5, "clamp_samples": True},
]
IMAGES = DataSpec(name="images", shape=(3, 2, 5), size=40, low=-9, high=9)


def vectors(dim, keys=()):
    low = 0 if "logit_transform" in keys else -10
    return DataSpec(name="vectors", shape=(dim,), size=100, low=low, high=10, discrete="dequantize" in keys)


def arm(spec, seed=0, spread=3.0, **keys):
    torch.manual_seed(seed)
    model = ARMConfig(**{"hidden_size": 6, "num_layers": 2, "k_mixture": 3, **keys}).build(spec).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= spread
    return model.eval().requires_grad_(False)


def data(n, *shape, seed=1):
    return 2 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(low, high, steps, dim):
    axis = torch.linspace(low, high, steps, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim), float(axis[1] - axis[0]) ** dim


def fitted(spec, train, steps, **keys):
    """Return a model trained for a while by the trainer's rule: Adam with a cosine to 0."""
    torch.manual_seed(0)
    model = ARMConfig.for_data(spec, "de", **keys).build(spec)
    model.fit_transform([train])
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / steps)) / 2
        loss = objective.loss(train[torch.randint(len(train), (256,))])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters, 10.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


# ---- the order of the coordinates


@pytest.mark.parametrize("spec", [vectors(1), vectors(6), IMAGES], ids=lambda spec: str(spec.shape))
def test_a_steps_mixture_depends_on_all_steps_before_it_and_on_no_other(spec):
    model, x = arm(spec), data(1, *spec.shape)[0]
    mixtures = []
    model.head.register_forward_hook(lambda module, inputs, output: mixtures.append(output[:, 0]))

    def parameters(y):
        model.conditionals(y[None])
        return mixtures[-1]

    J = torch.autograd.functional.jacobian(parameters, x)
    felt = J.abs().reshape(model.steps, -1, model.features, model.steps).amax((1, 2))
    assert torch.equal(felt > 0, torch.ones(model.steps, model.steps).tril(-1).bool())
    own = torch.autograd.functional.jacobian(lambda y: model.conditionals(y[None])[0], x)
    scored = own.abs().reshape(model.steps, model.features, model.steps).amax(1)
    assert torch.equal(scored > 0, torch.ones(model.steps, model.steps).tril().bool()), "and it scores its own step"


def test_images_are_read_in_raster_order_with_a_pixels_channels_together():
    model, x = arm(IMAGES), data(2, *IMAGES.shape)
    channels, height, width = IMAGES.shape
    before = model.conditionals(x)
    assert before.shape == (2, height * width)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                changed = x.clone()
                changed[:, channel, row, column] += 0.5
                pixel = row * width + column
                moved = model.conditionals(changed) != before
                assert not moved[:, :pixel].any()
                assert moved[:, pixel].all()


@pytest.mark.parametrize("context", [0, 1, 2, 7])
def test_a_pixel_sees_the_one_before_it_and_those_above_and_beside_it(context):
    height, width = 4, 5
    seen = earlier((3, height, width), context)
    for step in range(height * width):
        row, column = divmod(step, width)
        near = {
            other for other in range(step) if row - other // width <= context and abs(column - other % width) <= context
        }
        assert set(seen[step].tolist()) - {height * width} == near | {step - 1} - {-1}
    assert seen[:, -1].tolist() == [height * width, *range(height * width - 1)]


def test_with_a_context_of_none_the_network_is_the_references():
    assert arm(IMAGES, context=0).lstm.input_size == 3
    assert ARMConfig.for_data(IMAGES, "de", preset="reference").context == 0
    assert ARMConfig.for_data(IMAGES, "de").context == 2


def test_the_channels_of_a_pixel_share_the_choice_of_a_component():
    """With one pixel the model is a mixture of diagonal Gaussians in C dimensions: torch's own."""
    spec = DataSpec(name="pixels", shape=(3, 1, 1), size=9, low=-9, high=9)
    model, x = arm(spec), data(20, 3, 1, 1)
    hidden = model.lstm(torch.zeros(1, 1, model.lstm.input_size).double())[0][0, 0]
    raw = model.head.weight @ hidden + model.head.bias
    mean, std = raw[3:12].reshape(3, 3), torch.log1p(raw[12:].exp()).reshape(3, 3) + 1e-4
    mixture = MixtureSameFamily(Categorical(logits=raw[:3]), Independent(Normal(mean, std), 1))
    assert torch.allclose(model.log_prob(x), mixture.log_prob(x.flatten(1)), rtol=0, atol=1e-10)
    assert float(mean.std(0).min()) > 0.01, "components differ"


# ---- the density


@pytest.mark.parametrize("keys", TRANSFORMS)
@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_integrates_to_one(dim, keys):
    model = arm(vectors(dim, keys), **keys)
    x = data(300, dim).abs() if "logit_transform" in keys else 1 + data(300, dim)
    model.transform.fit([x])
    top = math.floor(x.abs().max()) + 1 if "dequantize" in keys else float(x.abs().max())
    low, high = (-0.0555 * top, 1.0555 * top) if "logit_transform" in keys else (-6 * top, 6 * top)
    points, cell = grid(low, high, 20_001 if dim == 1 else 301, dim)
    density = model.log_prob(points).exp()
    assert float(density.sum()) * cell == pytest.approx(1, abs=0.01)
    assert float(density.max() / density.mean()) > 2, "a density worth integrating"


@pytest.mark.parametrize("seed", range(2))
def test_samples_have_the_distribution_of_the_density(seed):
    """Entropy, mean and covariance by quadrature against those of samples."""
    model = arm(vectors(2), seed=seed, whitening_transform=True)
    model.transform.fit([1 + data(50, 2)])
    points, cell = grid(-25, 25, 401, 2)
    log_p = model.log_prob(points)
    weight = log_p.exp() * cell
    mean = weight @ points
    covariance = (points - mean).T @ (weight[:, None] * (points - mean))
    samples = model.sample(20_000, torch.Generator().manual_seed(100 + seed))
    information = -model.log_prob(samples)
    error = float(information.std()) / math.sqrt(len(samples))
    assert abs(float(information.mean() + weight @ log_p)) < 4 * error + 1e-3
    spread = covariance.diagonal().sqrt()
    assert ((samples.mean(0) - mean).abs() < 4 * spread / math.sqrt(len(samples)) + 1e-3).all()
    assert torch.allclose(samples.T.cov(), covariance, atol=0.05 * float(spread.max()) ** 2)


def test_the_floor_bounds_the_density_of_a_constant():
    model = arm(vectors(1), spread=1.0)
    model.head.bias[6:] = -200.0
    model.head.weight.zero_()
    model.head.bias[3:6] = 0.0
    peak = float(model.log_prob(torch.zeros(1, 1).double()))
    assert peak == pytest.approx(-math.log(1e-4) - 0.5 * math.log(2 * math.pi), abs=1e-9)


def test_far_away_points_have_finite_densities_and_gradients():
    model = arm(vectors(3)).float().requires_grad_(True)
    far = torch.tensor([[1e4, -1e4, 0.0], [1.0, -1.0, 1.0], [-3e5, 0.0, 3e5]])
    log_p = model.log_prob(far)
    gradients = torch.autograd.grad(log_p.sum(), list(model.parameters()))
    assert torch.isfinite(log_p).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_rows_taken_in_parts_are_the_rows_taken_at_once(monkeypatch):
    model, x = arm(vectors(5)), data(23, 5)
    whole = model.log_prob(x)
    lengths = []
    model.lstm.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    monkeypatch.setattr("twostep.models.arm.STEPS_AT_ONCE", 50)
    assert torch.allclose(model.log_prob(x), whole, rtol=0, atol=1e-12)
    assert lengths == [10, 10, 3]


def test_the_loss_is_the_mean_negative_log_density_of_what_the_network_sees():
    model, x = arm(vectors(3), whitening_transform=True), data(40, 3)
    model.transform.fit([x])
    (objective,) = model.objectives()
    per_point = model.log_prob(x) - model.transform.log_abs_det_jacobian(x)
    assert float(objective.loss(x)) == pytest.approx(-float(per_point.mean()), abs=1e-10)


# ---- sampling


@pytest.mark.parametrize("spec", [vectors(5), IMAGES], ids=lambda spec: str(spec.shape))
def test_step_by_step_sampling_draws_from_the_teacher_forced_conditionals(spec, monkeypatch):
    """The mixtures that sampling met on its way are those that one pass over the finished points gives."""
    model = arm(spec)
    met, steps = [], []
    mixture = model._mixture
    monkeypatch.setattr(model, "_mixture", lambda hidden: met.append(mixture(hidden)) or met[-1])
    model.lstm.register_forward_hook(lambda module, inputs, output: steps.append(inputs[0].shape[0]))
    x = model.sample(30, torch.Generator().manual_seed(3))
    assert steps == [1] * model.steps, "one cell step a coordinate, the prefix is never run again"
    on_the_way = [torch.stack(part) for part in zip(*met, strict=True)]
    met.clear()
    model.conditionals(x)
    for one, other in zip(on_the_way, met[0], strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
    assert float(on_the_way[1][-1].std(0).min()) > 1e-3, "the last mixture depends on what was drawn before"


def test_samples_carry_no_graph():
    model = arm(vectors(4)).requires_grad_(True)
    assert not model.sample(3).requires_grad


# ---- fitting


@pytest.mark.cmd
def test_it_learns_an_autoregressive_gaussian_to_two_hundredths_of_a_nat_a_dimension():
    """`x_t = 0.9 x_{t-1} - 0.5 x_{t-2} + 0.3 e_t`, in units of its own."""
    dim = 6
    A = torch.eye(dim)
    for t in range(1, dim):
        A[t, t - 1] = -0.9
        if t > 1:
            A[t, t - 2] = 0.5
    L = torch.linalg.inv(A) @ torch.diag(torch.tensor([1.0] + [0.3] * (dim - 1)))
    truth = MultivariateNormal(torch.full((dim,), 4.0), 25 * L @ L.T)
    torch.manual_seed(2)
    train, test = truth.sample((20_000,)), truth.sample((5_000,))
    model = fitted(vectors(dim), train, steps=350, hidden_size=32, k_mixture=2)
    best = float(truth.log_prob(test).mean()) / dim
    apart = Independent(Normal(train.mean(0), train.std(0)), 1)
    assert float(apart.log_prob(test).mean()) / dim < best - 0.3, "coordinates must depend on each other"
    assert best - 0.02 < float(model.log_prob(test).mean()) / dim < best + 0.005
    samples = model.sample(20_000, torch.Generator().manual_seed(0))
    correlation = torch.corrcoef(samples.T) - torch.corrcoef(test.T)
    assert float(correlation.abs().max()) < 0.06


def test_it_learns_two_lumps_that_one_gaussian_cannot():
    truth = MixtureSameFamily(
        Categorical(torch.tensor([0.7, 0.3])), Independent(Normal(torch.tensor([[-2.0, 1.0], [2.0, -1.0]]), 0.3), 1)
    )
    torch.manual_seed(3)
    train, test = truth.sample((6_000,)), truth.sample((4_000,))
    model = fitted(vectors(2), train, steps=200, hidden_size=16)
    best = float(truth.log_prob(test).mean())
    assert best - 0.1 < float(model.log_prob(test).mean()) < best + 0.02
    samples = model.sample(5_000, torch.Generator().manual_seed(0))
    assert float((samples[:, 0] > 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float((samples[:, 0] * samples[:, 1] < 0).float().mean()) > 0.97


# ---- keys


def test_images_get_the_large_network_and_integers_are_dequantised():
    pixels = DataSpec(name="pixels", shape=(1, 4, 4), size=9, low=0, high=255, discrete=True)
    config = ARMConfig.for_data(pixels, "de")
    assert (config.hidden_size, config.num_layers, config.k_mixture) == (256, 2, 10)
    assert (config.whitening_transform, config.scale_data, config.dequantize) == (True, False, True)
    assert not ARMConfig.for_data(IMAGES, "de").dequantize
    reference = ARMConfig.for_data(pixels, "de", preset="reference")
    assert (reference.whitening_transform, reference.scale_data, reference.dequantize) == (False, True, False)
    assert (config.lr, reference.lr) == (3e-3, 1e-3)


def test_embeddings_get_the_small_network():
    config = ARMConfig.for_data(vectors(20), "de")
    assert (config.hidden_size, config.num_layers, config.whitening_transform) == (128, 1, True)
    assert (config.early_stopping_metric, config.max_bad_valid_epochs) == ("loss", 10)
    assert config.optimizers()["loss"].use_scheduler
    assert config.optimizers()["loss"].lr == 3e-3
    assert ARMConfig.for_data(vectors(20), "de", preset="reference").lr == 1e-3
