"""Pictures in tables: parquet files in a folder, and sets of the Hugging Face hub."""

from __future__ import annotations

import glob
import logging
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostep.core.schema import UserError
from twostep.data.files import cache
from twostep.data.files.images import Encoded, reason

HUB_SECONDS = 5
BATCH = 1000
ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
VALIDATION = ("valid", "validation")

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Table:
    """Rows that hold an encoded picture each.

    Args:
        where: what messages call them by.
        rows: a data set of Hugging Face's.
        labelled: whether each row must have a label.
        files: folders in which lie the files that rows may name in place of an image's bytes.
    """

    where: str
    rows: Any
    labelled: bool
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Encoded]:
        picture = self._picture_column()
        columns = [picture, *(column for column in ("label",) if column in self.rows.column_names)]
        try:
            rows = self.rows.select_columns(columns).cast_column(picture, _hugging_face().Image(decode=False))
        except Exception as error:  # arrow's errors for a cast that can't be have no common base
            problem = f"column {picture} does not hold encoded pictures ({reason(error)})"
            raise UserError(f"{self.where}: {problem}") from error
        number = 0
        for batch in rows.iter(BATCH):
            for encoded, label in zip(batch[picture], self._labels(batch, len(batch[picture])), strict=True):
                path = encoded and encoded["path"]
                where = f"{self.where}, row {number} ({path})" if path else f"{self.where}, row {number}"
                yield Encoded(where, self._content(encoded, where), label)
                number += 1

    def _content(self, encoded: Any, where: str) -> Path | bytes:
        encoded = encoded or {"bytes": None, "path": None}
        if encoded["bytes"] is not None or encoded["path"] is None:
            return encoded["bytes"] or b""
        path = Path(encoded["path"]).resolve()
        if not any(path.is_relative_to(folder.resolve()) for folder in self.files):
            raise UserError(f"{where}: names a file in place of an image: save the table with the images in it")
        return path

    def _picture_column(self) -> str:
        columns = self.rows.column_names
        named = [column for column in ("image", "img") if column in columns]
        pictures = [name for name, kind in self.rows.features.items() if isinstance(kind, _hugging_face().Image)]
        if (self.labelled and "label" not in columns) or not (named or len(pictures) == 1):
            needs = "the columns image (or img) and label" if self.labelled else "a column image (or img)"
            raise UserError(f"{self.where}: needs {needs}; found: {', '.join(columns)}")
        return (named or pictures)[0]

    def _labels(self, batch: Mapping[str, Any], count: int) -> Sequence[int | None]:
        if "label" in batch and np.asarray(batch["label"]).dtype.kind in "iu":
            return batch["label"]
        if self.labelled:
            raise UserError(f"{self.where}: column label must hold whole numbers, and none may be missing")
        return [None] * count


@dataclass(frozen=True)
class Parquet:
    """Parquet files, by `train` and `test`.

    Args:
        files: of each split, in order.
        labelled: whether each row must have a label.
    """

    files: Mapping[str, Sequence[Path]]
    labelled: bool

    def facts(self) -> list[object]:
        """Return path, size and time of change of every file."""
        return [[split, [cache.file_facts(path) for path in paths]] for split, paths in self.files.items()]

    @contextmanager
    def open(self) -> Generator[dict[str, list[Table]]]:
        """Give the rows of each file.

        Raises:
            UserError: naming a damaged one.
        """
        # what `datasets` converts the files into goes aside: the folder of the data may be read-only
        with _quiet(), tempfile.TemporaryDirectory(prefix="twostep-") as scratch:
            yield {split: [self._table(path, scratch) for path in paths] for split, paths in self.files.items()}

    def _table(self, path: Path, scratch: str) -> Table:
        try:
            rows = _hugging_face().Dataset.from_parquet(glob.escape(str(path)), cache_dir=scratch)
        except Exception as error:  # arrow's and datasets' errors have no common base
            raise UserError(f"{path}: is not a whole parquet file, get it anew ({reason(error)})") from error
        return Table(str(path), rows, self.labelled)


