"""The names of models, their keys, metrics and datasets, in a file: a misspelt one is refused before torch is imported.

`python docs/readme.py` writes the file again, after a name or key has changed; a test compares it with the code.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal, Optional, TypedDict, cast, get_args, get_origin

from pydantic import create_model
from pydantic.fields import FieldInfo

from twostep.core.keys import Channels, LatentDim, MetricKeys, PerLayer, Sizes
from twostep.core.schema import Frozen, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed

FILE = Path(__file__).with_name("names.json")


KINDS: dict[str, Any] = {
    "bool": bool,
    "int > 0": PositiveInt,
    "int > 0 | None": Optional[PositiveInt],  # noqa: UP045 - an alias takes no |
    "int >= 0": NonNegativeInt,
    "float > 0": PositiveFloat,
    "float > 0 | None": Optional[PositiveFloat],  # noqa: UP045
    "float >= 0": NonNegativeFloat,
    "bool | None": Optional[bool],  # noqa: UP045
    "latent_dim": LatentDim,
    "sizes": Sizes,
    "channels": Channels,
    "per layer": PerLayer,
    "keys": dict[str, Any],
    "metric_kwargs": MetricKeys,
    "seed": Seed,
}
"""Kinds of values that can be checked without the configs themselves."""


class Keys(TypedDict):
    """The keys of a config: the kind of each, its choices, or None if only the config knows; other names; ..."""

    fields: dict[str, str | list[str] | None]
    aliases: list[str]
    adjustable: list[str]  # in a run that exists


class ModelKeys(Keys):
    """The keys of a model, and the roles that it can play."""

    roles: list[str]


class Names(TypedDict):
    """Everything that a command may name, but for what other packages add."""

    models: dict[str, ModelKeys]
    run: Keys
    two_step: Keys
    datasets: dict[str, list[str]]  # with the keys of each
    metrics: list[str]


@functools.cache
def known() -> Names:
    """Return the names in the file."""
    return cast(Names, json.loads(FILE.read_text(encoding="utf-8")))


def collected() -> Names:
    """Return the names that the code has."""
    from twostep.data.named import DATASETS
    from twostep.metrics import METRICS
    from twostep.models import MODELS
    from twostep.models.base import ModelConfig
    from twostep.runs.config import RunConfig, TwoStepRunConfig

    def keys(config: type[RunConfig] | type[ModelConfig]) -> Keys:
        return {"fields": _kinds(config), "aliases": list(config.aliases()), "adjustable": sorted(config.adjustable)}

    return {
        "models": {name: {**keys(MODELS[name]), "roles": list(MODELS[name].roles)} for name in sorted(MODELS)},
        "run": keys(RunConfig),
        "two_step": keys(TwoStepRunConfig),
        "datasets": {name: sorted(DATASETS[name].keys.model_fields) for name in sorted(DATASETS)},
        "metrics": sorted(METRICS),
    }


def kinds_of(keys: Keys) -> type[Frozen]:
    """Return a config of the keys whose kinds are known."""
    found: dict[str, Any] = {}
    for key, kind in keys["fields"].items():
        if kind is not None:
            found[key] = (KINDS[kind] if isinstance(kind, str) else Literal[tuple(kind)], None)  # type: ignore[misc]
    return create_model("Kinds", __base__=Frozen, **found)


def _kinds(config: type[Frozen]) -> dict[str, str | list[str] | None]:
    kinds: dict[str, Any] = {name: (kind, None) for name, kind in KINDS.items()}
    reference = create_model("Reference", **kinds)
    known = {_shown(field): name for name, field in reference.model_fields.items()}
    validators = config.__pydantic_decorators__.field_validators.values()
    validated = {key for one in validators for key in one.info.fields}
    found: dict[str, str | list[str] | None] = {}
    for key, field in config.model_fields.items():
        choices = get_origin(field.annotation) is Literal and not field.metadata
        kind = [*get_args(field.annotation)] if choices else known.get(_shown(field))
        found[key] = None if key in validated or key == "name" else kind
    return found


def _shown(field: FieldInfo) -> str:
    return f"{field.annotation} {field.metadata}"
