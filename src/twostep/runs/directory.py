"""A run's directory: its configs, checkpoints, curves, images and results."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from twostep.core import checkpoint
from twostep.core.checkpoint import CheckpointError, State
from twostep.core.files import (
    WriteError,
    move_into_place,
    read_json,
    refuse_links,
    temporary_folder,
    to_json,
    validated,
    write_json,
)
from twostep.core.schema import DataSpec, UserError
from twostep.runs.config import Settings
from twostep.runs.environment import ENVIRONMENT, environment
from twostep.runs.results import ResultFiles
from twostep.runs.summary import require_run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Tag = Literal["latest", "best_valid"]
TAGS: tuple[Tag, ...] = ("latest", "best_valid")

PLACES = ("dataset", "data_root")  # keys that say where data are

logger = logging.getLogger("twostep")


class Run(ResultFiles):
    """The directory of one run, open for reading and writing: configs, facts of the data and their fingerprint."""

    def __init__(self, path: Path, settings: Settings, spec: DataSpec, digest: str = "") -> None:
        super().__init__(path)
        self.settings, self.spec, self.digest = settings, spec, digest
        self._writer: SummaryWriter | None = None
        self._lock: FileLock | None = None

    @classmethod
    def create(
        cls,
        settings: Settings,
        spec: DataSpec,
        digest: str = "",
        ranks: int = 1,
        to: Path | None = None,
        **more: Any,
    ) -> Self:
        """Make a new directory `to`, or one under `logdir_root` named by the time, that holds configs and environment.

        It is filled under a hidden name and renamed last, so that no run is ever seen without its configs. Of `more`
        values, each is stored as a JSON file of its name.

        Raises:
            UserError: if the directory can't be made.
        """
        root = settings.run.logdir_root if to is None else to.absolute().parent
        files = {
            **settings.files(),
            "data.json": {**spec.model_dump(mode="json"), "sha256": digest},
            "environment.json": environment(settings.run.seed, ranks),
            **{f"{name}.json": values for name, values in more.items()},
        }
        name = datetime.now().strftime("%b%d_%H-%M-%S")
        places = [to] if to else [root / name, *(root / f"{name}_{number}" for number in range(1, 1000))]
        try:
            with temporary_folder(root) as folder:
                (folder / "checkpoints").mkdir()
                for file, values in files.items():
                    (folder / file).write_text(to_json(values))
                path = move_into_place(folder, places)
        except OSError as error:
            place = f"logdir_root={root}: can't make a run directory there" if to is None else f"{to}: can't be made"
            raise UserError(f"{place} ({error.strerror})") from None
        return cls(path, settings, spec, digest)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a directory that `create` made.

        Raises:
            UserError: if it is none, if its configs are damaged or of another program, or if it holds a symbolic link,
                by which a stranger's run would have files outside of it read or written.
        """
        files = require_run(path)
        facts = read_json(path / "data.json")
        digest = validated(facts.pop("sha256", ""), TypeAdapter(str), path / "data.json")
        return cls(path, Settings.from_files(files), DataSpec.parse(facts, "data.json"), digest)

    def claim(self) -> None:
        """Keep other processes from writing here until `close`, and remove what a killed process left behind.

        The lock is the system's: it ends with its process.

        Raises:
            UserError: if something here can't be written, or another process writes here.
        """
        self._check_writable(self.path)
        lock = FileLock(self.path / "lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.path}: another process writes into it; wait until it ends, or stop it") from None
        except (OSError, NotImplementedError) as error:
            logger.warning("%s: can't be locked (%s); start no second process on it", self.path, error)
        self._lock = lock
        refuse_links(self.path)
        self._check_writable(*self.path.rglob("*"))
        for left in [*self.path.rglob(".*.tmp")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    @staticmethod
    def _check_writable(*paths: Path) -> None:
        fixed = next((path for path in paths if not os.access(path, os.W_OK)), None)
        if fixed is not None:
            raise UserError(f"{fixed}: can't be written, and this command writes into the run's directory; use a copy")

    def note_place(self, keys: Mapping[str, Any]) -> None:
        """Note where the data are now, by the key that says it; a run that can't be written stays as it is."""
        with suppress(UserError):
            write_json(self.path / "place.json", {key: str(value) for key, value in keys.items() if key in PLACES})

    def read_place(self) -> dict[str, Any]:
        """Return where the data are now, as keys of the run, if it was noted and is there."""
        path = self.path / "place.json"
        noted = validated(read_json(path), TypeAdapter(dict[str, str]), path) if path.is_file() else {}
        found = {key: value for key, value in noted.items() if key in PLACES and Path(value).exists()}
        return {key: Path(value) if key == "data_root" else value for key, value in found.items()}

    def record(self, ranks: int) -> None:
        """Add the command that resumes this run, and what it runs on, to `environment.json`."""
        values = self.read_environment()
        values.setdefault("later", []).append(environment(self.settings.run.seed, ranks))
        write_json(self.path / "environment.json", values)

    def add_training_time(self, seconds: float) -> None:
        """Add the time of a session of training to `training_seconds` in `environment.json`."""
        values = self.read_environment()
        total = values.get("training_seconds")
        values["training_seconds"] = seconds + (total if isinstance(total, int | float) else 0)
        write_json(self.path / "environment.json", values)

    def keep_limits(self, max_epochs: Mapping[str, int]) -> None:
        """Store in the configs of models how many epochs they are trained for from now on."""
        stored = Run.open(self.path).settings
        models = {
            name: config.model_copy(update={"max_epochs": max_epochs.get(name, config.max_epochs)})
            for name, config in stored.models.items()
        }
        for file, values in replace(stored, models=models).files().items():
            if values != stored.files()[file]:
                write_json(self.path / file, values)

    def save(self, tag: Tag, state: State) -> None:
        """Write a checkpoint, with the run's configs and the fingerprint of its data, in one atomic step.

        Raises:
            UserError: if the disk is full or can't be written.
        """
        tied = {"settings": self.settings.files(), "data_sha256": self.digest}
        checkpoint.save(self._checkpoint(tag), State(state.tensors, {**state.values, **tied}))

    def load(self, best_first: bool = False) -> State:
        """Read the first whole checkpoint, `latest` or `best_valid`, with a warning for one before it that is not.

        Raises:
            CheckpointError: if there is none.
            UserError: if it was written with other configs or data than the run's, naming what differs.
        """
        problems: list[str] = []
        for tag in TAGS[::-1] if best_first else TAGS:
            try:
                state = checkpoint.load(self._checkpoint(tag))
            except CheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logger.warning("%s; taking %s instead", problem, self._checkpoint(tag).name)
            files = state.values.pop("settings", None)  # an earlier version has none
            digest = state.values.pop("data_sha256", "")
            differ = [] if files is None else self.settings.differences(files, self.spec.is_image)
            if digest and self.digest and digest != self.digest:
                differ.append("other data")
            if differ:
                raise UserError(
                    f"{self._checkpoint(tag)}: written with other settings than the run's configs say: "
                    f"{'; '.join(differ)}; put the configs or the checkpoint back, or start a new run"
                )
            return state
        raise CheckpointError("; ".join(problems) + "; start a new run without --load-dir")

    def has_checkpoint(self, *tags: Tag) -> bool:
        """Whether training has saved any of these yet; without tags, anything."""
        return any(self._checkpoint(tag).exists() for tag in tags or TAGS)

    @contextmanager
    def curves(self, resuming_from: int | None = None) -> Generator[SummaryWriter]:
        """Open the curves of tensorboard; what an interrupted session wrote from the step of resuming on is dropped."""
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                first = not any(self.path.glob("events.*"))
                self._writer = SummaryWriter(str(self.path), purge_step=resuming_from)
                for name, values in self.settings.files().items() if first else ():
                    self._writer.add_text(name, "    " + json.dumps(values, indent=2).replace("\n", "\n    "), 0)
            yield self._writer
        except OSError as error:
            raise WriteError(f"{self.path}: its curves can't be written ({error.strerror or error})") from None

    def read_environment(self) -> dict[str, Any]:
        """Return command, versions, seed and machine of the run's start; `later` lists those that resumed it."""
        path = self.path / "environment.json"
        values = read_json(path)
        validated(values, ENVIRONMENT, path)
        return values

    def close(self) -> None:
        """Flush the curves, and let another process write here."""
        if self._writer is not None:
            with suppress(OSError):  # of a full disk, which later writes report
                self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _checkpoint(self, tag: Tag) -> Path:
        return self.path / "checkpoints" / f"{tag}.safetensors"
