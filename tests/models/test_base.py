"""What all models share: their configs' defaults, evaluation mode, and the autoencoder's own loss."""

import math

import pytest
import torch
from torch import nn

from helpers.experiments import OWN
from twostep.core.schema import DataSpec, UserError
from twostep.models import MODELS
from twostep.models.ae import AutoencoderConfig
from twostep.models.arm import ARMConfig
from twostep.models.base import evaluating
from twostep.models.flow import FlowConfig
from twostep.models.two_step import latent_spec
from twostep.models.vae import VAEConfig

GREY = DataSpec(name="grey", shape=(1, 6, 5), size=60, low=0, high=255, discrete=True)
COLOUR = DataSpec(name="colour", shape=(3, 6, 5), size=60, low=0, high=255, discrete=True)
VECTORS = DataSpec(name="vectors", shape=(4,), size=60, low=-1, high=1)


def test_defaults_on_each_kind_of_data():
    grey, colour = VAEConfig.for_data(GREY, "gae"), VAEConfig.for_data(COLOUR, "gae")
    assert (grey.encoder_net, grey.decoder_net, colour.encoder_net, colour.decoder_net) == ("mlp", "mlp", "cnn", "cnn")
    for config in (grey, colour, AutoencoderConfig.for_data(VECTORS, "gae")):
        assert (config.scale_data, config.whitening_transform, config.dequantize) == (True, False, False)
    latent = VAEConfig.for_data(latent_spec(GREY, 20), "de")
    assert (latent.scale_data, latent.whitening_transform, latent.dequantize) == (False, True, False)
    pixels = VAEConfig.for_data(GREY, "de")
    assert (pixels.scale_data, pixels.whitening_transform, pixels.dequantize) == (True, False, True)
    assert (grey.test_metrics, pixels.test_metrics) == (("l2_reconstruction_error", "loss"), ("log_likelihood", "loss"))


def test_a_flows_defaults_in_the_latent_and_on_pixels():
    latent, pixels = FlowConfig.for_data(latent_spec(GREY, 20), "de"), FlowConfig.for_data(GREY, "de")
    assert (latent.hidden_units, latent.lr, latent.early_stopping_metric, latent.dequantize) == (
        64,
        2e-3,
        "loss",
        False,
    )
    assert (pixels.hidden_units, pixels.lr, pixels.early_stopping_metric, pixels.dequantize) == (
        128,
        5e-4,
        "loss",
        True,
    )
    assert pixels.max_bad_valid_epochs == latent.max_bad_valid_epochs == 30
    assert latent.whitening_transform
    assert pixels.whitening_transform


def test_reference_defaults_of_all_models():
    for config in (AutoencoderConfig(), VAEConfig(), FlowConfig()):
        assert (config.optimizer, config.lr, config.max_epochs, config.max_grad_norm) == ("adam", 1e-3, 100, 10)
        assert (config.use_lr_scheduler, config.early_stopping_metric, config.denoising_sigma) == (False, None, 0)
    assert (VAEConfig().latent_dim, VAEConfig().encoder_hidden_dims, VAEConfig().k) == (20, (256,), 1)
    flow = FlowConfig()
    assert (flow.num_layers, flow.num_blocks_per_layer, flow.num_bins, flow.tail_bound) == (4, 3, 8, 3.0)


@pytest.mark.parametrize(
    ("kind", "spec", "keys", "says"),
    [
        (
            VAEConfig,
            VECTORS,
            {"encoder_net": "cnn", "decoder_net": "cnn"},
            "a cnn needs images; vectors has points of",
        ),
        (VAEConfig, GREY, {"encoder_net": "cnn"}, "encoder_net and decoder_net differ"),
        (VAEConfig, COLOUR, {"flatten": True}, "flatten=True: "),
        (FlowConfig, GREY, {"flatten": False}, "flatten=False: "),
        (ARMConfig, GREY, {"flatten": True}, "flatten=True: "),
        (FlowConfig, VECTORS, {"dequantize": True}, "dequantize=True: "),
    ],
)
def test_keys_that_contradict_the_data_are_refused_in_one_line(kind, spec, keys, says):
    config = kind.for_data(spec, "de", **keys)
    with pytest.raises(UserError) as caught:
        config.build(spec)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("name", OWN)
def test_vectors_are_flat_already_whatever_flatten_says(name, flatten):
    for role in MODELS[name].roles:
        assert MODELS[name].for_data(VECTORS, role, flatten=flatten).build(VECTORS)


@pytest.mark.parametrize("key", ["valid_metrics", "test_metrics"])
def test_one_metric_is_a_list_of_one(key):
    assert getattr(FlowConfig.for_data(GREY, "de", **{key: "loss"}), key) == ("loss",)
    assert getattr(FlowConfig.for_data(GREY, "de", **{key: []}), key) == ()


