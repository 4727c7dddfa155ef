"""The models of a run with their configs: a model alone, or the two steps and both as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from twostep.core.schema import DataSpec
from twostep.core.seeds import derive
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig
from twostep.models.two_step import TwoStep, latent_spec
from twostep.runs.config import Settings, TwoStepRunConfig


@dataclass(frozen=True)
class Component:
    """A model of a run.

    Args:
        name: in checkpoints and results: `model`; or `gae` and `de`.
        model: itself.
        config: its keys.
        spec: facts of the data that it models.
        encoder: the autoencoder whose embeddings these are; None: they are the run's data.
        trained: whether the run trains it.
    """

    name: str
    model: Model
    config: ModelConfig
    spec: DataSpec
    encoder: GeneralizedAutoencoder | None = None
    trained: bool = True


@dataclass(frozen=True)
class Whole:
    """The two models of a run as one, with the same fields."""

    model: TwoStep
    config: TwoStepRunConfig
    spec: DataSpec
    name: str = "two_step"
    encoder: None = None


def build(settings: Settings, spec: DataSpec) -> Model | TwoStep:
    """Return the untrained model that the settings describe, or both as one; its weights follow from the run's seed."""
    torch.manual_seed(derive(settings.run.seed, "weights"))
    configs = settings.models
    if not settings.is_two_step:
        return configs["model"].build(spec)
    gae = configs["gae"].build(spec)
    assert isinstance(gae, GeneralizedAutoencoder)
    de = configs["de"].build(latent_spec(spec, gae.latent_dim))
    assert isinstance(de, DensityEstimator)
    return TwoStep(gae, de)


def models_of(settings: Settings, spec: DataSpec, module: Model | TwoStep) -> tuple[Component, ...]:
    """Return the one model of a run, or its two."""
    configs = settings.models
    if not isinstance(module, TwoStep):
        return (Component("model", module, configs["model"], spec),)
    gae, latents = module.gae, latent_spec(spec, module.gae.latent_dim)
    return (
        Component("gae", gae, configs["gae"], spec, trained=not settings.freezes_gae),
        Component("de", module.de, configs["de"], latents, encoder=gae),
    )


def components_of(settings: Settings, spec: DataSpec, module: Model | TwoStep) -> tuple[Component | Whole, ...]:
    """Return everything that is measured of a run: its models, and last the two of them as one."""
    models = models_of(settings, spec, module)
    if not isinstance(module, TwoStep):
        return models
    assert isinstance(settings.run, TwoStepRunConfig)
    return (*models, Whole(module, settings.run, spec))
