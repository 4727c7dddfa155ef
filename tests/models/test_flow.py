"""The flow: invertible, its log-determinant that of autograd, a density that is one and is what it samples from."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from twostep.core.schema import DataSpec, UserError
from twostep.models.flow import FlowConfig

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


def vectors(dim, keys=()):
    low = 0 if "logit_transform" in keys else -10
    return DataSpec(name="vectors", shape=(dim,), size=100, low=low, high=10, discrete="dequantize" in keys)


def flow(dim, seed=0, spread=0.3, **keys):
    """Return a flow with random weights; at a spread of 0.3 bins are so uneven that its Jacobian's condition is 1e5."""
    torch.manual_seed(seed)
    config = FlowConfig(**{"hidden_units": 8, "num_layers": 3, "num_blocks_per_layer": 1, "num_bins": 5, **keys})
    model = config.build(vectors(dim, keys)).double()
    with torch.no_grad():
        for layer in model.layers.layers:
            layer.lower_upper += 0.3 * torch.randn_like(layer.lower_upper) / math.sqrt(dim)
            last = (
                [layer.conditioner.last.weight, layer.conditioner.last.bias] if dim > 1 else [layer.conditioner.values]
            )
            for parameter in last:
                parameter += spread * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def neutral(dim, **keys):
    """Return a flow that is the identity up to its transform."""
    model = FlowConfig(num_layers=2, hidden_units=4, num_blocks_per_layer=1, **keys).build(vectors(dim)).double()
    with torch.no_grad():
        for layer in model.layers.layers:
            for parameter in layer.conditioner.parameters():
                parameter.zero_()
    return model.eval().requires_grad_(False)


def data(n, dim, seed=1):
    return 2 * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def to_noise(model, x):
    return model.layers(model.transform(x))[0]


def to_data(model, u):
    return model.transform.inverse(model.layers.inverse(u))


def grid(low, high, steps, dim):
    axis = torch.linspace(low, high, steps, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim), float(axis[1] - axis[0]) ** dim


# ---- the map


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("dtype", "error", "spread"), [(torch.float64, 1e-9, 0.3), (torch.float32, 2e-6, 0.03)])
def test_the_inverse_undoes_the_flow(dim, dtype, error, spread):
    model = flow(dim, spread=spread).to(dtype)
    x = data(200, dim).to(dtype)
    u = to_noise(model, x)
    assert not torch.allclose(u, x, atol=0.1), "the weights must not be neutral"
    scale = max(1, float(x.abs().max()))
    assert float((to_data(model, u) - x).abs().max()) < error * scale
    assert float((to_noise(model, to_data(model, x)) - x).abs().max()) < error * scale


def test_the_inverse_holds_on_the_edges_of_the_bins():
    model = flow(2)
    edges, _ = grid(-1, 1, 5, 2)
    assert torch.allclose(to_data(model, to_noise(model, edges)), edges, atol=1e-9)


@pytest.mark.parametrize("keys", TRANSFORMS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_log_determinant_is_autograds(dim, keys):
    model = flow(dim, **keys)
    x = data(12, dim).abs() if "logit_transform" in keys else data(12, dim)
    model.transform.fit([x])
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda point: to_noise(model, point[None])[0], point) for point in x]
    )
    standard = Independent(Normal(torch.zeros(dim).double(), 1.0), 1)
    expected = standard.log_prob(to_noise(model, x)) + torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(model.log_prob(x), expected, rtol=0, atol=1e-8)


def test_each_layer_moves_every_coordinate():
    model = flow(6)
    x = data(1, 6)
    for layer in model.layers.layers:
        J = torch.autograd.functional.jacobian(lambda h, layer=layer: layer(h[None])[0][0], x[0])
        assert (J.abs().sum(1) > 0).all()
        assert (J.abs().sum(0) > 0).all()


def test_far_away_points_have_finite_densities():
    for dtype in (torch.float32, torch.float64):
        model = flow(3).to(dtype)
        far = torch.tensor([[1e4, -1e4, 0.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]], dtype=dtype)
        assert torch.isfinite(model.log_prob(far)).all()


def test_it_starts_close_to_a_gaussian_of_the_datas_moments():
    torch.manual_seed(0)
    model = FlowConfig(whitening_transform=True).build(vectors(3)).double()
    x = 5 + data(2000, 3) * torch.tensor([1.0, 10.0, 0.1])
    model.transform.fit([x])
    gaussian = Independent(Normal(x.mean(0), x.std(0, correction=0)), 1)
    excess = (model.log_prob(x) - gaussian.log_prob(x)).detach()
    assert abs(float(excess.mean())) < 0.01
    assert float(excess.abs().max()) < 0.3


# ---- the density


