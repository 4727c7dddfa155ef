"""What can be refused before torch is imported: names of models, keys, metrics and datasets, paths of data and runs.

A name that another package may have added is left to the registries, as is everything that only the data decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from twostep.cli.names import Keys, kinds_of, known
from twostep.core.registry import unknown
from twostep.core.schema import UserError, nearest, unknown_key
from twostep.runs.key_values import refuse_fixed

Overrides = Mapping[str, Mapping[str, Any]]
FEW = 3  # models that share a key
METRIC_KEYS = ("valid_metrics", "test_metrics")


def check_request(models: Mapping[str, str], overrides: Overrides) -> None:
    """Refuse unknown models, those that can't play their part, and what `check_keys` and `check_dataset` refuse."""
    for part, name in models.items():
        check_model(name, "gae" if part == "gae" else "de")
    check_keys(models, overrides)
    for name in ("dataset", "ood_dataset"):
        check_dataset(overrides["run"].get(name), overrides["run"].get(f"{name}_kwargs", {}))


def check_single(model: str, given: Mapping[str, Any], is_gae: bool) -> None:
    """Refuse what `check_request` refuses, of one model whose keys and the run's are given together."""
    check_model(model, "gae" if is_gae else None)
    check_single_keys(model, given)
    for name in ("dataset", "ood_dataset"):
        check_dataset(given.get(name), given.get(f"{name}_kwargs", {}))


def check_model(name: str, role: str | None = None) -> None:
    """Refuse an unknown model, and one that can't play a role."""
    models = known()["models"]
    if name not in models:
        if not extended("models"):
            raise unknown("model", name, models)
    elif role is not None and role not in models[name]["roles"]:
        able = ", ".join(sorted(other for other in models if role in models[other]["roles"]))
        raise UserError(f"{name} is not {'an autoencoder' if role == 'gae' else 'a density'}; these are: {able}")


def check_keys(models: Mapping[str, str], overrides: Overrides) -> None:
    """Refuse unknown keys and metrics, and values of wrong kinds."""
    for part, (owner, keys) in _owners(models).items():
        for key in overrides.get(part, {}):
            if key not in keys["fields"] and key not in keys["aliases"]:
                raise _of_others(key, owner) or unknown_key(key, owner, keys["fields"], keys["aliases"])
        kinds = kinds_of(keys)
        kinds.parse({key: one for key, one in overrides.get(part, {}).items() if key in kinds.model_fields}, owner)
    for keys in overrides.values():
        for key in METRIC_KEYS:
            value = keys.get(key) or ()
            check_metric_names([value] if isinstance(value, str) else cast(Iterable[Any], value))


def _of_others(key: str, owner: str) -> UserError | None:
    """Return the error of a key that a few other models have; None: there are no such, or many."""
    models = known()["models"]
    able = [name for name, keys in models.items() if key in keys["fields"]]
    if not able or len(able) > FEW or owner not in models:
        return None
    return UserError(f"{key}: {owner} has no such key; a key of {', '.join(able)}")


def _owners(models: Mapping[str, str]) -> dict[str, tuple[str, Keys]]:
    """Return the name and keys of the run and of each known model, by part."""
    owners: dict[str, tuple[str, Keys]] = {"run": ("the run", known()["two_step" if "de" in models else "run"])}
    return owners | {
        part: (name, known()["models"][name]) for part, name in models.items() if name in known()["models"]
    }


def check_adjustable(models: Mapping[str, str], overrides: Overrides) -> None:
    """Refuse keys that can't change in a run that exists."""
    for part, (owner, keys) in _owners(models).items():
        refuse_fixed(overrides.get(part, {}), keys["fields"], keys["adjustable"], owner, part)


def check_single_keys(model: str, given: Mapping[str, Any]) -> None:
    """Refuse what `check_keys` refuses, of one model whose keys and the run's are given together."""
    if (own := known()["models"].get(model)) is not None:
        keys = [*known()["run"]["fields"], *own["fields"], *own["aliases"]]
        for key in given:
            if key not in keys:
                hint = nearest(key, keys) or f"; `twostep models {model}` lists them"
                raise _of_others(key, model) or UserError(f"{key}: no such key of {model}{hint}")
        check_keys({"model": model}, split_single(given))


def split_single(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split keys of a single model's run into those of the run and those of the model."""
    of_run = known()["run"]["fields"]
    run = {key: value for key, value in given.items() if key in of_run}
    return {"run": run, "model": {key: value for key, value in given.items() if key not in of_run}}


def check_metric_names(names: Iterable[Any]) -> None:
    """Refuse unknown metrics."""
    for name in names:
        if isinstance(name, str) and name not in known()["metrics"] and not extended("metrics"):
            raise unknown("metric", name, known()["metrics"])


def check_dataset(name: Any, keys: Iterable[str] = ()) -> None:
    """Refuse a file or folder that does not exist, an unknown name, and a key that the dataset of a name lacks."""
    if isinstance(name, str) and (fields := known()["datasets"].get(name)) is not None:
        for key in keys:
            if key not in fields:
                raise unknown_key(key, name, fields) if fields else UserError(f"{key}: {name} has no keys")
        return
    if not isinstance(name, str) or Path(name).exists():
        return
    path = Path(name)
    on_hub = len(path.parts) == 2 and not path.suffix and not name.startswith((".", "~", "/"))
    if path.suffix or (len(path.parts) > 1 and not on_hub):
        raise UserError(f"{path.absolute()}: no such file or folder")
    if not on_hub and not extended("data_sets"):
        raise unknown("dataset", name, known()["datasets"])


def extended(kind: str) -> bool:
    """Whether other packages add to a registry."""
    return bool(entry_points(group=f"twostep.{kind}"))
