"""What a new run is asked to do: `key=value` strings, names of models, and keys, before the data are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostep.core.keys import AUTO, with_epochs_for_steps
from twostep.core.schema import DataSpec, UserError, nearest
from twostep.data.load import located
from twostep.metrics import METRICS
from twostep.models import MODELS
from twostep.models.base import ModelConfig, Role
from twostep.runs.config import RunConfig, TwoStepRunConfig
from twostep.runs.key_values import parse_overrides, share

__all__ = ["Overrides", "Request", "config_class", "parse_overrides", "share", "split_single"]

Overrides = Mapping[str, Mapping[str, Any]]
"""Values by key, for `run` and for each model by name: `model`, or `gae` and `de`."""


@dataclass(frozen=True)
class Request:
    """A new run as it is asked for; `twostep.experiment.resolve` makes its configs when the data are known.

    Args:
        models: name or config of each model: `{"model": "vae"}`, or `{"gae": VAEConfig(...), "de": "flow"}`; a two-step
            run with a pretrained autoencoder names only the density.
        overrides: values by key, for `run` and for each model.
        is_gae: whether a single model is an autoencoder for a second step.
        to: directory of the run; None: a new one in `logdir_root`, named by the time.
    """

    models: Mapping[str, str | ModelConfig]
    overrides: Overrides
    is_gae: bool = False
    to: Path | None = None

    @property
    def is_two_step(self) -> bool:
        """Whether it is for two models."""
        return "de" in self.models

    def run_config(self) -> RunConfig:
        """Return the run's config, with absolute paths, after every name and key of the request has been checked.

        Raises:
            UserError: for an unknown model, key or metric, a value of the wrong type or out of range, or
                `latent_dim=auto` of a density on embeddings.
        """
        kind = TwoStepRunConfig if self.is_two_step else RunConfig
        run = kind.parse(self.overrides.get("run", {}), "the run")
        metrics = [*run.test_metrics] if isinstance(run, TwoStepRunConfig) else []
        for part in self.models:
            kind, _ = self._kind(part)
            config = kind.parse(self._given(part), kind.model_fields["name"].default)
            if part == "de" and getattr(config, "latent_dim", None) == AUTO:
                raise UserError(f"latent_dim=auto of {config.name}: it models embeddings, not known yet: give a number")
            stop = config.early_stopping_metric
            metrics += [*config.valid_metrics, *config.test_metrics, *([stop] if stop else [])]
        for name in metrics:
            METRICS[name]
        other = run.ood_dataset and located(run.ood_dataset)
        return run.model_copy(update={"dataset": located(run.dataset), "ood_dataset": other})

    def model_config(self, part: str, spec: DataSpec) -> ModelConfig:
        """Return a model's config: its defaults for this data, and the overrides on top.

        A default of early stopping applies only where there are validation rows, and one of epochs only where
        `max_steps` is not given.
        """
        given, run = self._given(part), self.run_config()
        if not run.make_valid_loader:
            given = {"early_stopping_metric": None, **given}
        kind, role = self._kind(part)
        batches = -(-spec.size // min(run.train_batch_size, spec.size))
        return with_epochs_for_steps(kind.for_data(spec, role, **given), given, batches, run.max_minutes is not None)

    def _kind(self, part: str) -> tuple[type[ModelConfig], Role]:
        role: Role = "gae" if self.is_gae or part == "gae" else "de"
        return config_class(self.models[part], role), role

    def _given(self, part: str) -> dict[str, Any]:
        """Return the values that were given for a model: those that are set in its config, and overrides on top."""
        model = self.models[part]
        own = {} if isinstance(model, str) else {key: getattr(model, key) for key in model.model_fields_set}
        return {**own, **self.overrides.get(part, {})}


def split_single(overrides: Mapping[str, Any], config: type[ModelConfig], name: str) -> dict[str, dict[str, Any]]:
    """Split the overrides of a single model's run into those of the run and those of the model.

    Raises:
        UserError: for a key that neither has.
    """
    known = [*RunConfig.keys(), *config.keys()]
    for key in overrides:
        if key not in known:
            raise UserError(
                f"{key}: no such key of {name}{nearest(key, known) or f'; `twostep models {name}` lists them'}"
            )
    run = {key: value for key, value in overrides.items() if key in RunConfig.model_fields}
    return {"run": run, "model": {key: value for key, value in overrides.items() if key not in run}}


def config_class(model: str | ModelConfig, role: Role) -> type[ModelConfig]:
    """Return the config class of a model, by its name or a config, that can play a role.

    Raises:
        UserError: if there is no such model, or it can't play the role.
    """
    config = MODELS[model] if isinstance(model, str) else type(model)
    if role not in config.roles:
        name = config.model_fields["name"].default
        able = ", ".join(sorted(other for other in MODELS if role in MODELS[other].roles))
        what = "an autoencoder" if role == "gae" else "a density"
        raise UserError(f"{name} is not {what}; these are: {able}")
    return config
