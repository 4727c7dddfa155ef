"""Config files: keys of a run and its models in YAML, JSON or TOML, or the files that a run has written.

A file holds what flags would: `dataset`, `gae_model`, `de_model`, sections `gae_config`, `de_config` and
`shared_config`; of one model `model`, `is_gae` and its keys. Keys of the run may also stand outside of sections.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from twostep.cli.flags import RENAMED
from twostep.core.schema import UserError, reason
from twostep.runs.summary import CONFIG_FILES, require_run

SECTIONS = ("gae_config", "de_config", "shared_config")
BY_FLAG = ("pretrained_gae", "freeze_pretrained_gae")  # keys that flags set
ENDINGS = (".json", ".yaml", ".yml", ".toml")
LARGEST = 2**20  # bytes
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # which YAML 1.1 takes for a string


class FromFiles(NamedTuple):
    """What config files hold: names of models by flag, and keys by section (`config` of one model)."""

    names: dict[str, Any]
    keys: dict[str, dict[str, Any]]


def read_config_files(paths: Sequence[Path], two_step: bool) -> FromFiles:
    """Return what files hold; later files win.

    Raises:
        UserError: for a file that can't be read, or is for the other command.
    """
    found = FromFiles({}, {section: {} for section in (SECTIONS if two_step else ("config",))})
    for path in paths:
        values = _read(path, two_step)
        wrong = [
            key for key in values if key in (("model", "is_gae", "config") if two_step else ("gae_model", *SECTIONS))
        ]
        if wrong:
            other = "train-single" if two_step else "train"
            raise UserError(f"{path}: {wrong[0]} is for `twostep {other}`: use that, or another file")
        for key, value in values.items():
            _take(found, path, key, value, two_step)
    for keys in found.keys.values():
        for key in BY_FLAG:
            keys.pop(key, None)
    return found


def to_config_file(names: Mapping[str, str], files: Mapping[str, Mapping[str, Any]], is_gae: bool) -> dict[str, Any]:
    """Return the configs of a run (`Settings.files`) as a config file holds them."""
    if "shared_config.json" not in files:
        (values,) = files.values()
        return {"model": values["name"], "is_gae": is_gae, "config": {k: v for k, v in values.items() if k != "name"}}
    of_models = {f"{part}_model": name for part, name in names.items()}
    sections = {_section(name): {k: v for k, v in values.items() if k != "name"} for name, values in files.items()}
    return {**of_models, **sections}


def _take(found: FromFiles, path: Path, key: str, value: Any, two_step: bool) -> None:
    """Put a value where it belongs."""
    if key in ("gae_model", "de_model", "model", "is_gae"):
        found.names[key] = value
    elif key in found.keys:
        if not isinstance(value, Mapping):
            raise UserError(f"{path}: {key}: write keys and values below it")
        section = dict(cast(Mapping[str, Any], value))
        if "name" in section:
            found.names[f"{key.removesuffix('_config')}_model" if two_step else "model"] = section.pop("name")
        found.keys[key] |= section
    elif key == "name" and not two_step:
        found.names["model"] = value
    elif two_step and key in ("latent_dim", "lr"):
        for section in ("gae_config", "de_config") if key == "lr" else ("gae_config",):
            found.keys[section][key] = value
    else:
        found.keys["shared_config" if two_step else "config"][RENAMED.get(key, key)] = value


def _read(path: Path, two_step: bool) -> dict[str, Any]:
    if path.is_dir():
        files = require_run(path)
        if two_step != ("shared_config.json" in files):
            other = "train-single" if two_step else "train"
            raise UserError(f"{path}: a run of `twostep {other}`: use that, or another run")
        if two_step:
            return {_section(name): values for name, values in files.items()}
        ((name, values),) = files.items()
        return {**values, "is_gae": name == "gae_config.json"}
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: give a .yaml, .json or .toml file, or the directory of a run")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: too large for a config file")
        values = _parsed(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({reason(error)})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: write keys and values, like `dataset: digits`")
    values = cast(dict[str, Any], values)
    return {_section(path.name): values} if two_step and path.name in CONFIG_FILES else values


def _section(file: str) -> str:
    return file.removesuffix(".json")


def _parsed(path: Path, text: str) -> Any:
    ending = path.suffix.lower()
    try:
        if ending == ".json":
            return json.loads(text)
        if ending == ".toml":
            return tomllib.loads(text)
        import yaml

        try:
            return _with_numbers(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid {ending[1:].upper()} ({reason(error)})") from None


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_numbers(one) for key, one in cast(dict[Any, Any], value).items()}
    if isinstance(value, list):
        return [_with_numbers(one) for one in cast(list[Any], value)]
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value
