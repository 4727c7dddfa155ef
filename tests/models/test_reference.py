"""The paper's code: every one of its defaults under `preset=reference`, and every key that it has for a model."""

import pytest

from twostep.config import RunConfig, TwoStepRunConfig, parse_overrides, split_single
from twostep.models import MODELS
from twostep.schema import DataSpec

VECTORS = DataSpec(name="embeddings", shape=(20,), size=5000, low=-9, high=9)
GREY = DataSpec(name="grey", shape=(1, 28, 28), size=5000, low=0, high=255, discrete=True)
COLOUR = DataSpec(name="colour", shape=(3, 32, 32), size=5000, low=0, high=255, discrete=True)
SPECS = (VECTORS, GREY, COLOUR)

ALL = {
    **{"optimizer": "adam", "max_epochs": 100, "max_grad_norm": 10, "early_stopping_metric": None},
    **{"denoising_sigma": 0, "dequantize": False, "logit_transform": False, "clamp_samples": False},
}
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
    }


def stops(metric, patience, epochs):
    return {"early_stopping_metric": metric, "max_bad_valid_epochs": patience, "max_epochs": epochs}


def rates(*names, lr, cosine):
    return {f"{name}_lr": lr for name in names} | {f"use_{name}_lr_scheduler": cosine for name in names}


