"""Callbacks that send a run's curves, keys and test results to Weights & Biases or MLflow (key `loggers`, `--logger`).

Where they write to is what their own environment variables say (`WANDB_MODE`, `WANDB_DIR`, `MLFLOW_TRACKING_URI`, ...).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from typing_extensions import override

from twostep.core.files import read_json, write_json
from twostep.core.result import Result
from twostep.core.schema import UserError, reason
from twostep.experiment.progress import Series
from twostep.training.trainer import Trainer

PROJECT = "twostep"  # name of the project of wandb, and of the experiment of mlflow
LONGEST = 500  # characters of a key's value, which mlflow limits


class ResultLogger(Series):
    """Sends test results too, and finite values alone, to a service; it ends after the test."""

    name: str

    _is_open = False

    @abstractmethod
    def open(self, keys: Mapping[str, Any]) -> None:
        """Begin or go on, with the run's keys by name."""

    @abstractmethod
    def finish(self) -> None:
        """Send what is left, and end."""

    @override
    def begin(self, trainer: Trainer) -> None:
        self._open()

    def test(self, results: Mapping[str, Mapping[str, Result]]) -> None:
        """Send the results of the test by component, and end."""
        self._open()
        self.send({f"{part}/test/{name}": one.value for part, found in results.items() for name, one in found.items()})
        self.conclude()

    def conclude(self) -> None:
        """End, if it was begun."""
        if self._is_open:
            self.finish()
            self._is_open = False

    def _open(self) -> None:
        if self._is_open:
            return
        files = self.run.settings.files()
        keys = {f"{file.removesuffix('.json')}/{key}": one for file, of in files.items() for key, one in of.items()}
        try:
            self.open(keys)
        except Exception as error:  # of the service: no network, no account
            raise UserError(f"--logger {self.name}: {reason(error)}") from None
        self._is_open = True

    @override
    def send(self, values: Mapping[str, float]) -> None:
        if finite := {name: float(value) for name, value in values.items() if math.isfinite(value)}:
            super().send(finite)


class WandbLogger(ResultLogger):
    """Sends them to Weights & Biases."""

    name = "wandb"

    @override
    def open(self, keys: Mapping[str, Any]) -> None:
        import wandb

        identity = hashlib.sha256(json.dumps([self.run.path.name, self.run.read_environment()["started"]]).encode())
        self._service = wandb.init(
            project=PROJECT,
            name=self.run.path.name,
            id=identity.hexdigest()[:16],
            resume="allow",
            config=dict(keys),
            settings=wandb.Settings(silent=True),
        )

    @override
    def write(self, values: Mapping[str, float], step: int) -> None:
        self._service.log(dict(values), step=step)

    @override
    def finish(self) -> None:
        self._service.finish()


class MlflowLogger(ResultLogger):
    """Sends them to MLflow; `mlflow.json` in the run's directory keeps the id of its run there."""

    name = "mlflow"

    @override
    def open(self, keys: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client, file = MlflowClient(), self.run.path / "mlflow.json"
        if file.is_file():
            self._id = str(read_json(file)["run_id"])
            self._client.update_run(self._id, "RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        place = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(place, run_name=self.run.path.name).info.run_id
        write_json(file, {"run_id": self._id})
        shown = [Param(key.replace("/", "."), str(value)[:LONGEST]) for key, value in keys.items()]
        self._client.log_batch(self._id, params=shown)

    @override
    def write(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    @override
    def finish(self) -> None:
        self._client.set_terminated(self._id)


LOGGERS: dict[str, type[ResultLogger]] = {one.name: one for one in (WandbLogger, MlflowLogger)}


def require_loggers(names: Iterable[str]) -> None:
    """Refuse loggers whose packages are not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--logger {name}: its package is missing: pip install 'twostep[{name}]'")
