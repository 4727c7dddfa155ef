"""Log-volumes of decoders: against autograd's Jacobian, closed forms, and decoders that are singular."""

import contextlib
import math

import pytest
import torch
from torch import nn

from twostep.core.schema import DataSpec
from twostep.models.ae import AutoencoderConfig
from twostep.models.vae import VAEConfig
from twostep.nn import jacobian
from twostep.nn.cnn import ConvDecoder, Convolutions
from twostep.nn.mlp import MLP

IMAGES = DataSpec(name="images", shape=(1, 6, 5), size=100, low=0, high=1)


def decoder(kind, latent=3):
    torch.manual_seed(0)
    return {
        "relu": MLP(latent, [16, 16], 7, "relu"),
        "tanh": MLP(latent, [16], 7, "tanh"),
        "square": MLP(latent, [16], latent, "swish"),
        "images": ConvDecoder(latent, (3, 6, 5), Convolutions([4, 3], 3, 2, "swish")),
    }[kind].double()


def latents(n=9, dim=3):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_autograd(decode, z):
    """Return `½ log det JᵀJ` from whole Jacobians in reverse mode."""
    J = torch.stack([torch.autograd.functional.jacobian(lambda p: decode(p[None]).flatten(), point) for point in z])
    return torch.linalg.slogdet(J.mT @ J).logabsdet / 2


def log_volume(decode, z):
    return jacobian.log_volume(decode, nn.Identity(), z)


def linear(W):
    return lambda z: z @ W.T + 3


@pytest.mark.parametrize("kind", ["relu", "tanh", "square", "images"])
@pytest.mark.parametrize("latent", [1, 3])
def test_log_volume_is_that_of_autograds_jacobian(kind, latent):
    decode, z = decoder(kind, latent), latents(dim=latent)
    got = log_volume(decode, z).detach()
    assert torch.isfinite(got).all()
    assert torch.allclose(got, by_autograd(decode, z), rtol=0, atol=1e-8)


def test_the_jacobian_is_autograds():
    decode, z = decoder("images"), latents()
    J = jacobian.tangents(decode, z).movedim(0, 2)
    assert J.shape == (9, 90, 3)
    for point, got in zip(z, J, strict=True):
        expected = torch.autograd.functional.jacobian(lambda p: decode(p[None]).flatten(), point)
        assert torch.allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("transform", [{}, {"whitening_transform": True, "scale_data": False}])
@pytest.mark.parametrize("activation", ["relu", "tanh", "swish"])
def test_layers_of_convolutions_pushed_one_by_one_give_autograds_jacobian(transform, activation):
    torch.manual_seed(0)
    nets = {f"{net}_net": "cnn" for net in ("encoder", "decoder")}
    keys = {"latent_dim": 3, "decoder_hidden_channels": (8, 8), "decoder_stride": 2, "decoder_activation": activation}
    model = AutoencoderConfig.for_data(IMAGES, "gae", **nets, **keys, **transform).build(IMAGES).double().eval()
    if transform:
        model.transform.fit([5 * torch.randn(50, *IMAGES.shape).double() + 3])
    layers, end = model.decoder_parts()
    assert isinstance(layers, nn.Sequential)
    z = latents()
    assert torch.equal(end(layers(z)), model.decode(z))
    pushed = jacobian.tangents(jacobian.composed(layers, end), z)
    assert torch.allclose(pushed, jacobian.tangents(model.decode, z), rtol=0, atol=1e-10)
    assert torch.allclose(model.log_volume(z), by_autograd(model.decode, z), rtol=0, atol=1e-8)


def test_a_linear_decoder_in_closed_form():
    W = torch.randn(8, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.linalg.slogdet(W.T @ W).logabsdet / 2
    assert torch.allclose(log_volume(linear(W), latents()), expected.expand(9), rtol=0, atol=1e-12)


def test_a_square_decoder_gives_the_log_determinant():
    W = torch.tensor([[2.0, 1.0], [0.0, -3.0]], dtype=torch.float64)
    got = log_volume(linear(W), latents(dim=2))
    assert torch.allclose(got, torch.full((9,), math.log(6), dtype=torch.float64), rtol=0, atol=1e-12)


def test_single_precision_keeps_its_digits_for_ill_conditioned_decoders():
    """JᵀJ would square the condition number, 1e5, beyond what float32 can hold."""
    stretch = torch.tensor([1e3, 1.0, 1e-2])
    W = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(2))).Q * stretch
    assert float(log_volume(linear(W), latents().float())[0]) == pytest.approx(math.log(10), abs=1e-4)


