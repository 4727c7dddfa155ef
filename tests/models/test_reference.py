"""The paper's code: every one of its defaults under `preset=reference`, and every key that it has for a model."""

import itertools
import math

import pytest
import torch
from torch import nn

from helpers.experiments import OWN
from twostep.core.schema import DataSpec, UserError
from twostep.models import MODELS
from twostep.models.parts.coupling import FlowLayer
from twostep.nn.layers import SpectralNorm
from twostep.nn.mlp import JoinedNet
from twostep.runs.config import RunConfig, TwoStepRunConfig
from twostep.runs.overrides import parse_overrides, split_single

PAPER = tuple(name for name in OWN if name not in ("fm", "gmm", "kde"))  # models of the paper's code

VECTORS = DataSpec(name="embeddings", shape=(20,), size=5000, low=-9, high=9)
GREY = DataSpec(name="grey", shape=(1, 28, 28), size=5000, low=0, high=255, discrete=True)
COLOUR = DataSpec(name="colour", shape=(3, 32, 32), size=5000, low=0, high=255, discrete=True)
SPECS = (VECTORS, GREY, COLOUR)

ALL = {
    **{"optimizer": "adam", "max_epochs": 100, "max_grad_norm": 10, "early_stopping_metric": None},
    **{"denoising_sigma": 0, "dequantize": False, "logit_transform": False, "clamp_samples": False},
}
NO_CLIPPING = {"max_grad_norm": None}
ONE_RATE = {"lr": 1e-3, "use_lr_scheduler": False}
SCALED = {"scale_data": True, "whitening_transform": False}
WHITE = {"scale_data": False, "whitening_transform": True}


def networks(net, channels=(32, 32, 16, 16)):
    """Return the keys of an encoder and its mirror image."""
    both = {"net": net, "hidden_dims": (256,), "kernel_size": 3, "stride": 1, "activation": "relu"}
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in both.items()}
    return {
        **sides,
        **{"latent_dim": 20, "encoder_hidden_channels": channels, "decoder_hidden_channels": channels[::-1]},
        "dequantize": False,
    }


def stops(metric, patience, epochs):
    return {"early_stopping_metric": metric, "max_bad_valid_epochs": patience, "max_epochs": epochs}


def rates(*names, lr, cosine):
    return {f"{name}_lr": lr for name in names} | {f"use_{name}_lr_scheduler": cosine for name in names}


