"""The frozen configs of a run and its models, as its directory stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StrictFloat

from twostep.core.keys import METRIC_KEYS, MetricKeys, metric_names, resolve_fid
from twostep.core.schema import Frozen, PositiveFloat, PositiveInt, Seed
from twostep.models import MODELS
from twostep.models.base import ModelConfig
from twostep.runs.key_values import refuse_fixed

NOT_TIED = frozenset({"max_epochs", "logdir_root", "pretrained_gae"})
"""Keys, besides the adjustable ones, in which a run and its checkpoint may differ."""


class RunConfig(Frozen):
    """Keys of every run: its data, its directory, its batches, its machine."""

    adjustable: ClassVar[frozenset[str]] = frozenset(
        {"dataset", "data_root", "ood_dataset", "ood_dataset_kwargs", "device"}
        | {"valid_batch_size", "test_batch_size", "checkpoint_minutes", "max_minutes", "loggers"}
    )

    dataset: str = Field(description="name of a dataset, path of a file or folder, or owner/name on the hub")
    dataset_kwargs: dict[str, Any] = Field({}, description="keys of the dataset, as {'n': 5000, 'seed': 1}")
    ood_dataset: str | None = Field(None, description="data that --test-ood compares it with; None: the usual partner")
    ood_dataset_kwargs: dict[str, Any] = Field({}, description="keys of ood_dataset")
    data_root: Annotated[Path | None, AfterValidator(lambda path: path and path.expanduser().absolute())] = Field(
        None, description="folder with one folder per dataset; None: $TWOSTEP_DATA or data"
    )
    logdir_root: Path = Field(Path("runs"), description="folder of run directories")
    make_valid_loader: bool = Field(True, description="hold out training data for validation")
    valid_fraction: Annotated[StrictFloat, Field(gt=0, lt=1)] = Field(0.1, description="share of the training data")
    train_batch_size: PositiveInt = Field(128, description="rows of a training batch, over all ranks")
    valid_batch_size: PositiveInt = Field(128, description="rows of a validation batch, over all ranks")
    test_batch_size: PositiveInt = Field(128, description="rows of a test batch, over all ranks")
    seed: Seed = Field(0, description="of all random numbers")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(lambda name: "32" if name == 32 else name)] = Field(
        "32", description="32, or bf16: mixed precision with 32-bit weights"
    )
    max_minutes: PositiveFloat | None = Field(
        None, description="minutes to train for at most, all models together; None: default lengths"
    )
    checkpoint_minutes: PositiveFloat = Field(10.0, description="longest time between checkpoints inside an epoch")
    loggers: tuple[Literal["wandb", "mlflow"], ...] = Field((), description="services that curves and results go to")


class TwoStepRunConfig(RunConfig):
    """Keys of a two-step run (`--shared-config`)."""

    adjustable: ClassVar[frozenset[str]] = RunConfig.adjustable | {"test_metrics", "metric_kwargs"}

    sequential_training: bool = Field(True, description="train the autoencoder fully, then the density")
    alternate_by_epoch: bool = Field(
        True, description="with sequential_training=False: alternate by epoch (True) or by batch (False)"
    )
    pretrained_gae: Path | None = Field(None, description="run whose autoencoder is used; set by its flag")
    freeze_pretrained_gae: bool = Field(False, description="do not train that autoencoder further; set by its flag")
    test_metrics: Annotated[tuple[str, ...], BeforeValidator(metric_names)] = Field(
        ("l2_reconstruction_error", "log_likelihood"), description="metrics of the two-step model on the test split"
    )
    metric_kwargs: MetricKeys = Field(METRIC_KEYS, description="how samples are compared with data")

    @property
    def schedule(self) -> Literal["sequential", "by_epoch", "by_iteration"]:
        """The order in which the two steps are trained."""
        if self.sequential_training:
            return "sequential"
        return "by_epoch" if self.alternate_by_epoch else "by_iteration"


@dataclass(frozen=True)
class Settings:
    """The configs of a run, resolved: of the run itself, and of its one model or its two.

    `models` is `{"model": ...}`, with `is_gae` if it is for a second step, or `{"gae": ..., "de": ...}`.
    """

    run: RunConfig
    models: Mapping[str, ModelConfig]
    is_gae: bool = False

    @property
    def two_step(self) -> TwoStepRunConfig | None:
        """Keys of the run if it is one of two models."""
        return self.run if isinstance(self.run, TwoStepRunConfig) else None

    @property
    def first(self) -> ModelConfig:
        """Keys of the model that sees the data."""
        return next(iter(self.models.values()))

    @property
    def freezes_gae(self) -> bool:
        """Whether the autoencoder is not trained in this run."""
        return self.two_step is not None and self.two_step.freeze_pretrained_gae

    def files(self) -> dict[str, dict[str, Any]]:
        """Return the config files of a run directory, by name."""
        run = self.run.model_dump(mode="json")
        if self.two_step is None:
            file = "gae_config.json" if self.is_gae else "config.json"
            return {file: {**self.first.model_dump(mode="json"), **run}}
        models = {f"{name}_config.json": config.model_dump(mode="json") for name, config in self.models.items()}
        return {**models, "shared_config.json": run}

    @classmethod
    def from_files(cls, files: Mapping[str, Mapping[str, Any]]) -> Settings:
        """Return the settings that `files` were written from.

        Raises:
            UserError: if the files are not those of a run, or have unknown keys.
        """
        if "shared_config.json" in files:
            models = {name: _model_from(files[f"{name}_config.json"]) for name in ("gae", "de")}
            return cls(TwoStepRunConfig.parse(files["shared_config.json"], "shared_config.json"), models)
        (name,) = files
        run = {key: value for key, value in files[name].items() if key in RunConfig.model_fields}
        model = {key: value for key, value in files[name].items() if key not in RunConfig.model_fields}
        return cls(RunConfig.parse(run, name), {"model": _model_from(model)}, is_gae=name == "gae_config.json")

    def adjusted(self, overrides: Mapping[str, Mapping[str, Any]], is_image: bool) -> Settings:
        """Return these settings with overrides, for `run` and for each model, in a run that exists; `fid` is resolved.

        `is_image` says whether the run's data are images; embeddings never are.

        Raises:
            UserError: naming each key that can't be changed in a run that exists.
        """
        run = resolve_fid(_adjust(self.run, overrides.get("run", {}), "the run"), is_image)
        models = {
            name: resolve_fid(_adjust(config, overrides.get(name, {}), config.name, name), is_image and name != "de")
            for name, config in self.models.items()
        }
        return Settings(run, models, self.is_gae)

    def differences(self, files: Mapping[str, Mapping[str, Any]], is_image: bool) -> list[str]:
        """Return in words how the settings of other files differ in keys that can't change in a run that exists.

        Epochs, which are raised on loading, paths of other folders, and keys that the files lack are ignored.
        """
        if files.keys() != self.files().keys():
            return [f"they are of a run with {', '.join(sorted(files))}"]
        mine, others = (Settings.from_files(one).adjusted({}, is_image) for one in (self.files(), files))
        known = {key for values in files.values() for key in values}
        ours, theirs = ({"the run": one.run, **one.models} for one in (mine, others))
        return [
            f"{key} of {owner} is {getattr(theirs[owner], key, None)!r} there and {getattr(config, key)!r} here"
            for owner, config in ours.items()
            for key in type(config).model_fields
            if key in known - config.adjustable - NOT_TIED and getattr(theirs[owner], key, None) != getattr(config, key)
        ]


def _model_from(values: Mapping[str, Any]) -> ModelConfig:
    return MODELS[str(values.get("name"))].parse(values, str(values.get("name")))


AnyConfig = TypeVar("AnyConfig", bound=RunConfig | ModelConfig)


def _adjust(config: AnyConfig, overrides: Mapping[str, Any], owner: str, part: str = "model") -> AnyConfig:
    refuse_fixed(overrides, type(config).keys(), config.adjustable, owner, part)
    return type(config).parse({**config.model_dump(), **overrides}, owner) if overrides else config
