"""Trained models in a folder or on the Hugging Face hub: weights, configs, results, a model card.

The folder has the layout of a run, so that `twostep sample`, `score` and `encode` take it as they take a run. It holds
no data, no optimiser and no path of this machine, and nothing in it is executed when it is loaded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from twostep.core.checkpoint import State
from twostep.core.files import move_into_place, read_json, temporary_folder, to_json, without_folders
from twostep.core.schema import DataSpec, UserError, reason
from twostep.data.files.sources import HUB_ID
from twostep.experiment.load import load_module
from twostep.experiment.model_card import model_card
from twostep.models.base import MODELS, Model, ModelConfig
from twostep.models.external import ExternalAutoencoder, ExternalConfig
from twostep.models.two_step import TwoStep
from twostep.runs.config import Settings
from twostep.runs.directory import Run
from twostep.runs.environment import environment

KEPT = ("data.json", "dimension.json", "calibration.safetensors", "metrics/*.json", "samples/*.png")
"""What a folder has of a run, besides configs, weights and the facts of its training."""
FACTS = ("commit", "python", "platform", "versions", "seed", "threads", "ranks", "cuda", "started", "training_seconds")
PATTERNS = ["*.json", "*.safetensors", "*.png", "*.md"]

T = TypeVar("T")


def save_pretrained(model: Any, folder: str | Path) -> Path:
    """Save a trained model in a new folder, for `from_pretrained`, and return its path.

    Args:
        model: the directory of a run, or a fitted estimator (`TwoStepDensity`, ...).
        folder: must not exist, or be empty.

    Raises:
        UserError: if the folder has files, can't be written, or the model is not trained or has no configs.
    """
    return _saved(model, Path(folder), str(folder))


def _saved(model: Any, folder: Path, where: str) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists: give a new folder, or an empty one")
    try:
        with temporary_folder(folder.absolute().parent) as beside:
            _write(model, beside)
            (beside / "README.md").write_text(model_card(Run.open(beside), where), encoding="utf-8")
            if folder.is_dir():
                folder.rmdir()
            return move_into_place(beside, [folder])
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror or error})") from None


def from_pretrained(
    source: str | Path, *, revision: str | None = None, token: str | None = None, gae: Any = None
) -> Model | TwoStep:
    """Return a trained model in eval mode, on the CPU, from a folder or from the hub.

    Args:
        source: folder of `save_pretrained`, directory of a run, or `owner/name` on the hub.
        revision: branch, tag or commit on the hub.
        token: of the hub, for private models; None: the one of `hf auth login`.
        gae: encoder and decoder of a model with one's own, see `load_module`.

    Raises:
        UserError: if there is no such model, it can't be reached, or its files are damaged.
    """
    path = Path(source)
    if path.is_dir() or not HUB_ID.fullmatch(str(source)):
        return load_module(path, gae=gae)

    def download() -> str:
        return huggingface_hub.snapshot_download(str(source), revision=revision, token=token, allow_patterns=PATTERNS)

    cached = _reached(download, f"{source}: no such folder, and not found on the hub")
    with tempfile.TemporaryDirectory() as copy:
        plain = shutil.copytree(cached, Path(copy) / "run")  # the cache holds links, which no run does
        return load_module(plain, gae=gae)


def push_to_hub(
    model: Any,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload a model of twostep",
) -> str:
    """Upload a trained model with its model card to the hub, and return its address.

    Args:
        model: as of `save_pretrained`.
        repo_id: `owner/name`, which is made if it does not exist.
        private: whether a new one is.
        token: of the hub; None: the one of `hf auth login`.
        message: of the commit.

    Raises:
        UserError: as `save_pretrained` does, or if the hub can't be reached or refuses.
    """
    if not HUB_ID.fullmatch(repo_id):
        raise UserError(f"{repo_id}: write owner/name")

    def upload() -> str:
        api = huggingface_hub.HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        return str(url)

    with tempfile.TemporaryDirectory() as parent:
        folder = _saved(model, Path(parent) / "model", repo_id)
        return _reached(upload, f"{repo_id}: can't be uploaded")


def _reached(action: Callable[[], T], problem: str) -> T:
    try:
        return action()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{problem} ({reason(error)})") from None


def _write(model: Any, folder: Path) -> None:
    """Fill a folder with a model's files."""
    if isinstance(model, str | Path):
        run = Run.open(Path(model))
        _write_model(folder, run.settings, run.spec, run.digest, run.load(), run.read_environment())
        for pattern in KEPT:
            for file in run.path.glob(pattern):
                _copy(file, folder / file.relative_to(run.path))
    elif hasattr(model, "settings_") and hasattr(model, "model_"):
        module, settings = cast("Model | TwoStep", model.model_), cast(Settings, model.settings_)
        parts = {"gae": module.gae, "de": module.de} if isinstance(module, TwoStep) else {"model": module}
        state = State.join({name: State.join({"model": State(one.state_dict())}) for name, one in parts.items()})
        state.values |= {f"{name}.steps_done": 1 for name in parts}  # it is trained
        settings = replace(settings, models={name: _named(settings.models[name], one) for name, one in parts.items()})
        _write_model(folder, settings, model.spec_, "", state, environment(settings.run.seed, 1))
    else:
        raise UserError(
            f"{type(model).__name__}: give the directory of a run or a fitted estimator; a model of your own "
            "networks has no configs to be made from again: save its state_dict() as safetensors"
        )


def _named(config: ModelConfig, model: Model) -> ModelConfig:
    """Return a config by which a model can be made again: of an object that was given, only where it is external."""
    if config.name in MODELS:
        return config
    if isinstance(model, ExternalAutoencoder):
        return ExternalConfig.model_validate({"trainable": model.trainable})
    raise UserError(
        f"{type(model).__name__}: was given as an object, which no folder can make again: save its state_dict() as "
        "safetensors, or give the model by its name"
    )


def _write_model(
    folder: Path, settings: Settings, spec: DataSpec, digest: str, state: State, facts: Mapping[str, Any]
) -> None:
    files = without_folders(settings.files())
    kept = {**facts, "command": without_folders(facts.get("command", []))}
    spec_file = {**without_folders(spec.model_dump(mode="json")), "sha256": digest}
    more = {"data.json": spec_file, "environment.json": {key: kept[key] for key in ("command", *FACTS) if key in kept}}
    (folder / "checkpoints").mkdir()
    for name, values in {**files, **more}.items():
        (folder / name).write_text(to_json(values), encoding="utf-8")
    here = Run.open(folder)
    here.save("latest", _weights(state))


def _weights(state: State) -> State:
    """Return the best weights of each model, or its last ones, without optimisers."""
    kept: dict[str, Tensor] = {}
    for wanted in ("model", "best"):
        for key, value in state.tensors.items():
            part, kind, name = key.split(".", 2)
            if kind == wanted:
                kept[f"{part}.model.{name}"] = value
    return State(kept, state.values)


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    if file.suffix == ".json":
        if not to.exists():
            to.write_text(to_json(without_folders(read_json(file))), encoding="utf-8")
    else:
        shutil.copyfile(file, to)