def expected(name, role, spec):
    """Return the defaults of the paper's code."""
    net = "cnn" if spec is COLOUR and (role == "gae" or name == "ebm") else "mlp"
    padding = {"padding": spec is VECTORS}  # which has nothing to convolve
    seen = WHITE if role == "de" and spec is VECTORS else SCALED
    error = "l2_reconstruction_error"
    adversary = {"discriminator_hidden_dims": (256, 256)}
    coders = {**ALL, **networks(net), **seen, **padding}
    sigma = {"single_sigma": True, "sigma_from": "decoder"}
    tested = {"test_metrics": ("fd", error), "valid_metrics": (error,)}  # fid, as it is called without Inception
    if name == "ae":
        return {**coders, **ONE_RATE}
    if name == "vae":
        return {**coders, **ONE_RATE, **sigma, "k": 1, "valid_metrics": ("loss",)}
    if name == "avb":
        noise = {"noise_dim": 256 if role == "gae" else 128, "input_sigma": 3, "prior_sigma": 1, **sigma}
        plain = {"adaptive_contrast": False, "num_discriminator_steps": 1, "discriminator_activation": "relu"}
        taught = rates("disc", "nll", lr=1e-3, cosine=True) | stops(error, 10, 50 if net == "mlp" else 100)
        taught |= {"valid_metrics": (error,)}
        if role == "de":
            taught |= {"early_stopping_metric": None, "max_epochs": 100, "valid_metrics": ("loss",)}
        return {**coders, **adversary, **noise, **plain, **taught, **NO_CLIPPING}
    if name == "wae":
        wide = networks("mlp" if spec is VECTORS else "cnn", (64, 64, 32, 32))
        taught = rates("disc", lr=2.5e-4, cosine=False) | rates("rec", lr=5e-4, cosine=False) | stops(error, 30, 300)
        return {**coders, **wide, **adversary, **taught, **tested, **NO_CLIPPING, "penalty_weight": 10, "sigma": 1}
    if name == "bigan":
        game = {"wasserstein": True, "gradient_penalty": True, "penalty_weight": 10, "num_discriminator_steps": 2}
        taught = rates("disc", "ge", lr=1e-4, cosine=True) | stops(error, 50, 200)
        return {**coders, **adversary, **game, **taught, **tested, **NO_CLIPPING, "recon_weight": 1}
    if name == "flow":
        layers = {"transform": "simple_nsf", "num_bins": 8, "tail_bound": 1, "num_layers": 4, "num_blocks_per_layer": 3}
        layers |= {"linear_bias": True}
        latent = {"hidden_units": 64, **ONE_RATE}
        pixels = {"hidden_units": 128, "lr": 5e-4, "use_lr_scheduler": False, **stops("loss", 30, 100)}
        return {**ALL, **WHITE, **layers, **(latent if spec is VECTORS else pixels)}
    if name == "arm":
        size = {"hidden_size": 128, "num_layers": 1} if spec is VECTORS else {"hidden_size": 256, "num_layers": 2}
        return {**ALL, **seen, **size, **stops("loss", 10, 100), "k_mixture": 10, "lr": 1e-3, "use_lr_scheduler": True}
    assert name == "ebm"
    chains = {"max_length_buffer": 8192, "ld_steps": 60, "ld_step_size": 10, "ld_sigma": 0.005, "ld_grad_clamp": 0.03}
    chains |= {"ld_eps_new": 0.05, "max_grad_norm": 1, "base": "none", "use_lr_scheduler": False}
    energy = {**padding, "net": net, "energy_func_hidden_channels": (64, 64, 32, 32), "energy_func_activation": "swish"}
    latent = {"energy_func_hidden_dims": (64, 32), "x_lims": (-1, 1), "loss_alpha": 0.1, "lr": 1e-3}
    pixels = {"energy_func_hidden_dims": (256, 128), "x_lims": (0, 1), "loss_alpha": 1, "lr": 3e-4}
    of_data = latent if spec is VECTORS else pixels
    return {**ALL, **SCALED, **chains, **energy, **of_data, "spectral_norm": spec is not VECTORS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(("name", "role"), [(name, role) for name in PAPER for role in MODELS[name].roles])
def test_every_default_of_the_paper_is_one_key_away(name, role, spec):
    found = MODELS[name].for_data(spec, role, preset="reference").model_dump()
    wanted = expected(name, role, spec)
    assert {key: found[key] for key in wanted} == wanted


def test_the_batches_and_the_order_of_the_paper():
    run = TwoStepRunConfig(dataset="x")
    assert run.train_batch_size == run.valid_batch_size == run.test_batch_size == 128
    assert (run.sequential_training, run.alternate_by_epoch, run.make_valid_loader) == (True, True, True)


# ---- networks: layers, and numbers of parameters

COUNTS = {
    ("ae", "gae", "colour"): 412_039,
    ("vae", "gae", "grey"): 418_361,
    ("vae", "gae", "colour"): 597_693,
    ("vae", "de", "embeddings"): 26_429,
    ("vae", "de", "grey"): 418_361,
    ("vae", "de", "colour"): 1_592_105,
    ("avb", "gae", "grey"): 750_886,
    ("avb", "gae", "colour"): 1_276_330,
    ("avb", "de", "embeddings"): 130_602,
    ("avb", "de", "grey"): 718_118,
    ("avb", "de", "colour"): 2_477_590,
    ("bigan", "gae", "grey"): 685_093,
    ("bigan", "gae", "colour"): 1_269_896,
    ("wae", "gae", "grey"): 726_774,
    ("wae", "gae", "colour"): 959_992,
    ("flow", "de", "embeddings"): 164_136,
    ("flow", "de", "grey"): 7_711_520,
    ("flow", "de", "colour"): 57_173_504,
    ("arm", "de", "embeddings"): 70_942,
    ("arm", "de", "grey"): 799_262,
    ("arm", "de", "colour"): 811_590,
    ("ebm", "de", "embeddings"): 3_457,
    ("ebm", "de", "grey"): 233_985,
    ("ebm", "de", "colour"): 84_865,
}
BY_NAME = {spec.name: spec for spec in SPECS}


def reference(name, role, spec):
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return MODELS[name].for_data(spec, role, preset="reference").build(spec)


def convolved(spec, channels):
    """Return the sizes of 3 x 3 convolutions without padding, and how many numbers they end in."""
    sizes = [(before, after, 3, 1, 0) for before, after in zip((spec.shape[0], *channels), channels, strict=False)]
    return sizes, channels[-1] * math.prod(side - 2 * len(channels) for side in spec.shape[1:])


def chain(*sizes):
    return list(itertools.pairwise(sizes))


def coder_layers(net, spec, out, channels=(32, 32, 16, 16), side=0, extra=0):
    """Return the layers of an encoder to `out` numbers and of a decoder from 20, which gives `extra` more."""
    dim = math.prod(spec.shape)
    if net == "mlp":
        return [*chain(dim + side, 256, out), *chain(20, 256, dim + extra)]
    down, ends = convolved(spec, channels)
    up = [(after, before, 3, 1, 0) for before, after, *_ in reversed(down)]
    up[-1] = (up[-1][0], spec.shape[0] + extra, *up[-1][2:])
    to_sigma = [(math.prod(spec.shape[1:]), 1)] if extra else []
    return [*down, (ends + side, out), (20, ends), *up, *to_sigma]


def expected_layers(name, role, spec):
    """Return the sizes of all layers in the reference, sorted: linear (in, out), convolutions with k, stride, pad."""
    dim = math.prod(spec.shape)
    net = "cnn" if spec is COLOUR and role == "gae" else "mlp"
    of_pairs = chain(dim + 20, 256, 256, 1)
    if name == "ae":
        return coder_layers(net, spec, 20)
    if name == "vae":
        return coder_layers(net, spec, 40, extra=1)
    if name == "avb":
        return coder_layers(net, spec, 20, side=256 if role == "gae" else 128, extra=1) + of_pairs
    if name == "bigan":
        return coder_layers(net, spec, 20) + of_pairs
    if name == "wae":
        net = "mlp" if spec is VECTORS else "cnn"
        return coder_layers(net, spec, 20, (64, 64, 32, 32)) + chain(20, 256, 256, 1)
    if name == "flow":
        width, kept = 64 if spec is VECTORS else 128, dim // 2
        conditioner = [(kept, width), *[(width, width)] * 6, (width, (dim - kept) * (3 * 8 - 1))]
        return 4 * [*conditioner, (dim, dim)]  # the last is LU, with a bias
    if name == "arm":
        width, layers = (128, 1) if spec is VECTORS else (256, 2)
        C = 1 if spec is VECTORS else spec.shape[0]
        return [*[(4 * width, C if layer == 0 else width, width) for layer in range(layers)], (width, 10 * (1 + 2 * C))]
    assert name == "ebm"
    if spec is not COLOUR:
        return chain(dim, *((64, 32) if spec is VECTORS else (256, 128)), 1)
    down, ends = convolved(spec, (64, 64, 32, 32))
    return [*down, (ends, 1)]


def layers_of(model):
    """Return the sizes of all layers of a network, two linear layers of one output as the one they stand for."""
    joined, sides = {}, set()
    for module in model.modules():
        if isinstance(module, JoinedNet):
            first = next(layer for layer in module.features if isinstance(layer, nn.Linear))
            joined[first] = module.side.in_features
            sides.add(module.side)
    found = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module not in sides:
            assert module.bias is not None
            found.append((module.in_features + joined.get(module, 0), module.out_features))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.kernel_size[0] == module.kernel_size[1]
            assert set(module.output_padding) == {0}
            sizes = (module.in_channels, module.out_channels)
            found.append((*sizes, module.kernel_size[0], module.stride[0], module.padding[0]))
        if isinstance(module, FlowLayer):
            assert module.bias.shape == (len(module.order),)
            found.append(tuple(module.lower_upper.shape))
        if isinstance(module, nn.LSTM):
            inputs = [getattr(module, f"weight_ih_l{layer}") for layer in range(module.num_layers)]
            found += [(*weight.shape, module.hidden_size) for weight in inputs]
    return found


EVERY = [(name, role, spec.name) for name in PAPER for role in MODELS[name].roles for spec in SPECS]


@pytest.mark.parametrize(("name", "role", "data"), EVERY)
def test_every_layer_of_the_reference(name, role, data):
    found = layers_of(reference(name, role, BY_NAME[data]))
    assert sorted(found) == sorted(expected_layers(name, role, BY_NAME[data]))


@pytest.mark.parametrize(("name", "role", "data"), COUNTS)
def test_as_many_parameters_as_the_reference(name, role, data):
    model = reference(name, role, BY_NAME[data])
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name, role, data]


