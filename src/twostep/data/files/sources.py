"""Where encoded images come from: files, parquet files and the Hugging Face hub, all read as `datasets` tables."""

from __future__ import annotations

import glob
import logging
import re
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from twostep.core.schema import UserError, reason
from twostep.data.files import cache

HUB_TIMEOUT = 5  # seconds
BATCH = 1000
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
VALIDATION = ("valid", "validation")

logger = logging.getLogger("twostep")


class EncodedImage(NamedTuple):
    """An encoded image in a file or in bytes; `where` is its name in messages."""

    where: str
    content: Path | bytes
    label: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows that hold an encoded image each.

    Args:
        where: their name in messages; empty: that of each file.
        rows: a `datasets.Dataset` with a column of images and maybe one of labels.
        labelled: whether each row must have a label.
        folders: folders of the files that rows may name instead of holding an image; None: any.
    """

    where: str
    rows: Any
    labelled: bool = False
    folders: tuple[Path, ...] | None = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[EncodedImage]:
        column = self._image_column()
        columns = [column, *(name for name in ("label",) if name in self.rows.column_names)]
        try:
            rows = self.rows.select_columns(columns).cast_column(column, _datasets().Image(decode=False))
        except Exception as error:  # arrow's errors have no common base
            raise UserError(f"{self.where}: column {column} holds no encoded images ({reason(error)})") from error
        number = 0
        for batch in rows.iter(BATCH):
            for encoded, label in zip(batch[column], self._labels(batch, len(batch[column])), strict=True):
                yield self._image(number, encoded or {"bytes": None, "path": None}, label)
                number += 1

    def _image(self, number: int, encoded: Mapping[str, Any], label: int | None) -> EncodedImage:
        path, content = encoded["path"], encoded["bytes"]
        row = f"{self.where}, row {number}" + (f" ({path})" if path else "")
        if content is not None or path is None:
            return EncodedImage(row, content or b"", label)
        if self.folders is not None and not any(Path(path).resolve().is_relative_to(f.resolve()) for f in self.folders):
            raise UserError(f"{row}: names a file instead of holding an image: save the table with embedded images")
        return EncodedImage(row if self.where else path, Path(path), label)

    def _image_column(self) -> str:
        columns = self.rows.column_names
        named = [column for column in ("image", "img") if column in columns]
        images = [name for name, kind in self.rows.features.items() if isinstance(kind, _datasets().Image)]
        if (self.labelled and "label" not in columns) or not (named or len(images) == 1):
            needed = "the columns image (or img) and label" if self.labelled else "a column image (or img)"
            raise UserError(f"{self.where}: needs {needed}; found: {', '.join(columns)}")
        return (named or images)[0]

    def _labels(self, batch: Mapping[str, Any], count: int) -> Sequence[int | None]:
        if "label" in batch and np.asarray(batch["label"]).dtype.kind in "iu":
            return batch["label"]
        if self.labelled:
            raise UserError(f"{self.where}: column label must hold an integer in every row")
        return [None] * count


Tables = dict[str, list[Table]]


@dataclass(frozen=True)
class ImageSource:
    """A source of encoded images.

    Args:
        facts: returns JSON values that change when the images do, for the cache's key.
        open: gives the tables of `train` and, if there is one, of `test`.
    """

    facts: Callable[[], list[object]]
    open: Callable[[], AbstractContextManager[Tables]]


def from_files(splits: Mapping[str, Sequence[Path]], labels: Mapping[str, Sequence[int]]) -> ImageSource:
    """Return the images of files by split; `labels` has those of labelled splits."""

    @contextmanager
    def open() -> Generator[Tables]:
        yield {split: [Table("", rows(split), split in labels, folders=None)] for split in splits}

    def rows(split: str) -> Any:
        columns = {"image": list(map(str, splits[split]))} | ({"label": labels[split]} if split in labels else {})
        return _datasets().Dataset.from_dict(columns)

    return ImageSource(lambda: _facts(splits), open)


def from_parquet(files: Mapping[str, Sequence[Path]], labelled: bool = False) -> ImageSource:
    """Return the images of parquet files by split; `labelled`: whether each row must have a label."""

    @contextmanager
    def open() -> Generator[Tables]:
        # `datasets` converts the files into a scratch folder: the folder of the data may be read-only
        with _quiet(), tempfile.TemporaryDirectory(prefix="twostep-") as scratch:
            yield {split: [table(path, scratch) for path in paths] for split, paths in files.items()}

    def table(path: Path, scratch: str) -> Table:
        try:
            rows = _datasets().Dataset.from_parquet(glob.escape(str(path)), cache_dir=scratch)
        except Exception as error:  # the errors of arrow and datasets have no common base
            raise UserError(
                f"{path}: damaged or incomplete parquet file, download it again ({reason(error)})"
            ) from error
        return Table(str(path), rows, labelled)

    return ImageSource(lambda: _facts(files), open)


def from_hub(
    hub_id: str,
    instead: str,
    config: str | None = None,
    splits: Mapping[str, Sequence[str]] | None = None,
    labelled: bool = False,
) -> ImageSource:
    """Return the images of a dataset on the hub; once decoded, they are not looked for there again.

    Args:
        hub_id: its id, `owner/name`.
        instead: what to do without it: the start of the message if it can't be loaded.
        config: which of its configurations, if it has several.
        splits: its splits by ours; None: those it has, its validation rows among our training rows.
        labelled: whether each row must have a label.
    """
    where = f"the hub's {hub_id}"

    @contextmanager
    def open() -> Generator[Tables]:
        with _quiet():
            try:
                _require_hub(hub_id)
                logger.info("loading %s", where)
                names, rows = load()
            except Exception as error:  # connections fail in many ways, with one remedy
                raise UserError(f"{instead} and {where} can't be loaded ({reason(error)})") from error
            if "train" not in names:
                raise UserError(f"{where}: none of its splits is called train; found: {', '.join(rows)}")
            folders = _downloads()
            yield {
                split: [Table(f"{where}, {name}", rows[name], labelled, folders) for name in theirs]
                for split, theirs in names.items()
            }

    def load() -> tuple[Mapping[str, Sequence[str]], Mapping[str, Any]]:
        load_dataset = _datasets().load_dataset
        if splits is not None:
            names = [name for split in splits.values() for name in split]
            return splits, {name: load_dataset(hub_id, config, split=name) for name in names}
        rows: Mapping[str, Any] = load_dataset(hub_id, config)
        if len(rows) == 1:
            return {"train": list(rows)}, rows
        train = [name for name in ("train", *VALIDATION) if name in rows] if "train" in rows else []
        found = {"train": train, "test": ["test"] if "test" in rows else []}
        return {split: names for split, names in found.items() if names}, rows

    return ImageSource(lambda: ["hub", hub_id, config], open)


def parquet_files(folder: Path, joining: Sequence[str] = ()) -> dict[str, list[Path]] | None:
    """Return the files `train-*.parquet` and `test-*.parquet` of a folder by split, or None without any.

    Args:
        folder: that holds them.
        joining: other splits whose files are added to the training files.

    Raises:
        UserError: if only one of the two splits is there.
    """
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
    missing = [split for split, found in files.items() if not found]
    if len(missing) == 2:
        return None
    if missing:
        raise UserError(f"{folder}: {missing[0]}-*.parquet is missing: put it there too")
    files["train"] += [path for split in joining for path in sorted(folder.glob(f"{split}-*.parquet"))]
    return files


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of an id on the hub, `owner/name`."""
    return HUB_ID.fullmatch(name) is not None


def _facts(splits: Mapping[str, Sequence[Path]]) -> list[object]:
    return [[split, [_file_facts(path) for path in paths]] for split, paths in splits.items()]


def _file_facts(path: Path) -> tuple[str, int, int]:
    try:
        return cache.file_facts(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error


def _require_hub(hub_id: str) -> None:
    """Ask for a dataset with the user's login: without a network, `datasets` would retry for half a minute."""
    from huggingface_hub import HfApi, constants  # here because it takes a second

    if not constants.HF_HUB_OFFLINE:  # offline, `datasets` reads its own cache at once
        HfApi().dataset_info(hub_id, timeout=HUB_TIMEOUT)


def _downloads() -> tuple[Path, ...]:
    from huggingface_hub import constants

    config = _datasets().config
    return tuple(map(Path, (constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)))


def _datasets() -> Any:
    import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes two seconds

    return datasets


@contextmanager
def _quiet() -> Generator[None]:
    """Keep `datasets` from drawing progress bars and from logging errors that are raised anyway."""
    datasets = _datasets()
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
