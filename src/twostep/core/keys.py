"""Keys that configs are composed of: for training, for evaluation, and for comparing samples with data."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from twostep.core.schema import Frozen, PositiveFloat, PositiveInt

INCEPTION_VARIABLE = "TWOSTEP_INCEPTION"
"""Environment variable with the path of Inception's weights, unless a key names it."""

METRIC_NAMES = ("valid_metrics", "test_metrics", "early_stopping_metric")
"""Keys whose values are names of metrics."""

EMA_DECAY = "decay of the average of weights over steps, which is what is kept; None: no average"
PATIENCE = "epochs without a better value before training stops; None: never"
STOPPING_METRIC = "validation metric that stops training; None: none"
VALID_METRICS = "metrics on the validation split, each epoch"
TEST_METRICS = "metrics on the test split, at the end"

FeatureName = Literal["standardised", "pixels", "pca", "classifier", "efficientnet-lite0", "inception"]

Sizes = tuple[PositiveInt, ...]
Channels = Annotated[Sizes, Field(min_length=1)]


def _per_layer(value: Any) -> Any:
    entries = cast(Sequence[Any], value if isinstance(value, list | tuple) else [value])
    if not entries or any(type(entry) is not int or entry < 1 for entry in entries):
        raise ValueError("write a positive integer, or a list of them with one for each layer, like [3, 3, 3, 3]")
    return tuple(entries) if isinstance(value, list | tuple) else value


PerLayer = Annotated[int | tuple[int, ...], BeforeValidator(_per_layer)]
"""One number for all layers of a network, or one for each."""

AUTO = "auto"


def _integer_or_auto(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, str) and value != AUTO:
        raise ValueError("Input should be a valid integer, or auto")
    return value if value == AUTO else validate(value)


LatentDim = Annotated[PositiveInt, WrapValidator(_integer_or_auto)]
"""A number of latent coordinates; `auto` only until a run's configs are resolved."""


def grid_shape(value: Any) -> tuple[int, int, int]:
    """Return channels, height and width, written like `4x7x7` or as a list, or raise `ValueError`."""
    sides = [int(side) if side.isdecimal() else 0 for side in value.split("x")] if isinstance(value, str) else value
    if not isinstance(sides, list | tuple) or len(sides) != 3 or any(type(s) is not int or s < 1 for s in sides):
        raise ValueError("write channels, height and width of a grid, like 4x7x7")
    return cast(tuple[int, int, int], tuple(sides))


LatentShape = Annotated[tuple[int, int, int], BeforeValidator(grid_shape)]
"""Channels, height and width of an embedding that is a flattened grid."""


class MetricKeys(Frozen):
    """How samples are compared with data."""

    gen_samples: PositiveInt = Field(10_000, description="number of samples to compare, and of data rows at most")
    gen_batch_size: PositiveInt = Field(1000, description="number of samples drawn at once")
    nearest_k: PositiveInt = Field(5, description="neighbours within a ball of precision, recall, density and coverage")
    features: FeatureName | None = Field(
        None,
        description="None: inception if fid is asked for and its weights are given; else classifier for labelled "
        "images, efficientnet-lite0 for others (pca where it is not installed), standardised for vectors",
    )
    inception_weights: Path | None = Field(None, description="file of Inception's weights; None: $TWOSTEP_INCEPTION")

    @field_validator("inception_weights")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @property
    def weights(self) -> Path | None:
        """File of Inception's weights, from the key or the environment."""
        named = os.environ.get(INCEPTION_VARIABLE)
        return self.inception_weights or (Path(named).expanduser() if named else None)

    def resolve(self, names: Collection[str], is_image: bool) -> tuple[Self, tuple[str, ...]]:
        """Return the keys for these metrics, and their names, each once.

        If `fid` of images is among them and can be computed, features that are not given are Inception's; in other
        features `fid` becomes `fd`.
        """
        if "fid" in names and is_image and self.features is None and self.weights is not None:
            return self.model_copy(update={"features": "inception"}), tuple(dict.fromkeys(names))
        distance = "fid" if self.features == "inception" else "fd"
        return self, tuple(dict.fromkeys(distance if name == "fid" else name for name in names))