def test_energies_of_images_have_a_spectral_norm_on_every_layer():
    for spec, normed in ((GREY, 3), (COLOUR, 5), (VECTORS, 0)):
        norms = [module for module in reference("ebm", "de", spec).modules() if isinstance(module, SpectralNorm)]
        assert len(norms) == normed


def test_images_too_small_for_the_references_convolutions_are_padded():
    small = GREY.model_copy(update={"shape": (1, 8, 8)})
    assert MODELS["wae"].for_data(small, "gae", preset="reference").padding
    with pytest.raises(UserError, match="padding=False"):
        MODELS["wae"].for_data(small, "gae", preset="reference", padding=False).build(small)


# ---- keys, as they are written on the command line

TRANSFORM = [
    "denoising_sigma=0.5",
    "denoising_sigma=None",
    "dequantize=True",
    "scale_data=False",
    "whitening_transform=False",
]
TRANSFORM += ["scale_data=True", "whitening_transform=True", "logit_transform=True", "clamp_samples=True"]
TRAINING = ["optimizer=sgd", "optimizer=rmsprop", "max_epochs=7", "max_grad_norm=0.5", "early_stopping_metric=loss"]
TRAINING += [
    "max_bad_valid_epochs=3",
    "max_bad_valid_epochs=None",
    "valid_metrics=['loss','fd']",
    "test_metrics=['fd','loss']",
]
TRAINING += ["metric_kwargs={'gen_samples': 50, 'gen_batch_size': 10, 'nearest_k': 3}"]
ONE_LOSS = ["lr=0.01", "use_lr_scheduler=True", "use_lr_scheduler=False"]
SIDES = ["net=cnn", "hidden_dims=[64, 32]", "hidden_channels=[8, 4]", "kernel_size=5", "stride=2", "activation=tanh"]
SIDES += ["kernel_size=[3, 3, 3, 3]", "stride=[1, 1, 2, 2]"]
CODERS = ["latent_dim=3", *(f"{side}_{key}" for side in ("encoder", "decoder") for key in (*SIDES, "activation=swish"))]
DISCRIMINATOR = [
    "lr=None",
    "discriminator_hidden_dims=[64]",
    "discriminator_activation=tanh",
    "disc_lr=0.01",
    "use_disc_lr_scheduler=True",
]
NOISE = ["single_sigma=False", "noise_dim=5", "input_sigma=1.5", "prior_sigma=2"]
GAME = [
    "wasserstein=False",
    "clamp=0.1",
    "gradient_penalty=False",
    "lambda=3",
    "_lambda=3",
    "num_discriminator_steps=5",
]
SHAPE = ["hidden_dims=[9]", "hidden_channels=[9]", "kernel_size=5", "stride=2", "activation=relu"]
SHAPE += ["kernel_size=[3, 3, 3, 3]", "stride=[1, 2, 1, 1]"]
ENERGY = [f"energy_func_{key}" for key in SHAPE]
CHAINS = ["ld_steps=5", "ld_step_size=0.5", "ld_eps_new=0.2", "ld_sigma=0.1", "ld_grad_clamp=0.5", "x_lims=(-2, 2)"]
KEYS = {
    "ae": [*CODERS, *ONE_LOSS],
    "vae": [*CODERS, *ONE_LOSS, "single_sigma=False"],
    "avb": [*CODERS, *DISCRIMINATOR, *NOISE, "nll_lr=0.01", "use_nll_lr_scheduler=False"],
    "wae": [*CODERS, *DISCRIMINATOR, "_lambda=3", "lambda=3", "sigma=2", "rec_lr=0.01", "use_rec_lr_scheduler=True"],
    "bigan": [*CODERS, *DISCRIMINATOR, *GAME, "recon_weight=2", "ge_lr=0.01", "use_ge_lr_scheduler=False"],
    "flow": [*ONE_LOSS, "transform=multiscale", "hidden_units=9", "num_layers=2", "num_blocks_per_layer=1"],
    "arm": [*ONE_LOSS, "k_mixture=2", "hidden_size=9", "num_layers=3"],
    "ebm": [*ONE_LOSS, *ENERGY, *CHAINS, "net=cnn", "spectral_norm=True", "loss_alpha=0.5", "max_length_buffer=50"],
}
RUN = ["data_root=/a/b", "logdir_root=c", "make_valid_loader=False", "train_batch_size=5", "valid_batch_size=6"]
RUN += ["test_batch_size=7", "dataset=digits"]


