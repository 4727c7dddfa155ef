"""A new run as it is asked for, before its data are known, and the epoch limits of one that is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from twostep.core.schema import DataSpec, UserError
from twostep.metrics import METRICS
from twostep.models.base import ModelConfig, Role
from twostep.runs.config import RunConfig, TwoStepRunConfig, config_class

LATENT_DIM, AUTO = "latent_dim", "auto"
"""A key, and what it may be asked for as where a run starts: no config holds the word."""


SHARED_KEYS = ("max_epochs", "early_stopping_metric", "max_bad_valid_epochs", "max_grad_norm", "valid_metrics")


def share(overrides: Mapping[str, Mapping[str, Any]], parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return overrides in which `SHARED_KEYS` given for the run are those of each model that has none of its own."""
    shared = {key: value for key, value in overrides["run"].items() if key in SHARED_KEYS}
    run = {key: value for key, value in overrides["run"].items() if key not in shared}
    return {"run": run, **{part: {**shared, **overrides[part]} for part in parts}}


@dataclass(frozen=True)
class Request:
    """What is asked for: models by name, and overrides.

    Args:
        models: name of each model: `{"model": "vae"}`, or `{"gae": "vae", "de": "flow"}`; a two-step run with a
            pretrained autoencoder names only the density.
        overrides: values by key, for `run` and for each model.
        is_gae: whether one model alone is an autoencoder for a second step.
    """

    models: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, Any]]
    is_gae: bool = False

    def run_config(self) -> RunConfig:
        """Return the run's config, after every name and key of the request has been checked.

        Raises:
            UserError: for an unknown model, key or metric, a value of the wrong type or out of range, or where
                embeddings that are not there yet would have to tell `latent_dim`.
        """
        kind = TwoStepRunConfig if "de" in self.models else RunConfig
        run = kind.parse(self.overrides.get("run", {}), "the run")
        for part, name in self.models.items():
            given = dict(self.overrides.get(part, {}))
            if self._is_auto(part):
                del given[LATENT_DIM]
                if part == "de":
                    raise UserError(
                        f"latent_dim=auto of {name}: it sees embeddings, which are not there yet: give a number"
                    )
            config = self._class(part).parse(given, name)
            _look_up(*config.valid_metrics, *config.test_metrics, config.early_stopping_metric)
        if isinstance(run, TwoStepRunConfig):
            _look_up(*run.test_metrics)
        return run

    @property
    def auto(self) -> str | None:
        """The model whose `latent_dim` is to be estimated from the data; None if there is none."""
        return next((part for part in self.models if self._is_auto(part)), None)

    def with_latent_dim(self, part: str, latent_dim: int) -> Self:
        """Return the same request with a number of latent coordinates for one model."""
        of_part = {**self.overrides[part], LATENT_DIM: latent_dim}
        return replace(self, overrides={**self.overrides, part: of_part})

    def preset(self, part: str, spec: DataSpec) -> ModelConfig:
        """Return a model's config: its defaults for this data, and the overrides on top.

        A default of early stopping holds only where there are validation rows.
        """
        given = self.overrides.get(part, {})
        if not self.run_config().make_valid_loader:
            given = {"early_stopping_metric": None, **given}
        return self._class(part).for_data(spec, self._role(part), **given)

    def _is_auto(self, part: str) -> bool:
        has_key = LATENT_DIM in self._class(part).model_fields
        return has_key and self.overrides.get(part, {}).get(LATENT_DIM) == AUTO

    def _class(self, part: str) -> type[ModelConfig]:
        return config_class(self.models[part], self._role(part))

    def _role(self, part: str) -> Role:
        return "gae" if part == "gae" or (part == "model" and self.is_gae) else "de"


@dataclass(frozen=True)
class Limits:
    """Epoch limits of a loaded run that replace those it was started with; None keeps them."""

    every: int | None = None
    gae: int | None = None
    de: int | None = None

    def of(self, part: str) -> int | None:
        """Return the limit of one model: its own, or the common one."""
        return {"gae": self.gae, "de": self.de}.get(part) or self.every


def _look_up(*names: str | None) -> None:
    for name in names:
        if name is not None:
            METRICS[name]
