"""Transforms: inverse, Jacobian against autograd, statistics against numpy, densities that integrate to 1."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from twostep.core.schema import DataSpec, UserError
from twostep.models.flow import FlowConfig
from twostep.nn.distributions import standard_normal_log_prob
from twostep.nn.transforms import Chain, DataTransform, Flatten, Logit, Noise, Scale, Whiten

PARTS = {
    "none": [],
    "flatten": ["flatten"],
    "scale": ["scale"],
    "whiten": ["whiten"],
    "scale+whiten": ["scale", "whiten"],
    "scale+logit": ["scale", "logit"],
    "scale+logit+whiten": ["scale", "logit", "whiten"],
    "flatten+scale+logit+whiten": ["flatten", "scale", "logit", "whiten"],
}


def build(names, shape):
    made = []
    for name in names:
        flat = (math.prod(shape),) if "flatten" in names else shape
        made.append({"flatten": Flatten(shape), "scale": Scale(), "whiten": Whiten(flat), "logit": Logit()}[name])
    return Chain(made).double()


def positive(n, shape, seed, low=0.0, high=3.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, *shape, generator=generator, dtype=torch.float64)


def autograd_log_det(transform, x):
    """Return log|det| of the transform's Jacobian at each point, the slow and certain way."""

    def alone(point):
        return transform(point[None]).flatten()

    jacobians = [torch.autograd.functional.jacobian(alone, point).reshape(point.numel(), -1) for point in x]
    return torch.linalg.slogdet(torch.stack(jacobians)).logabsdet


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
@settings(deadline=None, max_examples=10)
@given(shape=st.sampled_from([(1,), (4,), (2, 3, 2), (1, 1, 5)]), seed=st.integers(0, 10**6))
def test_inverse_and_jacobian_of_every_composition(names, shape, seed):
    x = positive(20, shape, seed)
    transform = build(names, shape)
    transform.fit([x])
    y = transform(x)
    assert y.shape == ((20, math.prod(shape)) if "flatten" in names else x.shape)
    assert torch.allclose(transform.inverse(y), x, rtol=0, atol=1e-10)
    got = transform.log_abs_det_jacobian(x)
    assert got.shape == (20,)
    assert torch.allclose(got[:4], autograd_log_det(transform, x[:4]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_maps_are_onto_single_precision_too(names):
    x = positive(50, (3, 2), 1).float()
    transform = build(names, (3, 2)).float()
    transform.fit([x])
    assert transform(x).dtype == transform.log_abs_det_jacobian(x).dtype == torch.float32
    assert torch.allclose(transform.inverse(transform(x)), x, atol=1e-5)


# ---- statistics


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(1, 59), max_size=6),
    offset=st.floats(-1e4, 1e4),
    spread=st.floats(1e-3, 1e3),
    seed=st.integers(0, 10**6),
)
def test_statistics_are_numpys_however_the_data_are_cut(cuts, offset, spread, seed):
    x = offset + spread * torch.randn(60, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    batches = [part for part in torch.tensor_split(x, sorted(cuts)) if len(part)]
    whiten, scale = Whiten((3, 2)).double(), Scale().double()
    whiten.fit(batches)
    scale.fit(batches)
    data = x.numpy()
    assert np.allclose(whiten.mean.numpy(), data.mean(0), rtol=1e-12, atol=1e-9 * spread)
    assert np.allclose(whiten.std.numpy(), data.std(0), rtol=1e-7)
    assert float(scale.scale) == np.abs(data).max()
    assert float(scale(x).abs().max()) == 1.0


def test_single_precision_data_far_from_zero_keep_their_deviation():
    x = (1e4 + torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))).float()
    whiten = Whiten((2,))
    whiten.fit(x.split(7))
    assert np.allclose(whiten.std.numpy(), x.numpy().astype(np.float64).std(0), rtol=1e-5)