def same(found, value):
    return list(found) == list(value) if isinstance(value, list | tuple) else found == value


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_the_paper_is_taken(name):
    kind, role = MODELS[name], MODELS[name].roles[0]
    for item in (*TRANSFORM, *TRAINING, *KEYS[name]):
        ((key, value),) = parse_overrides([item]).items()
        given = split_single({key: value}, kind, name)["model"]
        config = kind.for_data(GREY, role, **given)
        found = getattr(config, kind.aliases().get(key, key))
        found = {part: getattr(found, part) for part in value} if isinstance(value, dict) else found
        assert same(found, 0 if item == "denoising_sigma=None" else value), item
        assert kind.parse(config.model_dump(mode="json"), name) == config, item


def test_every_model_is_in_the_table_of_keys():
    assert set(KEYS) == set(PAPER)


@pytest.mark.parametrize("kind", [RunConfig, TwoStepRunConfig])
def test_every_key_of_a_run_of_the_paper_is_taken(kind):
    keys = [*RUN, "sequential_training=False", "alternate_by_epoch=False"] if kind is TwoStepRunConfig else RUN
    for item in keys:
        given = {"dataset": "x", **parse_overrides([item])}
        config = kind.parse(given, "the run")
        assert str(getattr(config, item.partition("=")[0])) == item.partition("=")[2]


