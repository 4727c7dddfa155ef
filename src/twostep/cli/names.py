"""The names of models, their keys, metrics and datasets, in a file: a misspelt one is refused before torch is imported.

`python docs/readme.py` writes the file again, after a name or key has changed; a test compares it with the code.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TypedDict, cast

from twostep.core.schema import Frozen

FILE = Path(__file__).with_name("names.json")


class Keys(TypedDict):
    """The keys of a config, and their other names."""

    fields: list[str]
    aliases: list[str]


class ModelKeys(Keys):
    """The keys of a model, and the roles that it can play."""

    roles: list[str]


class Names(TypedDict):
    """Everything that a command may name, but for what other packages add."""

    models: dict[str, ModelKeys]
    run: Keys
    two_step: Keys
    datasets: list[str]
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
    from twostep.runs.config import RunConfig, TwoStepRunConfig

    def keys(config: type[Frozen]) -> Keys:
        return {"fields": list(config.model_fields), "aliases": list(config.aliases())}

    return {
        "models": {name: {**keys(MODELS[name]), "roles": list(MODELS[name].roles)} for name in sorted(MODELS)},
        "run": keys(RunConfig),
        "two_step": keys(TwoStepRunConfig),
        "datasets": sorted(DATASETS),
        "metrics": sorted(METRICS),
    }
