"""The models of a run with their configs: a model alone, or the two steps and both as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from twostep.core.schema import DataSpec
from twostep.core.seeds import derive
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig
from twostep.models.table import build_model
from twostep.models.two_step import TwoStep, latent_spec
from twostep.runs.config import Settings, TwoStepRunConfig


@dataclass(frozen=True)
class Component:
    """A model of a run: its name in checkpoints and results (`model`; or `gae` and `de`), itself, and its keys.

    It models the run's data, or their embeddings by `encoder`. `trained` is False for a frozen one.
    """

    name: str
    model: Model
    config: ModelConfig
    encoder: GeneralizedAutoencoder | None = None
    trained: bool = True


@dataclass(frozen=True)
class Whole:
    """The two models of a run as one, with the same fields."""

    model: TwoStep
    config: TwoStepRunConfig
    name: str = "two_step"
    encoder: None = None


def build(settings: Settings, spec: DataSpec, gae: Model | None = None) -> Model | TwoStep:
    """Return the untrained model that the settings describe, or both as one; `gae`: the first one, if it is built."""
    torch.manual_seed(derive(settings.run.seed, "weights"))
    first, *rest = settings.models.values()
    model = build_model(first, spec) if gae is None else gae
    if not rest:
        return model
    assert isinstance(model, GeneralizedAutoencoder)
    de = rest[0].build(latent_spec(spec, model.latent_dim, getattr(first, "latent_shape", None)))
    assert isinstance(de, DensityEstimator)
    return TwoStep(model, de)


def components_of(settings: Settings, module: Model | TwoStep) -> tuple[Component, ...]:
    """Return the one model of a run, or its two."""
    if not isinstance(module, TwoStep):
        ((name, config),) = settings.models.items()
        fitted = isinstance(module, DensityEstimator) or bool(module.objectives())
        return (Component(name, module, config, trained=fitted),)
    (gae, gae_config), (de, de_config) = settings.models.items()
    return (
        Component(gae, module.gae, gae_config, trained=not settings.freezes_gae and bool(module.gae.objectives())),
        Component(de, module.de, de_config, encoder=module.gae),
    )