def test_the_loss_of_an_autoencoder_is_its_squared_error_in_the_networks_space():
    torch.manual_seed(0)
    model = AutoencoderConfig.for_data(COLOUR, "gae", latent_dim=3, latent_noise=0).build(COLOUR).double()
    x = 255 * torch.rand(10, *COLOUR.shape, dtype=torch.float64)
    model.fit_transform([x])
    (objective,) = model.objectives()
    error = model.reconstruction_error(x) / float(x.abs().max()) ** 2
    assert float(objective.loss(x).detach()) == pytest.approx(float(error.detach().mean()), rel=1e-10)


def test_denoising_puts_noise_on_the_input_of_training_alone():
    torch.manual_seed(0)
    plain = AutoencoderConfig.for_data(VECTORS, "gae").build(VECTORS)
    noisy = AutoencoderConfig.for_data(VECTORS, "gae", denoising_sigma=0.5).build(VECTORS)
    noisy.load_state_dict(plain.state_dict())
    x = torch.rand(20, 4)
    assert torch.equal(noisy.encode(x), plain.encode(x))
    assert torch.equal(noisy.reconstruction_error(x), plain.reconstruction_error(x))
    assert float((noisy.network_input(x) - x).std()) == pytest.approx(0.5, rel=0.3)
    assert torch.equal(plain.network_input(x), x)


def test_a_linear_autoencoder_finds_the_principal_plane():
    torch.manual_seed(0)
    spec = DataSpec(name="plane", shape=(5,), size=400, low=-9, high=9)
    x = torch.randn(400, 5) * torch.tensor([3.0, 2.0, 0.3, 0.2, 0.1])
    model = AutoencoderConfig(latent_dim=2, encoder_hidden_dims=(), decoder_hidden_dims=()).build(spec)
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        objective.loss(x).backward()
        optimizer.step()
    centred = x - x.mean(0)
    least = float(torch.linalg.svdvals(centred)[2:].square().sum()) / len(x)
    assert float(model.reconstruction_error(x).detach().mean()) == pytest.approx(least, rel=0.02)


def test_evaluating_puts_every_modules_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    model.train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("low", "high", "keys"),
    [
        (-0.1, 1.0, {"scale_data": True}),
        (0.0, 1.5, {}),
        (0.0, 1.0, {"denoising_sigma": 0.1}),
        (-math.inf, math.inf, {}),
    ],
)
def test_the_logit_is_refused_before_training_where_values_leave_the_unit_interval(low, high, keys):
    spec = DataSpec(name="mine", shape=(3,), size=10, low=low, high=high)
    with pytest.raises(
        UserError, match=r"^logit_transform=True needs data between 0 and 1: (mine has values|noise goes)"
    ):
        FlowConfig(logit_transform=True, **keys).build(spec)


@pytest.mark.parametrize(("high", "keys"), [(1.0, {}), (255.0, {"scale_data": True})])
def test_the_logit_is_taken_where_values_lie_in_the_unit_interval(high, keys):
    FlowConfig(logit_transform=True, **keys).build(DataSpec(name="mine", shape=(3,), size=10, low=0, high=high))


@pytest.mark.parametrize(
    ("name", "role", "spec", "keys"),
    [
        ("flow", "de", VECTORS, {"early_stopping_metric": None, "max_bad_valid_epochs": 10, "tail_bound": 1.0}),
        ("flow", "de", GREY, {"early_stopping_metric": "loss", "max_bad_valid_epochs": 30, "dequantize": False}),
        ("vae", "de", GREY, {"dequantize": False, "scale_data": True}),
        ("avb", "de", GREY, {"dequantize": False, "early_stopping_metric": None}),
        ("arm", "de", VECTORS, {"lr": 1e-3}),
        ("arm", "de", GREY, {"lr": 1e-3, "scale_data": True, "whitening_transform": False, "dequantize": False}),
        ("ebm", "de", VECTORS, {"ld_step_size": 10.0, "ld_sigma": 0.005, "ld_grad_clamp": 0.03, "loss_alpha": 0.1}),
    ],
)
def test_the_papers_defaults_are_one_key_away(name, role, spec, keys):
    ours = MODELS[name].for_data(spec, role).model_dump()
    paper = MODELS[name].for_data(spec, role, preset="reference").model_dump()
    assert paper.items() >= keys.items()
    assert any(ours[key] != value for key, value in keys.items())
    assert MODELS[name].for_data(spec, role, preset="reference", max_epochs=7).max_epochs == 7


def test_log_prob_dequantises_integers_and_leaves_what_lies_in_a_bin():
    torch.manual_seed(0)
    model = FlowConfig.for_data(GREY, "de").build(GREY)
    integers = torch.randint(0, 256, (9, *GREY.shape)).float()
    inside = integers + 0.25
    with evaluating(model):
        torch.manual_seed(1)
        filled = model.noise.dequantize(integers)
        torch.manual_seed(1)
        assert torch.equal(model.log_prob(integers), model.log_density(filled))
        assert torch.equal(model.log_prob(inside), model.log_density(inside))
        assert not torch.equal(model.log_prob(integers), model.log_prob(integers)), "each call draws anew"
        plain = FlowConfig.for_data(GREY, "de", dequantize=False).build(GREY)
        assert torch.equal(plain.log_prob(integers), plain.log_density(integers))
