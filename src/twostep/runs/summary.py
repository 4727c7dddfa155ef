"""What the files of a run say, read without its models and so without torch: data, keys, state, results."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from twostep.core.files import read_json, refuse_links, validated
from twostep.core.result import Result
from twostep.core.schema import UserError
from twostep.runs.results import EVALUATION, ResultFiles

CONFIG_FILES = ("config.json", "gae_config.json", "de_config.json", "shared_config.json")
LAYOUTS = ({"config.json"}, {"gae_config.json"}, {"gae_config.json", "de_config.json", "shared_config.json"})
PARTS = {"config.json": "model", "gae_config.json": "gae", "de_config.json": "de", "shared_config.json": "run"}
LONGEST_HEADER = 2**28  # bytes of a checkpoint's header
RESULT = TypeAdapter(dict[str, Result])
Results = Mapping[str, Mapping[str, Result]]
"""By component, then by metric."""


def require_run(path: Path) -> dict[str, dict[str, Any]]:
    """Return the config files of a run by name.

    Raises:
        UserError: if the directory does not exist, is not that of a run, has damaged configs, or holds a symbolic
            link, by which a stranger's run would have files outside of it read or written.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; give the directory of a run, like runs/Apr26_09-38-37")
    refuse_links(path)
    files = {name: read_json(path / name) for name in CONFIG_FILES if (path / name).is_file()}
    if set(files) not in LAYOUTS:
        found = f"of its config files it has only {', '.join(files)}" if files else "its config files are not there"
        raise UserError(f"{path}: not the directory of a run: {found}")
    return files


@dataclass(frozen=True)
class RunSummary:
    """The files of a run: `configs` by file name."""

    path: Path
    configs: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> RunSummary:
        """Read a run; errors are those of `require_run`."""
        return cls(path, require_run(path))

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def models(self) -> dict[str, str]:
        """Name of each model by component."""
        return {PARTS[file]: str(keys["name"]) for file, keys in self.configs.items() if "name" in keys}

    @property
    def title(self) -> str:
        """The models, in words."""
        return " + ".join(self.models.values())

    @cached_property
    def data(self) -> dict[str, Any]:
        """Facts of the data."""
        return read_json(self.path / "data.json")

    @property
    def dataset(self) -> str:
        """Name of the data, without the folders before a file."""
        return Path(str(self.data.get("name", "?"))).name

    @property
    def keys(self) -> dict[str, Any]:
        """Every key with its value, as `gae latent_dim`; those of the run have no prefix."""
        found: dict[str, Any] = {}
        for file, keys in self.configs.items():
            prefix = "" if PARTS[file] == "run" or len(self.configs) == 1 else f"{PARTS[file]} "
            found |= {f"{prefix}{key}": value for key, value in keys.items()}
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Command, versions and machine; empty if the file is missing or damaged."""
        with suppress(UserError):
            return read_json(self.path / "environment.json")
        return {}

    @property
    def minutes(self) -> float | None:
        """Minutes of training of all sessions; None of runs of earlier versions."""
        seconds = self.environment.get("training_seconds")
        return seconds / 60 if isinstance(seconds, int | float) else None

    @cached_property
    def test(self) -> Results:
        """Results of the test, empty before it."""
        return ResultFiles(self.path).read_metrics("test")

    @cached_property
    def evaluations(self) -> dict[str, tuple[dict[str, Any], Mapping[str, Result]]]:
        """What was asked and found by each later evaluation, by name of its file."""
        found: dict[str, tuple[dict[str, Any], Mapping[str, Result]]] = {}
        for path in sorted((self.path / "metrics").glob("evaluation-*.json")):
            if EVALUATION.fullmatch(path.stem):
                values = read_json(path)
                found[path.stem] = values, validated(values.pop("results", {}), RESULT, path)
        return found

    def results(self) -> Iterator[tuple[str, str, Result]]:
        """Yield component, metric and result of the test and then of later evaluations."""
        for part, results in self.test.items():
            yield from ((part, name, one) for name, one in results.items())
        for asked, results in self.evaluations.values():
            yield from ((str(asked.get("part", "model")), name, one) for name, one in results.items())

    @property
    def tested(self) -> bool:
        """Whether it has results, of its test or of a later evaluation."""
        return any(True for _ in self.results())

    @cached_property
    def epochs(self) -> dict[str, tuple[int, int]]:
        """Epochs done and allowed, by component, as the latest checkpoint says."""
        done = self._checkpoint_values()
        return {
            part: (int(done[f"{part}.epochs_done"]), int(self.configs[file].get("max_epochs", 0)))
            for file, part in PARTS.items()
            if file in self.configs
            for part in ((part, "model") if len(self.configs) == 1 else (part,))
            if f"{part}.epochs_done" in done
        }

    @property
    def state(self) -> str:
        """What the run has come to, in a word or two."""
        if self._is_locked():
            return "running"
        if self.test:
            return "tested"
        epochs = self.epochs
        return f"stopped at epoch {sum(done for done, _ in epochs.values())}" if epochs else "not trained"

    def headline(self) -> dict[str, Result]:
        """Return the two or three figures of the whole model that count most, by metric."""
        *_, whole = self.test.values() if self.test else [{}]
        part = [*self.test][-1] if self.test else None
        for asked, results in self.evaluations.values():
            whole = {**results, **whole} if asked.get("part") == part else whole
        wanted = ("log_likelihood", "explained_variance", "fid", "fd", "fd_reconstruction")
        found = {name: whole[name] for name in wanted if name in whole}
        aurocs = {name: one for _, name, one in self.results() if "_ood_" in name and name.endswith("auroc")}
        best = {name: one for name, one in aurocs.items() if name.startswith("two_part")} or aurocs
        return found | dict(list(best.items())[:1])

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values, for `--json`."""
        return {
            "path": str(self.path),
            "data": {key: value for key, value in self.data.items() if key != "sha256"},
            "models": self.models,
            "state": self.state,
            "started": self.environment.get("started"),
            "minutes": self.minutes,
            "epochs": {part: {"done": done, "of": most} for part, (done, most) in self.epochs.items()},
            "keys": self.keys,
            "test": self.test,
            "evaluations": {name: {**asked, "results": found} for name, (asked, found) in self.evaluations.items()},
        }

    def _is_locked(self) -> bool:
        lock = self.path / "lock"
        if not lock.is_file():
            return False
        try:
            with FileLock(lock, blocking=False):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False

    def _checkpoint_values(self) -> dict[str, Any]:
        """Return the counters in the header of the latest checkpoint, without reading or checking its tensors."""
        try:
            with (self.path / "checkpoints" / "latest.safetensors").open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header: Any = json.loads(file.read(min(size, LONGEST_HEADER)))
                return cast(dict[str, Any], json.loads(header["__metadata__"]["values"]))
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return {}


def runs_below(root: Path) -> list[RunSummary]:
    """Return the runs in a folder, latest first."""
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found: list[RunSummary] = []
    for path in folders:
        with suppress(UserError):
            found.append(RunSummary.read(path))
    return sorted(found, key=lambda run: (str(run.environment.get("started", "")), run.name), reverse=True)
