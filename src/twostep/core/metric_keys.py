"""Names of metrics as configs have them, and keys of those that compare samples with data (`metric_kwargs`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import Field, field_validator

from twostep.core.schema import Frozen, PositiveInt

VARIABLE = "TWOSTEP_INCEPTION"
"""Of the environment: path of Inception's weights, where no key says it."""

NAMING = ("valid_metrics", "test_metrics", "early_stopping_metric")
"""Keys of configs that name metrics."""

FeatureName = Literal["standardised", "pixels", "pca", "classifier", "efficientnet-lite0", "inception"]


class MetricKeys(Frozen):
    """What samples are compared with data in, and how many of them."""

    gen_samples: PositiveInt = Field(10_000, description="samples, and rows of data at most, that are compared")
    gen_batch_size: PositiveInt = Field(1000, description="samples that are drawn at once")
    nearest_k: PositiveInt = Field(5, description="neighbours within a ball of precision, recall, density, coverage")
    features: FeatureName | None = Field(
        None,
        description="None: inception where fid is asked for and has its weights; else classifier for pictures with "
        "labels, pca for others, standardised for vectors",
    )
    inception_weights: Path | None = Field(None, description="file of Inception's weights; None: $TWOSTEP_INCEPTION")

    @field_validator("inception_weights")
    @classmethod
    def _from_anywhere(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @property
    def weights(self) -> Path | None:
        """Where Inception's weights are: as the key says, else as the environment does."""
        named = os.environ.get(VARIABLE)
        return self.inception_weights or (Path(named).expanduser() if named else None)

    def for_metrics(self, names: Iterable[str], pictures: bool) -> MetricKeys:
        """Return the keys for these metrics: `fid` is in Inception's features where nothing speaks against it.

        Args:
            names: of the metrics that share the keys.
            pictures: whether what is compared are pictures.
        """
        if "fid" in names and pictures and self.features is None and self.weights is not None:
            return self.model_copy(update={"features": "inception"})
        return self

    def called(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names of metrics, each once, in which a distance in other features than Inception's is no `fid`."""
        own = "fid" if self.features == "inception" else "fd"
        return tuple(dict.fromkeys(own if name == "fid" else name for name in names))


METRIC_KEYS = MetricKeys.model_validate({})


def metric_names(value: Any) -> Any:
    """Return one name or several as a tuple, for the validator of a config.

    Raises:
        ValueError: for a list whose quotes the shell has taken.
    """
    if isinstance(value, str):
        if value.startswith(("[", "(")):
            raise ValueError("quote each name, and the list for the shell, as \"['loss', 'fd']\"")
        return (value,)
    return tuple(cast(Iterable[Any], value)) if isinstance(value, list | tuple) else value


Config = TypeVar("Config", bound=Frozen)


def settled(config: Config, pictures: bool) -> Config:
    """Return a config that says which features and name its `fid` has, so that a run keeps to them.

    Where Inception's weights are given, `fid` is asked for of pictures, and no features are, the key `features` becomes
    `inception`; in other features, `fid` becomes `fd`.

    Args:
        config: of a model or a run, with metrics and `metric_kwargs` or without.
        pictures: whether what is compared are pictures.
    """
    named = {key: getattr(config, key) for key in NAMING if getattr(config, key, None)}
    if not named:
        return config
    given: MetricKeys = cast(Any, config).metric_kwargs
    keys = given.for_metrics([name for value in named.values() for name in metric_names(value)], pictures)
    names = {key: keys.called(metric_names(value)) for key, value in named.items()}
    update = {key: called[0] if isinstance(named[key], str) else called for key, called in names.items()}
    return config.model_copy(update={"metric_kwargs": keys, **update})
