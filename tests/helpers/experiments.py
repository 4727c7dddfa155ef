"""Small experiments for tests: requests, training that breaks off, differences of states."""

import dataclasses
import itertools

import pytest
import torch

from twostep.core.checkpoint import State
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import start
from twostep.models import MODELS
from twostep.runs.overrides import Request
from twostep.training.callbacks import Callback, InterruptedTraining

SMALL = {
    "latent_dim": 2,
    "denoising_sigma": 1.0,
    "encoder_net": "mlp",
    "decoder_net": "mlp",
    "encoder_hidden_dims": (8,),
    "decoder_hidden_dims": (8,),
    "discriminator_hidden_dims": (8,),
    "noise_dim": 3,
    "hidden_units": 4,
    "num_layers": 2,
    "num_blocks_per_layer": 1,
    "hidden_size": 6,
    "k_mixture": 2,
    "energy_func_hidden_dims": (6,),
    "ld_steps": 3,
    "max_length_buffer": 40,
}
RATES = {"lr": 0.02, "disc_lr": 0.01, "nll_lr": 0.02, "rec_lr": 0.02, "ge_lr": 0.02}
SCHEDULERS = dict.fromkeys((f"use_{name}_scheduler" for name in RATES), True)
OWN = tuple(name for name in MODELS if name != "external")  # models with networks of their own
GAES = tuple(name for name in OWN if "gae" in MODELS[name].roles)
DES = tuple(name for name in OWN if "de" in MODELS[name].roles)
BY_STEPS = tuple(name for name in OWN if MODELS[name].rates)  # and not fitted at once
ALONE = tuple((name,) for name in BY_STEPS)
PAIRS = tuple(pair for pair in itertools.product(GAES, DES) if pair[1] in BY_STEPS)
_SECOND = [name for name in DES if name in BY_STEPS]
COVERING = {(GAES[i % len(GAES)], _SECOND[i % len(_SECOND)]) for i in range(max(len(GAES), len(_SECOND)))}
# Every model in some pair in the fast suite, the other pairs in the slow one.
EVERY_PAIR = [pair if pair in COVERING else pytest.param(pair, marks=pytest.mark.slow) for pair in PAIRS]


def keys_of(name, overrides):
    """Return keys that make a model of any name small and quick to train, and the overrides on top."""
    common = {**SMALL, **RATES, **SCHEDULERS, "max_epochs": 4, "early_stopping_metric": None}
    known = MODELS[name].model_fields
    if "disc_lr" in known:
        del common["lr"]
    return {**{key: value for key, value in common.items() if key in known}, **overrides}


def asked(models, dataset, root, run=None, **overrides):
    """Return a request: models like `("ae",)` or `("vae", "flow")`; `model`, `gae` and `de` change their keys.

    A model alone plays the part of an autoencoder if it can.
    """
    parts = ("model",) if len(models) == 1 else ("gae", "de")
    keys = {part: keys_of(name, overrides.get(part, {})) for part, name in zip(parts, models, strict=True)}
    keys["run"] = {"dataset": str(dataset), "logdir_root": root, "train_batch_size": 16, "device": "cpu", **(run or {})}
    return Request(dict(zip(parts, models, strict=True)), keys, is_gae=len(models) == 1 and models[0] in GAES)


def trained(request: Request) -> Experiment:
    """Train from the beginning to the end, and flush the curves."""
    experiment = start(request)
    experiment.fit()
    experiment.run.close()
    return experiment


class _Death(Callback):
    """Ends training at a place, as `break_off` names it."""

    def __init__(self, what, where):
        self.what, self.where, self.steps = what, where, 0

    def step(self, trainer, losses):
        self.steps += 1

    def must_stop(self):
        return self.what == "step" and self.steps >= int(self.where[0])

    def epoch(self, trainer):
        if self.what == "epoch" and [trainer.name, str(trainer.epochs_done)] == self.where:
            raise InterruptedTraining

    def end(self, trainer):
        if self.what == "end" and [trainer.name] == self.where:
            raise InterruptedTraining


def break_off(experiment: Experiment, place: str) -> bool:
    """Train until a place, and leave the run as a process does that dies there; return whether it came to that.

    Args:
        experiment: not trained yet.
        place: `step 4`: the fourth step of all is the last one; `epoch gae 2`: after that epoch's checkpoint;
            `end gae`: trained to its end, before anything is called.
    """
    what, *where = place.split()
    experiment.callbacks.insert(0 if what == "end" else len(experiment.callbacks), _Death(what, where))
    try:
        experiment.fit()
    except InterruptedTraining:
        return True
    finally:
        experiment.run.close()
    return False


def make_older(path) -> None:
    """Move the files of curves an hour back, as if the sessions that wrote them had been earlier ones."""
    for file in path.glob("events.*"):
        kind, second, rest = file.name[:20], file.name[20:30], file.name[30:]
        file.rename(file.with_name(f"{kind}{int(second) - 3600}{rest}"))


def differences(one: State, other: State) -> list[str]:
    """Return the names of everything in which two states differ, by as little as a bit."""
    tensors = one.tensors.keys() ^ other.tensors.keys()
    tensors |= {key for key in one.tensors.keys() & other.tensors.keys() if not identical(one, other, key)}
    values = {key for key in one.values.keys() | other.values.keys() if one.values.get(key) != other.values.get(key)}
    return sorted(tensors | values)


def identical(one: State, other: State, key: str) -> bool:
    return torch.equal(one.tensors[key], other.tensors[key])


def snapshot(experiment: Experiment) -> State:
    """Return a copy of the state of an experiment, which later training does not change."""
    state = experiment.state()
    tensors = {key: tensor.detach().clone() for key, tensor in state.tensors.items()}
    return dataclasses.replace(state, tensors=tensors)


def drawn(experiment: Experiment):
    """Return samples of the trained model, or reconstructions if it draws none."""
    module = experiment.module.eval()
    with torch.no_grad():
        if hasattr(module, "sample"):
            return module.sample(7, torch.Generator().manual_seed(4))
        return module.decode(module.encode(experiment.splits.test.float()))
