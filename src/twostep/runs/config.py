"""All that a run is asked to do, as frozen configs, and the `key=value` strings that change them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import Field, field_validator

from twostep.core.keys import METRIC_KEYS, MetricKeys, metric_names, resolve_fid
from twostep.core.schema import Frozen, PositiveFloat, PositiveInt, Seed, UserError, nearest
from twostep.models import MODELS
from twostep.models.base import ModelConfig, Role

NOT_TIED = frozenset({"max_epochs", "logdir_root", "pretrained_gae"})
"""Keys, beside those that can change, of which it does not matter whether a checkpoint was written with them."""


class RunConfig(Frozen):
    """Keys of every run: its data, its directory, its batches, its machine."""

    adjustable: ClassVar[frozenset[str]] = frozenset(
        {
            "dataset",
            "data_root",
            "ood_dataset",
            "ood_dataset_kwargs",
            "valid_batch_size",
            "test_batch_size",
            "device",
            "checkpoint_minutes",
        }
    )

    dataset: str = Field(description="name of a data set, path of an own file or folder, or a hub's owner/name")
    dataset_kwargs: dict[str, Any] = Field({}, description="keys of the data set, as {'n': 5000, 'seed': 1}")
    ood_dataset: str | None = Field(None, description="what --test-ood tells it from; None: the set's usual partner")
    ood_dataset_kwargs: dict[str, Any] = Field({}, description="keys of that data set")
    data_root: Path | None = Field(None, description="folder with one folder per data set; None: $TWOSTEP_DATA or data")
    logdir_root: Path = Field(Path("runs"), description="folder in which run directories are made")
    make_valid_loader: bool = Field(True, description="cut 10 % off the training data for validation")
    train_batch_size: PositiveInt = Field(128, description="rows of a training batch, over all ranks")
    valid_batch_size: PositiveInt = Field(128, description="rows of a validation batch, over all ranks")
    test_batch_size: PositiveInt = Field(128, description="rows of a test batch, over all ranks")
    seed: Seed = Field(0, description="every random number of the run follows from it")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
    precision: Literal["32", "bf16"] = Field("32", description="bf16: mixed precision with 32-bit weights")
    checkpoint_minutes: PositiveFloat = Field(10.0, description="longest time between checkpoints inside an epoch")

    @field_validator("data_root")
    @classmethod
    def _from_anywhere(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator("precision", mode="before")
    @classmethod
    def _number_is_a_name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class TwoStepRunConfig(RunConfig):
    """Keys of a two-step run (`--shared-config`)."""

    adjustable: ClassVar[frozenset[str]] = RunConfig.adjustable | {"test_metrics", "metric_kwargs"}

    sequential_training: bool = Field(True, description="train the autoencoder fully, then the density")
    alternate_by_epoch: bool = Field(
        True, description="with sequential_training=False: take turns by epochs (True) or by batches (False)"
    )
    pretrained_gae: Path | None = Field(None, description="run of a single autoencoder to take; set by its flag")
    freeze_pretrained_gae: bool = Field(False, description="do not train that autoencoder further; set by its flag")
    test_metrics: tuple[str, ...] = Field(
        ("l2_reconstruction_error", "log_likelihood"), description="metrics of the two-step model on the test split"
    )
    metric_kwargs: MetricKeys = Field(METRIC_KEYS, description="how its samples are compared with data")

    @field_validator("test_metrics", mode="before")
    @classmethod
    def _metrics_are_a_list(cls, value: Any) -> Any:
        return metric_names(value)

    @property
    def schedule(self) -> Literal["sequential", "by_epoch", "by_iteration"]:
        """In which order the two steps are trained."""
        if self.sequential_training:
            return "sequential"
        return "by_epoch" if self.alternate_by_epoch else "by_iteration"


@dataclass(frozen=True)
class Settings:
    """The configs of a run: of the run itself, and of its one model or its two.

    Args:
        run: keys of the run.
        models: `{"model": ...}` for one model alone, `{"gae": ..., "de": ...}` for two steps.
        is_gae: whether one model alone is an autoencoder for a second step.
    """

    run: RunConfig
    models: dict[str, ModelConfig]
    is_gae: bool = False

    @property
    def is_two_step(self) -> bool:
        """Whether there are two models."""
        return "de" in self.models

    @property
    def test_metrics(self) -> tuple[str, ...]:
        """All metrics that its models are tested by, and the two of them as one."""
        shared = self.run.test_metrics if isinstance(self.run, TwoStepRunConfig) else ()
        return (*shared, *(name for config in self.models.values() for name in config.test_metrics))

    def trains(self, part: str) -> bool:
        """Whether a model is trained in this run: all are but a frozen autoencoder."""
        return not (part == "gae" and isinstance(self.run, TwoStepRunConfig) and self.run.freeze_pretrained_gae)

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what a run directory holds of the configs, by file name."""
        run = self.run.model_dump(mode="json")
        models = {name: config.model_dump(mode="json") for name, config in self.models.items()}
        if self.is_two_step:
            return {
                "gae_config.json": models["gae"],
                "de_config.json": models["de"],
                "shared_config.json": run,
            }
        return {"gae_config.json" if self.is_gae else "config.json": {**models["model"], **run}}

    @classmethod
    def from_files(cls, files: Mapping[str, Mapping[str, Any]]) -> Settings:
        """Return the settings that `files` came from.

        Raises:
            UserError: if the files are not those of a run, or hold keys this version does not know.
        """
        if "shared_config.json" in files:
            return cls(
                TwoStepRunConfig.parse(files["shared_config.json"], "shared_config.json"),
                {role: _model_from(files[f"{role}_config.json"]) for role in ("gae", "de")},
            )
        (name,) = files
        run = {key: value for key, value in files[name].items() if key in RunConfig.model_fields}
        model = {key: value for key, value in files[name].items() if key not in RunConfig.model_fields}
        return cls(RunConfig.parse(run, name), {"model": _model_from(model)}, is_gae=name == "gae_config.json")

    def adjusted(self, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
        """Return these settings with overrides for a loaded run, by `run` and the models' names.

        Raises:
            UserError: naming each key that can't be changed in a run that exists.
        """
        run = _adjust(self.run, overrides.get("run", {}), self.run.adjustable, "the run")
        models = {
            name: _adjust(config, overrides.get(name, {}), config.adjustable, config.name)
            for name, config in self.models.items()
        }
        return Settings(run, models, self.is_gae)

    def resolve_fid(self, pictures: bool) -> Settings:
        """Return these settings with their `fid` resolved (`twostep.core.keys.resolve_fid`).

        Args:
            pictures: whether the run's data are pictures; embeddings never are.
        """
        models = {name: resolve_fid(config, pictures and name != "de") for name, config in self.models.items()}
        return Settings(resolve_fid(self.run, pictures), models, self.is_gae)

    def differences(self, files: Mapping[str, Mapping[str, Any]], pictures: bool) -> list[str]:
        """Return in words what others say otherwise of keys that can't change in a run that exists.

        Limits of epochs, which are raised on loading, and places of other folders are left out.

        Args:
            files: what `files` gave, here or in an earlier version: keys that it lacks don't count.
            pictures: as in `resolve_fid`.
        """
        if files.keys() != self.files().keys():
            return [f"they are of a run with {', '.join(sorted(files))}"]
        mine, others = (Settings.from_files(of).resolve_fid(pictures) for of in (self.files(), files))
        known = {key for values in files.values() for key in values}
        pairs = {
            "the run": (mine.run, others.run),
            **{name: (mine.models[name], others.models[name]) for name in mine.models},
        }
        return [
            f"{key} of {owner} is {getattr(other, key, None)!r} there and {getattr(config, key)!r} here"
            for owner, (config, other) in pairs.items()
            for key in type(config).model_fields
            if key in known - config.adjustable - NOT_TIED and getattr(other, key, None) != getattr(config, key)
        ]


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """Return `{key: value}` of strings `key=value`; a value that is no Python literal is a string.

    Raises:
        UserError: for an item without a key or without `=`.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{item}: write key=value (quote it if the value has blanks)")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = text.strip()
        overrides[key.strip()] = value
    return overrides


def split_single(overrides: Mapping[str, Any], config: type[ModelConfig], name: str) -> dict[str, dict[str, Any]]:
    """Split the one list of overrides of a single model's run into those of the run and those of the model.

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


def config_class(name: str, role: Role) -> type[ModelConfig]:
    """Return the config class of a model that can play a role.

    Raises:
        UserError: if there is no such model, or it can't play the role.
    """
    config = MODELS[name]
    if role not in config.roles:
        able = ", ".join(sorted(other for other in MODELS if role in MODELS[other].roles))
        what = "an autoencoder" if role == "gae" else "a density"
        raise UserError(f"{name} is not {what}; these are: {able}")
    return config


def _model_from(values: Mapping[str, Any]) -> ModelConfig:
    return MODELS[str(values.get("name"))].parse(values, str(values.get("name")))


AnyConfig = TypeVar("AnyConfig", RunConfig, ModelConfig)


def _adjust(config: AnyConfig, overrides: Mapping[str, Any], allowed: frozenset[str], owner: str) -> AnyConfig:
    fixed = [key for key in overrides if key in type(config).keys() and key not in allowed]  # noqa: SIM118
    if "max_epochs" in fixed:
        raise UserError(
            f"max_epochs: can't be changed in a run that exists (key of {owner}): say --max-epochs-loaded N"
        )
    if fixed:
        raise UserError(
            f"{', '.join(fixed)}: can't be changed in a run that exists (key of {owner}; these can: "
            f"{', '.join(sorted(allowed))}); start a new run instead"
        )
    if not overrides:
        return config
    return cast(AnyConfig, type(config).parse({**config.model_dump(), **overrides}, owner))