def test_constant_and_nearly_constant_pixels_stay_finite():
    """MNIST has 67 constant pixels; others are lit in one image out of 60,000."""
    x = positive(3000, (1, 2, 3), 0, high=255.0).floor()
    x[:, 0, 0, 0] = 0
    x[:, 0, 0, 1] = 0
    x[17, 0, 0, 1] = 255
    x[:, 0, 1, 2] = 7
    whiten = Whiten((1, 2, 3)).double()
    whiten.fit(x.split(128))
    y = whiten(x)
    assert float(y.abs().max()) <= 100
    assert (y[:, 0, 0, 0] == 0).all()
    varying = x[:, 0].flatten(1)[:, [1, 2, 3, 4]]
    typical = varying.var(0, correction=0).mean().sqrt()
    assert torch.allclose(whiten.std[0, 0, 0], typical, rtol=1e-12)
    assert torch.allclose(whiten.std[0, 1, 2], typical, rtol=1e-12)
    assert torch.allclose(whiten.std[0, 0, 2], x[:, 0, 0, 2].std(correction=0), rtol=1e-12)
    assert torch.isfinite(whiten.log_abs_det_jacobian(x)).all()
    shifted = x + 1
    assert float(whiten(shifted).abs().max()) < 102, "a constant pixel that changes by 1 must not explode"


def test_data_that_are_all_constant_keep_their_scale():
    x = torch.full((5, 2), 3.0)
    whiten, scale = Whiten((2,)), Scale()
    whiten.fit([x])
    scale.fit([0 * x])
    assert torch.equal(whiten(x), torch.zeros(5, 2))
    assert torch.equal(whiten.std, torch.ones(2))
    assert torch.equal(scale(x), x)


def test_one_row_is_data_enough():
    whiten = Whiten((2,))
    whiten.fit([torch.tensor([[1.0, 2.0]])])
    assert torch.equal(whiten(torch.tensor([[1.0, 3.0]])), torch.tensor([[0.0, 1.0]]))


def test_statistics_lie_in_the_state_and_come_back_with_it():
    x = positive(30, (2,), 3)
    fitted, fresh = build(["scale", "whiten"], (2,)), build(["scale", "whiten"], (2,))
    fitted.fit([x])
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(x), fitted(x))
    assert not list(fitted.parameters())


# ---- the logit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_is_finite_and_tight_at_both_ends(dtype):
    ends = torch.tensor([[0.0], [1.0]], dtype=dtype)
    logit = Logit()
    y = logit(ends)
    assert torch.allclose(y, torch.tensor([[-math.log(19)], [math.log(19)]], dtype=dtype), atol=1e-5)
    assert torch.allclose(logit.inverse(y), ends, atol=1e-6)
    assert torch.isfinite(logit.log_abs_det_jacobian(ends)).all()


@pytest.mark.parametrize("value", [-0.06, 1.06, 2.0, -300.0])
def test_points_beyond_the_logits_domain_have_density_zero(value):
    x = torch.tensor([[0.5, value]])
    logit = Logit()
    assert torch.isfinite(logit(x)).all()
    assert logit.log_abs_det_jacobian(x).tolist() == [-math.inf]


# ---- chains


class Recorder(DataTransform):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def fit(self, batches):
        self.log.append(torch.cat(list(batches)))

    def forward(self, x):
        return 2 * x

    def inverse(self, y):
        return y / 2

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        return math.log(2) * x.new_ones(len(x))


def test_each_part_is_fitted_to_what_those_before_make_of_the_data():
    log = []
    Chain([Recorder(log), Recorder(log), Recorder(log)]).fit([torch.ones(2, 1), 3 * torch.ones(1, 1)])
    assert [seen.flatten().tolist() for seen in log] == [[1, 1, 3], [2, 2, 6], [4, 4, 12]]