@pytest.mark.parametrize("factor", [1e-15, 1e15])
def test_the_scale_of_a_decoder_makes_it_not_singular(factor):
    W = factor * torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(2))).Q
    assert float(log_volume(linear(W), latents().float())[0]) == pytest.approx(3 * math.log(factor), abs=1e-3)


# ---- singular decoders


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_directions_are_singular(dtype):
    W = torch.randn(8, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    W[:, 2] = 2 * W[:, 0] - 3 * W[:, 1]
    z = latents().to(dtype)
    assert log_volume(linear(W), z).tolist() == [-math.inf] * 9
    assert log_volume(lambda z: 0 * z.repeat(1, 2) + 1, z).tolist() == [-math.inf] * 9


def test_more_latents_than_coordinates_are_singular_everywhere():
    assert log_volume(decoder("tanh", latent=8), latents(dim=8)).tolist() == [-math.inf] * 9


def test_exactly_the_points_where_units_are_dead_are_singular():
    """`relu(z)` embeds the quadrant where all units live, and flattens the others."""
    z = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, -1.0], [0.5, 0.5]], dtype=torch.float64)
    net = nn.Sequential(nn.ReLU(), nn.Linear(2, 5)).double()
    got = log_volume(net, z).detach()
    W = net[1].weight.detach()
    alive = float(torch.linalg.slogdet(W.T @ W).logabsdet) / 2
    assert got.tolist() == pytest.approx([alive, -math.inf, -math.inf, alive])


def test_a_fold_is_singular_where_it_folds_and_nowhere_else():
    z = torch.tensor([[0.0, 1.0], [1e-3, 1.0], [-2.0, 1.0]], dtype=torch.float64)
    got = log_volume(lambda z: torch.stack([z[:, 0] ** 2, z[:, 1]], 1), z)
    assert got.tolist() == pytest.approx([-math.inf, math.log(2e-3), math.log(4)])


# ---- decoders that end in an affine map


def autoencoder(dtype=torch.float64, config=AutoencoderConfig, activation="tanh", **keys):
    """Return an autoencoder 3 -> 9 -> 30 of images whose pixels have scales of their own."""
    torch.manual_seed(0)
    keys |= {"latent_dim": 3, "decoder_hidden_dims": (9,), "decoder_activation": activation, "output": "linear"}
    keys |= {"encoder_net": "mlp", "decoder_net": "mlp"}
    model = config.for_data(IMAGES, "gae", **keys).build(IMAGES)
    scale = 3.0 * torch.rand(1, 6, 5) if "logit_transform" not in keys else 1
    model.fit_transform([scale * torch.rand(50, 1, 6, 5)])
    return model.to(dtype).eval().requires_grad_(False)


def sizes_pushed(monkeypatch, model, z):
    """Return the log-volumes of a model, and how many entries the functions that were differentiated have."""
    seen = []
    plain = jacobian.tangents

    def watched(function, z):
        columns = plain(function, z)
        seen.append(columns.shape[-1])
        return columns

    monkeypatch.setattr(jacobian, "tangents", watched)
    return model.log_volume(z), seen


@pytest.mark.parametrize("transform", [{}, {"whitening_transform": True}, {"scale_data": False}])
def test_an_affine_end_is_differentiated_once_and_changes_nothing(monkeypatch, transform):
    model, z = autoencoder(**transform), latents(50)
    whole = log_volume(model.decode, z)
    got, seen = sizes_pushed(monkeypatch, model, z)
    assert seen == [30, 9]
    assert torch.allclose(got, whole, rtol=0, atol=1e-10)
    assert torch.allclose(got, by_autograd(model.decode, z), rtol=0, atol=1e-8)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_end_is_that_of_the_mean_where_a_decoder_gives_stds_too(monkeypatch, copies):
    model, z = autoencoder(config=VAEConfig, single_sigma=copies == 1), latents(50)
    got, seen = sizes_pushed(monkeypatch, model, z)
    assert seen == [30, 9]
    assert torch.allclose(got, by_autograd(model.decode, z), rtol=0, atol=1e-8)


