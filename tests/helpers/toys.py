"""What the tests of training share: a callback that remembers, a model with two losses, data and trainers."""

import torch
from torch import nn

from helpers.configs import built
from twostep.core.schema import DataSpec
from twostep.data.batches import Batches
from twostep.metrics import evaluate
from twostep.models import MODELS
from twostep.models.base import GeneralizedAutoencoder, Objective, OneLossConfig, OptimizerConfig
from twostep.training.callbacks import Callback
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer

SPEC = DataSpec(name="toy", shape=(3,), size=20, low=-5, high=5)
SMALL = {
    "ae": {"latent_dim": 2, "encoder_hidden_dims": (5,), "decoder_hidden_dims": (5,)},
    "vae": {"latent_dim": 2, "encoder_hidden_dims": (5,), "decoder_hidden_dims": (5,)},
    "flow": {"hidden_units": 4, "num_layers": 1, "num_blocks_per_layer": 1},
}


class Watcher(Callback):
    """Remembers what a trainer did, and wants to stop after a number of steps."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.losses, self.rates, self.norms, self.calls = [], [], [], []

    def begin(self, trainer):
        self.calls.append("begin")

    def renewed(self, trainer):
        self.calls.append("renewed")

    def step(self, trainer, losses):
        self.losses.append({name: loss.item() for name, loss in losses.items()})
        self.rates.append({name: opt.param_groups[0]["lr"] for name, opt in trainer.stepper.optimizers.items()})
        self.norms.append(
            {
                objective.name: torch.cat([p.grad.flatten() for p in objective.parameters]).norm().item()
                for objective in trainer.stepper.objectives
                if objective.name in losses
            }
        )

    def checkpoint(self, trainer):
        self.calls.append("checkpoint")

    def best(self, trainer):
        self.calls.append(f"best {trainer.epochs_done}")

    def epoch(self, trainer):
        self.calls.append("epoch")

    def end(self, trainer):
        self.calls.append("end")

    def must_stop(self):
        return self.stop_after is not None and len(self.losses) >= self.stop_after


class ToyConfig(OneLossConfig):
    """Keys of a model with two losses."""

    roles = ("gae",)
    summary = "two losses"
    paper = "none"

    name: str = "toy"
    penalty_lr: float = 0.01
    every: int = 1

    def is_flat(self):
        return True

    def optimizers(self):
        return {
            "fit": OptimizerConfig(self.lr, self.use_lr_scheduler),
            "penalty": OptimizerConfig(self.penalty_lr, self.use_lr_scheduler),
        }

    def build(self, spec):
        return Toy(self, spec)


class Toy(GeneralizedAutoencoder):
    """Fits its mean by one loss, and its scale, every n-th step, by another; counts what happens afterwards."""

    latent_dim = 3

    def __init__(self, config, spec):
        super().__init__(spec.shape)
        self.every = config.every
        self.mean = nn.Parameter(torch.zeros(spec.dim))
        self.scale = nn.Parameter(torch.ones(spec.dim))
        self.taken, self.after = [], 0

    def encode(self, x):
        return x

    def decode(self, z):
        return z

    def objectives(self):
        return (
            Objective("fit", self._fit, (self.mean,)),
            Objective("penalty", self._penalty, (self.scale,), every=self.every, after=self._clamp),
        )

    def _fit(self, x):
        self.taken.append("fit")
        return (self.scale * (x - self.mean)).square().sum(1).mean()

    def _penalty(self, x):
        self.taken.append("penalty")
        return ((x - self.mean).square() - self.scale).square().sum(1).mean()

    def _clamp(self, gather):
        self.after += 1
        with torch.no_grad():
            self.scale.clamp_(max=1.01)


def data(n=20, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def build(name, seed=0, spec=SPEC, **overrides):
    """Return a small model whose weights follow from `seed`."""
    torch.manual_seed(seed)
    if name == "toy":
        return built(ToyConfig.for_data(SPEC, "gae", **overrides), SPEC)
    role = "de" if name == "flow" else "gae"
    keys = {**SMALL[name], "early_stopping_metric": None, "preset": "reference", **overrides}
    return built(MODELS[name].for_data(spec, role, **keys), spec)


def trainer_of(model, watcher=None, size=8, rows=20, valid=True, validate=None, **options):
    """Return a trainer that has its data: `rows` in batches of `size`, and as many other ones for validation."""
    engine = Engine("cpu")

    def measure(_, batches):
        names = model.config.valid_metrics
        return {name: result.value for name, result in evaluate(names, model, batches, engine.sum, 3).items()}

    trainer = new_trainer("model", model, engine, validate or measure, **options)
    trainer.callbacks = [watcher or Watcher()]
    trainer.set_data(Batches(data(rows), size), Batches(data(rows, seed=2), size) if valid else None)
    return trainer


def new_trainer(name, model, engine, validate, **options):
    """Return a trainer as an experiment makes it."""
    config = model.config
    rates = config.optimizers()
    return Trainer(name, model, config, rates, engine, validate, seed=0, kind=config.name, **options)


def scripted(values, metric="loss"):
    """Return a validation that gives these values, one an epoch."""
    left = iter(values)
    return lambda *_: {metric: next(left)}


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