@dataclass(frozen=True)
class Hub:
    """A set of the hub.

    Args:
        hub_id: its name there, `owner/name`.
        instead: what to do without it, the begin of the message if it can't be loaded.
        config: which of its configurations, where there are several.
        splits: its splits by ours; None: those it has, its validation rows among ours for training.
        labelled: whether each row must have a label.
    """

    hub_id: str
    instead: str
    config: str | None = None
    splits: Mapping[str, Sequence[str]] | None = None
    labelled: bool = False

    def facts(self) -> list[object]:
        """Return the name alone: what is kept of a set of the hub is not looked for there again."""
        return ["hub", self.hub_id, self.config]

    @contextmanager
    def open(self) -> Generator[dict[str, list[Table]]]:
        """Give the rows of each split.

        Raises:
            UserError: if it can't be loaded, or has several splits and none called train.
        """
        where = f"the hub's {self.hub_id}"
        with _quiet():
            try:
                _require_hub(self.hub_id)
                logger.info("loading %s", where)
                names, rows = self._load()
            except Exception as error:  # connections fail in many ways, and the user can mend all of them alike
                raise UserError(f"{self.instead} and {where} can't be loaded ({reason(error)})") from error
            if "train" not in names:
                raise UserError(f"{where}: none of its splits is called train; found: {', '.join(rows)}")
            files = _downloads()
            yield {
                split: [Table(f"{where}, {part}", rows[part], self.labelled, files) for part in parts]
                for split, parts in names.items()
            }

    def _load(self) -> tuple[Mapping[str, Sequence[str]], Mapping[str, Any]]:
        load = _hugging_face().load_dataset
        if self.splits is not None:
            parts = [part for split in self.splits.values() for part in split]
            return self.splits, {part: load(self.hub_id, self.config, split=part) for part in parts}
        rows: Mapping[str, Any] = load(self.hub_id, self.config)
        if len(rows) == 1:
            return {"train": list(rows)}, rows
        train = [part for part in ("train", *VALIDATION) if part in rows] if "train" in rows else []
        names = {"train": train, "test": ["test"] if "test" in rows else []}
        return {split: parts for split, parts in names.items() if parts}, rows


def parquet_files(folder: Path, joining: Sequence[str] = ()) -> dict[str, list[Path]] | None:
    """Return the parquet files of a folder by `train` and `test`, or None where there are none.

    Args:
        folder: that holds `train-*.parquet` and `test-*.parquet`.
        joining: other splits whose files belong to the training rows.

    Raises:
        UserError: if only one of the two is there.
    """
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
    missing = [split for split, found in files.items() if not found]
    if len(missing) == 2:
        return None
    if missing:
        raise UserError(f"{folder}: {missing[0]}-*.parquet is missing: put it there too")
    files["train"] += [path for split in joining for path in sorted(folder.glob(f"{split}-*.parquet"))]
    return files


def is_id(name: str) -> bool:
    """Whether a name is written like one of the hub, `owner/name`."""
    return ID.fullmatch(name) is not None


def _require_hub(hub_id: str) -> None:
    """Ask for a set with the user's login, because `datasets` retries for half a minute where there is no network."""
    from huggingface_hub import HfApi, constants  # here because it takes a second

    if not constants.HF_HUB_OFFLINE:  # then `datasets` reads its own cache at once
        HfApi().dataset_info(hub_id, timeout=HUB_SECONDS)


def _downloads() -> tuple[Path, ...]:
    from huggingface_hub import constants

    config = _hugging_face().config
    return tuple(map(Path, (constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)))


def _hugging_face() -> Any:
    import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes two seconds

    return datasets


@contextmanager
def _quiet() -> Generator[None]:
    """Keep `datasets` from drawing bars and from logging errors that are raised anyway."""
    datasets = _hugging_face()
    verbosity = datasets.logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