@pytest.mark.parametrize("keys", TRANSFORMS)
@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_integrates_to_one(dim, keys):
    model = flow(dim, **keys)
    x = data(300, dim).abs() if "logit_transform" in keys else 1 + data(300, dim)
    model.transform.fit([x])
    top = math.floor(x.abs().max()) + 1 if "dequantize" in keys else float(x.abs().max())
    side = 15.0 if "whitening_transform" in keys else 6 * top if "scale_data" in keys else 6.0
    low, high = (-0.06 * top, 1.06 * top) if "logit_transform" in keys else (1 - side, 1 + side)
    points, cell = grid(low, high, 20_001 if dim == 1 else 351, dim)
    density = model.log_prob(points).exp()
    assert float(density.sum()) * cell == pytest.approx(1, abs=0.01)
    assert float(density.max() / density.mean()) > 2, "a density worth integrating"


@pytest.mark.parametrize("seed", range(3))
def test_samples_have_the_distribution_of_the_density(seed):
    """Entropy, mean and covariance by quadrature against those of samples."""
    model = flow(2, seed=seed, spread=0.2)
    points, cell = grid(-9, 9, 401, 2)
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
    assert torch.allclose(samples.T.cov(), covariance, atol=0.04 * float(spread.max()) ** 2)


def test_samples_in_one_dimension_have_the_distribution_of_the_density():
    model = flow(1, seed=4)
    points, cell = grid(-12, 12, 20_001, 1)
    cumulative = (model.log_prob(points).exp() * cell).cumsum(0)
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten().sort().values
    there = torch.searchsorted(points.flatten(), samples).clamp(max=len(points) - 1)
    empirical = torch.arange(1, len(samples) + 1) / len(samples)
    assert float((cumulative[there] - empirical).abs().max()) < 1.95 / math.sqrt(len(samples))


def test_a_neutral_flow_with_a_linear_map_is_the_gaussian_of_that_map():
    model = neutral(3, whitening_transform=True)
    x = 4 + data(50, 3)
    model.transform.fit([x])
    lower_upper = torch.tensor([[2.0, 0.3, -0.1], [0.5, 0.7, 0.2], [-0.4, 0.1, 1.5]], dtype=torch.float64)
    model.layers.layers[1].lower_upper.copy_(lower_upper)
    A = torch.autograd.functional.jacobian(lambda point: to_noise(model, point[None])[0], x[0])
    inverse = torch.linalg.inv(A)
    gaussian = MultivariateNormal(x.mean(0), inverse @ inverse.T)
    assert torch.allclose(model.log_prob(x), gaussian.log_prob(x), rtol=0, atol=1e-8)
    assert not torch.allclose(A, torch.diag(A.diagonal()), atol=0.01)


def test_the_loss_is_the_mean_negative_log_density_of_what_the_network_sees():
    model = flow(3, whitening_transform=True)
    x = data(40, 3)
    model.transform.fit([x])
    (objective,) = model.objectives()
    per_point = model.log_prob(x) - model.transform.log_abs_det_jacobian(x)
    assert float(objective.loss(x)) == pytest.approx(-float(per_point.mean()), abs=1e-10)


# ---- fitting


def test_it_learns_a_mixture_of_gaussians_to_a_tenth_of_a_nat():
    torch.manual_seed(0)
    centres = 2 * torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    truth = MixtureSameFamily(
        Categorical(torch.tensor([0.5, 0.3, 0.2])), Independent(Normal(centres, torch.full((3, 2), 0.4)), 1)
    )
    train, test = truth.sample((6000,)), truth.sample((4000,))
    keys = {"num_layers": 3, "hidden_units": 32, "num_blocks_per_layer": 1, "tail_bound": 3.0}
    model = FlowConfig(whitening_transform=True, **keys).build(vectors(2))
    model.fit_transform([train])
    (objective,) = model.objectives()
    before = float(model.log_prob(test).detach().mean())
    optimizer = torch.optim.Adam(objective.parameters, lr=1e-2)
    for step in range(200):
        loss = objective.loss(train[torch.randint(len(train), (256,))])
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / 200)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = float(truth.log_prob(test).mean())
    after = float(model.log_prob(test).detach().mean())
    assert before < best - 1
    assert best - 0.1 < after < best + 0.02


# ---- images at several resolutions