def test_scale_then_logit_then_whiten_ends_white():
    x = positive(400, (3,), 5, low=1.0, high=9.0)
    transform = build(["scale", "logit", "whiten"], (3,))
    transform.fit(x.split(50))
    y = transform(x)
    assert torch.allclose(y.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(y.std(0, correction=0), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("names", [["whiten"], ["scale", "whiten"], ["scale", "logit"], ["scale", "logit", "whiten"]])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_gaussian_behind_a_transform_integrates_to_one(names, dim):
    """A density that forgets the transform's Jacobian integrates to the product of the scales."""
    x = positive(300, (dim,), 7, low=2.0, high=60.0) if "logit" in names else 10 * positive(300, (dim,), 7) - 40
    transform = build(names, (dim,))
    transform.fit([x])
    top = float(x.abs().max())
    low, high = (-0.06 * top, 1.06 * top) if "logit" in names else (-15 - 10 * 9, -25 + 10 * 9)
    axis = torch.linspace(low, high, 2001 if dim == 1 else 701, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    density = (standard_normal_log_prob(transform(points)) + transform.log_abs_det_jacobian(points)).exp()
    assert float(density.sum()) * float(axis[1] - axis[0]) ** dim == pytest.approx(1, abs=0.01)


# ---- what a config builds


def spec(discrete=True):
    return DataSpec(name="set", shape=(1, 2, 3), size=9, low=0, high=255, discrete=discrete)


def test_dequantised_pixels_stay_in_the_unit_interval_and_their_logit_is_finite():
    config = FlowConfig(dequantize=True, scale_data=True, logit_transform=True, whitening_transform=True)
    model = config.build(spec())
    x = torch.randint(0, 256, (500, 1, 2, 3), generator=torch.Generator().manual_seed(0)).float()
    x[0], x[1] = 0, 255
    torch.manual_seed(0)
    model.fit_transform(x.split(100))
    flatten, scale, logit, whiten = model.transform
    assert float(scale.scale) == 256
    for _ in range(5):
        unit = scale(flatten(model.noise(x)))
        assert 0 <= float(unit.min()) <= float(unit.max()) < 1
        assert torch.isfinite(whiten(logit(unit))).all()


def test_without_dequantising_the_largest_pixel_is_one():
    model = FlowConfig(scale_data=True).build(spec())
    model.fit_transform([torch.full((2, 1, 2, 3), 200.0)])
    assert float(model.transform(torch.full((1, 1, 2, 3), 200.0)).max()) == 1


def test_gaussian_noise_and_a_logit_exclude_each_other_in_one_line():
    config = FlowConfig(scale_data=True, logit_transform=True, denoising_sigma=1.0)
    torch.manual_seed(0)
    with pytest.raises(UserError, match="noise goes beyond; set denoising_sigma=0"):
        config.build(spec()).fit_transform([torch.zeros(50, 1, 2, 3)])


def test_dequantising_needs_integers():
    with pytest.raises(UserError, match=r"^dequantize=True: "):
        FlowConfig(dequantize=True).build(spec(discrete=False))


def test_flatten_may_only_agree_with_the_network():
    assert FlowConfig(flatten=True).build(spec())
    with pytest.raises(UserError, match=r"^flatten=False: "):
        FlowConfig(flatten=False).build(spec())


# ---- noise


def test_uniform_noise_fills_each_bin_and_leaves_none():
    x = torch.tensor([0.0, 3.0, 254.0, 255.0]).repeat(100_000, 1)
    torch.manual_seed(0)
    noisy = Noise(dequantize=True, sigma=0.0).dequantize(x)
    assert torch.equal(noisy.floor(), x)
    u = (noisy - x).double()
    assert torch.allclose(u.mean(0), torch.full((4,), 0.5, dtype=torch.float64), atol=0.005)
    assert torch.allclose(u.var(0), torch.full((4,), 1 / 12, dtype=torch.float64), rtol=0.02)


def test_the_largest_draw_does_not_round_into_the_next_bin(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 1 - 2**-24))
    x = torch.arange(256.0)
    assert torch.equal(Noise(dequantize=True, sigma=0.0)(x).floor(), x)


def test_gaussian_noise_has_the_given_deviation_in_training_alone():
    noise = Noise(dequantize=False, sigma=2.0)
    x = torch.full((200_000, 1), 7.0)
    torch.manual_seed(0)
    noisy = noise(x)
    assert float(noisy.mean()) == pytest.approx(7, abs=0.02)
    assert float(noisy.std()) == pytest.approx(2, rel=0.01)
    assert torch.equal(noise.dequantize(x), x)


def test_both_noises_add_up():
    torch.manual_seed(0)
    noisy = Noise(dequantize=True, sigma=2.0)(torch.zeros(200_000, 1))
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(noisy.var()) == pytest.approx(4 + 1 / 12, rel=0.02)


def test_noise_is_a_function_of_torchs_seed():
    noise, x = Noise(dequantize=True, sigma=0.3), torch.zeros(3, 2)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(noise(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_no_noise_is_the_data_themselves():
    noise, x = Noise(dequantize=False, sigma=0.0), torch.randn(3, 2)
    before = torch.get_rng_state()
    assert torch.equal(noise(x), x)
    assert torch.equal(noise.dequantize(x), x)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(noise, nn.Module)