@pytest.mark.parametrize("key", ["encoder_kernel_size", "decoder_kernel_size", "encoder_stride", "decoder_stride"])
@pytest.mark.parametrize("value", [[3, 3], [3] * 5, [], [3, 3, 3, 0], [3, 3, 3, 3.0], 0, True, "3", None])
def test_sizes_that_are_not_one_for_each_layer_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        MODELS["ae"].for_data(COLOUR, "gae", **{key: value})


@pytest.mark.parametrize("key", ["energy_func_kernel_size", "energy_func_stride"])
def test_sizes_that_are_not_one_for_each_layer_of_an_energy_are_refused(key):
    with pytest.raises(UserError, match=key):
        MODELS["ebm"].for_data(COLOUR, "de", **{key: [3, 3]})


def test_each_layer_has_its_own_kernel_and_stride():
    sizes = {"kernel_size": [5, 3, 3, 2], "stride": [2, 1, 2, 1]}
    keys = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sizes.items()}
    model = MODELS["ae"].for_data(COLOUR, "gae", encoder_net="cnn", decoder_net="cnn", **keys).build(COLOUR)
    for net in (model.encoder, model.decoder):
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        assert [layer.kernel_size[0] for layer in layers] == sizes["kernel_size"]
        assert [layer.stride[0] for layer in layers] == sizes["stride"]
    x = torch.rand(2, *COLOUR.shape)
    assert model.decode(model.encode(x)).shape == x.shape


@pytest.mark.parametrize("name", ["avb", "wae", "bigan"])
def test_there_is_no_one_rate_where_each_loss_has_its_own(name):
    with pytest.raises(UserError, match=r"^lr = 0\.01: .*disc_lr"):
        MODELS[name].for_data(GREY, "gae", lr=0.01)