METRIC_KEYS = MetricKeys.model_validate({})


def metric_names(value: Any) -> Any:
    """Return one name or several as a tuple, for the validator of a config."""
    if isinstance(value, str):
        if value.startswith(("[", "(")):
            raise ValueError("quote each name, and the list for the shell, as \"['loss', 'fd']\"")
        return (value,)
    return tuple(cast(Iterable[Any], value)) if isinstance(value, list | tuple) else value


class FitKeys(Frozen):
    """How a model is trained. Learning rates belong to its objectives (`ModelConfig.optimizers`)."""

    optimizer: Literal["adam", "sgd", "rmsprop"] = Field("adam", description="update rule")
    max_epochs: PositiveInt = Field(100, description="epochs to train for")
    max_steps: PositiveInt | None = Field(
        None, description="steps to train for; max_epochs counts too if it is given; None: no limit"
    )
    max_grad_norm: PositiveFloat | None = Field(10.0, description="gradients are clipped to this norm; None: never")
    ema_decay: PositiveFloat | None = Field(None, lt=1, description=EMA_DECAY)
    early_stopping_metric: str | None = Field(None, description=STOPPING_METRIC)
    max_bad_valid_epochs: PositiveInt | None = Field(10, description=PATIENCE)

    @field_validator("early_stopping_metric")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None


Fit = TypeVar("Fit", bound=FitKeys)


FEWEST_EPOCHS = 10  # of a default length, and of a patience
TIMED = 20  # times a default length, where time or early stopping ends it


def with_epochs_for_steps(keys: Fit, given: Collection[str], batches: int, timed: bool = False) -> Fit:
    """Return keys in which epochs, of so many batches, follow from `max_steps`, unless `max_epochs` is given too.

    Steps that were given are taken to the last one; a default becomes whole epochs, at least ten, which can be raised.
    The patience, unless it is given, is a quarter of the epochs, at least ten. Where training is `timed` and stops
    early, a default length is `TIMED` times as long with the same patience.
    """
    if keys.max_steps is None:
        return keys
    update: dict[str, int | None] = {}
    epochs = -(-keys.max_steps // batches)
    if "max_steps" not in given:
        update["max_steps"], epochs = None, max(FEWEST_EPOCHS, epochs)
    if "max_epochs" in given:
        epochs = keys.max_epochs
    update["max_epochs"] = epochs
    if "max_bad_valid_epochs" not in given:
        update["max_bad_valid_epochs"] = max(FEWEST_EPOCHS, -(-epochs // 4))
    if timed and keys.early_stopping_metric and not {"max_steps", "max_epochs"} & set(given):
        update["max_epochs"] = TIMED * epochs
    return keys.model_copy(update=update)


class EvaluationKeys(Frozen):
    """By which metrics a model is evaluated."""

    valid_metrics: tuple[str, ...] = Field(("loss",), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field(("loss",), description=TEST_METRICS)
    metric_kwargs: MetricKeys = Field(METRIC_KEYS, description="how samples are compared with data")

    @field_validator("valid_metrics", "test_metrics", mode="before")
    @classmethod
    def _metrics_are_a_list(cls, value: Any) -> Any:
        return metric_names(value)


Config = TypeVar("Config", bound=Frozen)


def resolve_fid(config: Config, is_image: bool) -> Config:
    """Return a config of a model or a run with the features and metrics of `MetricKeys.resolve`, which a run keeps."""
    named = {key: metric_names(getattr(config, key)) for key in METRIC_NAMES if getattr(config, key, None)}
    if not named:
        return config
    given: MetricKeys = cast(Any, config).metric_kwargs
    keys, _ = given.resolve([name for names in named.values() for name in names], is_image)
    update: dict[str, Any] = {key: keys.resolve(names, is_image)[1] for key, names in named.items()}
    if "early_stopping_metric" in update:
        (update["early_stopping_metric"],) = update["early_stopping_metric"]
    return config.model_copy(update={"metric_kwargs": keys, **update})