def expected(name, role, spec):
    """Return the defaults of the paper's code."""
    net = "cnn" if spec is COLOUR else "mlp"
    seen = WHITE if role == "de" and spec is VECTORS else SCALED
    error = "l2_reconstruction_error"
    adversary = {"discriminator_hidden_dims": (256, 256)}
    coders = {**ALL, **networks(net), **seen}
    if name == "ae":
        return {**coders, **ONE_RATE}
    if name == "vae":
        return {**coders, **ONE_RATE, "single_sigma": True, "k": 1}
    if name == "avb":
        noise = {"noise_dim": 256 if role == "gae" else 128, "input_sigma": 3, "prior_sigma": 1, "single_sigma": True}
        plain = {"adaptive_contrast": False, "num_discriminator_steps": 1, "discriminator_activation": "relu"}
        taught = rates("disc", "nll", lr=1e-3, cosine=True) | stops(error, 10, 50 if net == "mlp" else 100)
        return {**coders, **adversary, **noise, **plain, **taught}
    if name == "wae":
        wide = networks("mlp" if spec is VECTORS else "cnn", (64, 64, 32, 32))
        taught = rates("disc", lr=2.5e-4, cosine=False) | rates("rec", lr=5e-4, cosine=False) | stops(error, 30, 300)
        return {**coders, **wide, **adversary, **taught, "penalty_weight": 10, "sigma": 1}
    if name == "bigan":
        game = {"wasserstein": True, "gradient_penalty": True, "penalty_weight": 10, "num_discriminator_steps": 2}
        taught = rates("disc", "ge", lr=1e-4, cosine=True) | stops(error, 50, 200)
        return {**coders, **adversary, **game, **taught, "recon_weight": 1}
    if name == "flow":
        layers = {"transform": "simple_nsf", "num_bins": 8, "tail_bound": 1, "num_layers": 4, "num_blocks_per_layer": 3}
        latent = {"hidden_units": 64, **ONE_RATE}
        pixels = {"hidden_units": 128, "lr": 5e-4, "use_lr_scheduler": False, **stops("loss", 30, 100)}
        return {**ALL, **WHITE, **layers, **(latent if spec is VECTORS else pixels)}
    if name == "arm":
        size = {"hidden_size": 128, "num_layers": 1} if spec is VECTORS else {"hidden_size": 256, "num_layers": 2}
        return {**ALL, **seen, **size, **stops("loss", 10, 100), "k_mixture": 10, "lr": 1e-3, "use_lr_scheduler": True}
    assert name == "ebm"
    chains = {"max_length_buffer": 8192, "ld_steps": 60, "ld_step_size": 10, "ld_sigma": 0.005, "ld_grad_clamp": 0.03}
    chains |= {"ld_eps_new": 0.05, "max_grad_norm": 1, "base": "none", "use_lr_scheduler": False}
    energy = {"net": net, "energy_func_hidden_channels": (64, 64, 32, 32), "energy_func_activation": "swish"}
    latent = {"energy_func_hidden_dims": (64, 32), "x_lims": (-1, 1), "loss_alpha": 0.1, "lr": 1e-3}
    pixels = {"energy_func_hidden_dims": (256, 128), "x_lims": (0, 1), "loss_alpha": 1, "lr": 3e-4}
    of_data = latent if spec is VECTORS else pixels
    return {**ALL, **SCALED, **chains, **energy, **of_data, "spectral_norm": spec is not VECTORS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(("name", "role"), [(name, role) for name in MODELS for role in MODELS[name].roles])
def test_every_default_of_the_paper_is_one_key_away(name, role, spec):
    found = MODELS[name].for_data(spec, role, preset="reference").model_dump()
    wanted = expected(name, role, spec)
    assert {key: found[key] for key in wanted} == wanted


def test_the_batches_and_the_order_of_the_paper():
    run = TwoStepRunConfig(dataset="x")
    assert run.train_batch_size == run.valid_batch_size == run.test_batch_size == 128
    assert (run.sequential_training, run.alternate_by_epoch, run.make_valid_loader) == (True, True, True)


# ---- keys, as they are written on the command line

TRANSFORM = ["denoising_sigma=0.5", "dequantize=True", "scale_data=False", "whitening_transform=False"]
TRANSFORM += ["scale_data=True", "whitening_transform=True", "logit_transform=True", "clamp_samples=True"]
TRAINING = ["optimizer=sgd", "optimizer=rmsprop", "max_epochs=7", "max_grad_norm=0.5", "early_stopping_metric=loss"]
TRAINING += ["max_bad_valid_epochs=3", "valid_metrics=['loss','fd']", "test_metrics=['fd','loss']"]
TRAINING += ["metric_kwargs={'gen_samples': 50, 'gen_batch_size': 10, 'nearest_k': 3}"]
ONE_LOSS = ["lr=0.01", "use_lr_scheduler=True", "use_lr_scheduler=False"]
SIDES = ["net=cnn", "hidden_dims=[64, 32]", "hidden_channels=[8, 4]", "kernel_size=5", "stride=2", "activation=tanh"]
CODERS = ["latent_dim=3", *(f"{side}_{key}" for side in ("encoder", "decoder") for key in (*SIDES, "activation=swish"))]
DISCRIMINATOR = ["discriminator_hidden_dims=[64]", "disc_lr=0.01", "use_disc_lr_scheduler=True"]
NOISE = ["single_sigma=False", "noise_dim=5", "input_sigma=1.5", "prior_sigma=2", "discriminator_activation=tanh"]
GAME = ["wasserstein=False", "clamp=0.1", "gradient_penalty=False", "lambda=3", "num_discriminator_steps=5"]
SHAPE = ["hidden_dims=[9]", "hidden_channels=[9]", "kernel_size=5", "stride=2", "activation=relu"]
ENERGY = [f"energy_func_{key}" for key in SHAPE]
CHAINS = ["ld_steps=5", "ld_step_size=0.5", "ld_eps_new=0.2", "ld_sigma=0.1", "ld_grad_clamp=0.5", "x_lims=(-2, 2)"]
KEYS = {
    "ae": [*CODERS, *ONE_LOSS],
    "vae": [*CODERS, *ONE_LOSS, "single_sigma=False"],
    "avb": [*CODERS, *DISCRIMINATOR, *NOISE, "nll_lr=0.01", "use_nll_lr_scheduler=False"],
    "wae": [*CODERS, *DISCRIMINATOR, "_lambda=3", "sigma=2", "rec_lr=0.01", "use_rec_lr_scheduler=True"],
    "bigan": [*CODERS, *DISCRIMINATOR, *GAME, "recon_weight=2", "ge_lr=0.01", "use_ge_lr_scheduler=False"],
    "flow": [*ONE_LOSS, "transform=multiscale", "hidden_units=9", "num_layers=2", "num_blocks_per_layer=1"],
    "arm": [*ONE_LOSS, "k_mixture=2", "hidden_size=9", "num_layers=3"],
    "ebm": [*ONE_LOSS, *ENERGY, *CHAINS, "net=cnn", "spectral_norm=True", "loss_alpha=0.5", "max_length_buffer=50"],
}
RUN = ["data_root=a/b", "logdir_root=c", "make_valid_loader=False", "train_batch_size=5", "valid_batch_size=6"]
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
        assert same(found, value), item
        assert kind.parse(config.model_dump(mode="json"), name) == config, item


def test_every_model_is_in_the_table_of_keys():
    assert set(KEYS) == set(MODELS)


@pytest.mark.parametrize("kind", [RunConfig, TwoStepRunConfig])
def test_every_key_of_a_run_of_the_paper_is_taken(kind):
    keys = [*RUN, "sequential_training=False", "alternate_by_epoch=False"] if kind is TwoStepRunConfig else RUN
    for item in keys:
        given = {"dataset": "x", **parse_overrides([item])}
        config = kind.parse(given, "the run")
        assert str(getattr(config, item.partition("=")[0])) == item.partition("=")[2]