def test_a_transform_that_bends_is_differentiated_everywhere(monkeypatch):
    model, z = autoencoder(logit_transform=True), latents(50)
    got, seen = sizes_pushed(monkeypatch, model, z)
    assert seen == [30]
    assert torch.allclose(got, by_autograd(model.decode, z), rtol=0, atol=1e-8)


def test_for_a_few_points_the_end_is_not_taken_apart(monkeypatch):
    model, z = autoencoder(), latents(50)
    expected = model.log_volume(z)[:3]
    got, seen = sizes_pushed(monkeypatch, model, z[:3])
    assert seen == [30]
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


def test_the_volume_follows_weights_that_change():
    model, z = autoencoder(), latents(50)
    before = model.log_volume(z)
    model.decoder[-1].weight.mul_(2)
    assert torch.allclose(model.log_volume(z), before + 3 * math.log(2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_affine_end_leaves_the_same_points_singular(dtype):
    """Few units, so that many points have fewer than three of them alive."""
    model, z = autoencoder(dtype, activation="relu"), 2 * latents(400).to(dtype)
    model.decoder[0].bias.sub_(1)
    whole, got = log_volume(model.decode, z), model.log_volume(z)
    assert 20 < int(got.isinf().sum()) < 380
    assert torch.equal(got.isinf(), whole.isinf())
    alive = (model.decoder[0](z) > 0).sum(1)
    assert bool(got[alive < 3].isneginf().all())


def test_an_affine_end_keeps_the_digits_of_an_ill_conditioned_decoder():
    """The volume of `A h'` in single precision against double precision, at a condition number above 1e3."""
    model, z = autoencoder(), latents(50)
    model.decoder[0].weight.mul_(torch.tensor([1.0, 1e-2, 1e-4]))
    exact = model.log_volume(z)
    assert torch.allclose(model.float().log_volume(z.float()).double(), exact, rtol=0, atol=1e-4)


def test_a_jacobian_that_is_no_number_is_not_called_singular():
    assert bool(log_volume(lambda z: torch.nan * z.repeat(1, 2), latents()).isnan().all())


# ---- how it is computed


@pytest.mark.parametrize("entries", [1, 200, 10**9])
def test_blocks_give_what_one_batch_gives(monkeypatch, entries):
    decode, z = decoder("images"), latents(11)
    seen = []
    whole = log_volume(decode, z).detach()
    monkeypatch.setattr(jacobian, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(
        jacobian, "tangents", lambda decode, z, plain=jacobian.tangents: seen.append(len(z)) or plain(decode, z)
    )
    assert torch.allclose(log_volume(decode, z).detach(), whole, rtol=0, atol=1e-12)
    assert seen == {1: [4, 4, 3], 200: [4, 4, 3], 10**9: [11]}[entries]


def test_no_points_have_no_volumes():
    assert log_volume(decoder("relu"), latents()[:0]).shape == (0,)


def test_it_works_without_gradients_and_in_both_modes():
    decode, z = decoder("relu"), latents()
    expected = log_volume(decode, z).detach()
    with torch.no_grad():
        got = log_volume(decode, z)
    assert not got.requires_grad
    assert torch.equal(got, expected)
    assert torch.equal(log_volume(decode.eval(), z).detach(), expected)
    assert torch.equal(log_volume(decode, z[:1]).detach(), expected[:1])


# ---- precision


class Watched(nn.Linear):
    """A layer that notes the precision of products while it is at work."""

    def forward(self, x):
        self.seen = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        if self.fails:
            raise RuntimeError
        return super().forward(x)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("precision", "tf32"), [("highest", False), ("high", True), ("medium", True)])
def test_ranks_are_judged_in_full_precision_whatever_is_set(precision, tf32, fails):
    layer = Watched(2, 3)
    layer.fails = fails
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        with contextlib.suppress(RuntimeError):
            log_volume(layer, torch.zeros(4, 2))
        assert layer.seen == ("highest", False)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, tf32)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("kind", ["relu", "tanh", "square", "images"])
def test_the_gradient_in_the_input_is_that_of_autograd_in_any_blocks(kind, monkeypatch):
    monkeypatch.setattr(jacobian, "BATCH", 4)
    network, x = decoder(kind), latents().requires_grad_()
    (expected,) = torch.autograd.grad(network(x).sum(), x)
    found = jacobian.input_gradient(network, x.detach())
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
