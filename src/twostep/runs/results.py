"""The files of results in a run's directory: `metrics/test.json`, `metrics/history.json`, evaluations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from twostep.core.files import WriteError, move_into_place, read_json, temporary_folder, validated, write_json
from twostep.core.result import Result
from twostep.core.schema import UserError

RESULTS = TypeAdapter(dict[str, dict[str, Result]])
HISTORY = TypeAdapter(dict[str, list[dict[str, dict[str, float]]]])
EVALUATION = re.compile(r"evaluation-(\d{1,9})")


class ResultFiles:
    """The results in a run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_metrics(self, name: str, results: Mapping[str, Mapping[str, Result]], weights: str) -> Path:
        """Write results by model and metric to `metrics/<name>.json`, with the fingerprint of the measured weights.

        Other metrics of the same weights are kept.
        """
        path = self.path / "metrics" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        before = read_json(path) if path.is_file() else {}
        kept = self.read_metrics(name) if before.get("weights") == weights else {}
        values = {
            model: {key: asdict(result) for key, result in {**kept.get(model, {}), **found}.items()}
            for model, found in results.items()
        }
        write_json(path, {"weights": weights, **values})
        return path

    def read_metrics(self, name: str) -> dict[str, dict[str, Result]]:
        """Read what `write_metrics` wrote; nothing if it has not."""
        path = self.path / "metrics" / f"{name}.json"
        values = read_json(path) if path.is_file() else {}
        values.pop("weights", None)
        return validated(values, RESULTS, path)

    def add_evaluation(
        self,
        results: Mapping[str, Result],
        weights: str,
        asked: Mapping[str, Any],
        write_scores: Callable[[Path], object] | None = None,
    ) -> Path:
        """Write results to `metrics/evaluation-001.json`, or 002 and so on, and return its path.

        `weights` is the fingerprint of the weights that were measured, and `asked` what determines the results:
        component, seed, keys. `write_scores` fills the folder `ood/evaluation-001` of the same number.

        Raises:
            UserError: if the disk is full or can't be written.
        """
        values = {"weights": weights, **asked, "results": {key: asdict(one) for key, one in results.items()}}
        if write_scores is None:
            return self._write_evaluation(values)
        scores = self.path / "ood"
        try:
            with temporary_folder(scores) as folder:
                write_scores(folder)
                path = self._write_evaluation(values)
                move_into_place(folder, [scores / path.stem])
        except OSError as error:
            raise WriteError(f"{scores}: can't be written ({error.strerror or error})") from None
        return path

    def _write_evaluation(self, values: Mapping[str, Any]) -> Path:
        """Write to the first number above all that exist; of several processes that do so, each gets its own."""
        folders = (self.path / "metrics", self.path / "ood")
        names = [EVALUATION.fullmatch(path.stem) for folder in folders for path in folder.glob("evaluation-*")]
        number = max((int(name[1]) for name in names if name), default=0)
        while True:
            number += 1
            path = self.path / "metrics" / f"evaluation-{number:03d}.json"
            with suppress(FileExistsError):
                write_json(path, values, new=True)
                return path

    def write_history(self, history: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Write the losses and validation metrics of each epoch of each model to `metrics/history.json`.

        A longer history with the same beginning is kept: the test of a run that was taken back to its best epoch.
        """
        path = self.path / "metrics" / "history.json"
        path.parent.mkdir(exist_ok=True)
        with suppress(UserError):  # a damaged file is replaced
            before = self.read_history()
            if before and all(str(before.get(part, [])[: len(new)]) == str(list(new)) for part, new in history.items()):
                return
        write_json(path, history)

    def read_history(self) -> dict[str, list[dict[str, dict[str, float]]]]:
        """Read what `write_history` wrote; nothing if it has not."""
        path = self.path / "metrics" / "history.json"
        return validated(read_json(path) if path.is_file() else {}, HISTORY, path)