def images(shape, seed=0, dtype=torch.float64):
    """Return a multiscale flow with random weights, and images."""
    torch.manual_seed(seed)
    spec = DataSpec(name="images", shape=shape, size=20, low=0, high=10)
    keys = {"hidden_units": 6, "num_layers": 2, "num_blocks_per_layer": 1, "num_bins": 4, "tail_bound": 2.0}
    model = FlowConfig(transform="multiscale", whitening_transform=True, **keys).build(spec).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    x = 10 * torch.rand(5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.transform.fit([x])
    return model.to(dtype).eval().requires_grad_(False), x.to(dtype)


SHAPES = [(1, 2, 2), (1, 4, 6), (3, 2, 10), (1, 8, 8), (2, 8, 4), (1, 12, 28)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_inverse_undoes_a_multiscale_flow(shape):
    model, x = images(shape)
    u = to_noise(model, x)
    assert u.shape == (5, math.prod(shape))
    assert torch.allclose(to_data(model, u), x, atol=1e-8)
    assert torch.allclose(to_noise(model, to_data(model, u)), u, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_the_log_determinant_of_a_multiscale_flow_is_autograds(shape):
    model, x = images(shape)
    standard = Independent(Normal(torch.zeros(math.prod(shape)).double(), 1.0), 1)
    for point, value in zip(x[:2], model.log_prob(x[:2]), strict=True):
        J = torch.autograd.functional.jacobian(lambda p: to_noise(model, p[None])[0], point)
        jacobian = torch.linalg.slogdet(J.flatten(1)).logabsdet
        assert float(value - standard.log_prob(to_noise(model, point[None]))[0] - jacobian) == pytest.approx(
            0, abs=1e-8
        )


def test_samples_of_a_multiscale_flow_have_the_distribution_of_its_density():
    """The mean of q / p over samples of p is 1 for any density q within p: here a Gaussian narrower than they are."""
    model, _ = images((1, 2, 2))
    x = model.sample(20_000, torch.Generator().manual_seed(0))
    q = MultivariateNormal(x.flatten(1).mean(0), 0.6 * x.flatten(1).T.cov())
    ratios = (q.log_prob(x.flatten(1)) - model.log_prob(x)).exp()
    error = float(ratios.std()) / math.sqrt(len(x))
    assert error < 0.01
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * error)


def test_a_multiscale_flow_mixes_pixels_across_levels():
    model, x = images((1, 8, 8))
    J = torch.autograd.functional.jacobian(lambda p: to_noise(model, p[None])[0], x[0]).flatten(1)
    assert len(model.layers.levels) == 3
    assert float((J[-4:].abs() > 1e-12).double().mean()) > 0.9, "the last level sees nearly all pixels"


@pytest.mark.parametrize("shape", [(1, 5, 4), (1, 4, 7), (6,)])
def test_images_that_cannot_be_halved_are_refused(shape):
    spec = DataSpec(name="odd", shape=shape, size=20, low=0, high=10)
    with pytest.raises(UserError, match=r"^transform=multiscale "):
        FlowConfig(transform="multiscale").build(spec)


def test_a_multiscale_flow_learns():
    """Smooth images of four pixels: the fitted density comes near the true one's entropy."""
    torch.manual_seed(0)
    spec = DataSpec(name="images", shape=(1, 2, 2), size=2000, low=-9, high=9)
    covariance = 0.3 * torch.eye(4) + 0.7
    distribution = MultivariateNormal(torch.zeros(4), covariance)
    x = distribution.sample((2000,)).view(-1, 1, 2, 2)
    model = FlowConfig.for_data(
        spec, "de", transform="multiscale", hidden_units=16, num_layers=3, num_blocks_per_layer=1, tail_bound=3.0
    ).build(spec)
    model.fit_transform([x])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        rows = x[torch.randint(2000, (128,))]
        optimizer.zero_grad()
        model.objectives()[0].loss(rows).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    fresh = distribution.sample((2000,))
    gap = float((distribution.log_prob(fresh) - model.log_prob(fresh.view(-1, 1, 2, 2))).mean())
    assert gap < 0.15
    drawn = model.sample(4000, torch.Generator().manual_seed(0)).flatten(1)
    assert torch.allclose(drawn.T.cov(), covariance, atol=0.2)


@pytest.mark.parametrize("keys", [{}, {"transform": "multiscale"}])
def test_no_points_have_no_densities(keys):
    spec = DataSpec(name="images", shape=(1, 4, 4), size=9, low=0, high=9)
    model = FlowConfig(hidden_units=4, num_layers=2, num_blocks_per_layer=1, **keys).build(spec).eval()
    assert model.log_prob(torch.zeros(0, 1, 4, 4)).shape == (0,)


@pytest.mark.parametrize("kind", ["maf", "nsf"])
def test_autoregressive_layers_are_invertible_and_normalised(kind):
    keys = {"transform": kind, "hidden_units": 8, "num_layers": 2, "num_blocks_per_layer": 1}
    torch.manual_seed(0)
    model, one = (FlowConfig(**keys).build(vectors(dim)).double().eval().requires_grad_(False) for dim in (3, 1))
    for parameter in (*model.parameters(), *one.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    x = data(20, 3)
    u, log_det = model.layers(x)
    torch.testing.assert_close(model.layers.inverse(u), x)
    J = torch.stack([torch.autograd.functional.jacobian(lambda y: model.layers(y[None])[0][0], row) for row in x])
    torch.testing.assert_close(log_det, torch.linalg.slogdet(J).logabsdet)
    axis = torch.linspace(-20, 20, 4001).double()
    assert float(torch.trapezoid(one.log_prob(axis[:, None]).exp(), axis)) == pytest.approx(1, abs=1e-3)
