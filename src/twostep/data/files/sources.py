"""Where encoded images come from: files, folders, parquet files and the Hugging Face hub.

A folder of images is flat, or has one subfolder per label, or `train/` and `test/` of either kind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from twostep.core.schema import UserError, reason
from twostep.data.files import cache
from twostep.data.files.parquet import damaged, open_parquet

HUB_TIMEOUT = 5  # seconds
BATCH = 1000
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name
VALIDATION = ("valid", "validation")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})

logger = logging.getLogger("twostep")


class EncodedImage(NamedTuple):
    """An encoded image in a file or in bytes; `where` is its name in messages."""

    where: str
    content: Path | bytes
    label: int | None = None


class Table(NamedTuple):
    """A number of images, and what iterates over them."""

    size: int
    images: Callable[[], Iterator[EncodedImage]]

    @classmethod
    def join(cls, tables: Iterable[Table]) -> Table:
        """Return one table with the images of several."""
        all_tables = list(tables)
        size = sum(table.size for table in all_tables)
        return cls(size, lambda: chain.from_iterable(table.images() for table in all_tables))


class ImageSource(NamedTuple):
    """JSON values that change when the images do, for the cache, and what gives those of `train` and maybe `test`.

    `names` are those of the labels, if they have such.
    """

    facts: list[object]
    open: Callable[[], dict[str, Table]]
    names: tuple[str, ...] = ()


def from_files(splits: Mapping[str, Sequence[tuple[Path, int | None]]]) -> ImageSource:
    """Return the images of files, with a label or None, by split."""

    def table(files: Sequence[tuple[Path, int | None]]) -> Table:
        return Table(len(files), lambda: (EncodedImage(str(path), path, label) for path, label in files))

    facts = _facts({split: [path for path, _ in files] for split, files in splits.items()})
    return ImageSource(facts, lambda: {split: table(files) for split, files in splits.items()})


def from_folder(folder: Path, labelled: bool = False) -> ImageSource:
    """Return the images below a folder, sorted by label and name; labels number the sorted names of the subfolders.

    Hidden files and files with other suffixes are skipped. `labelled`: `train/<label>` and `test/<label>` are required.
    """
    splits = {split: folder / split for split in ("train", "test") if (folder / split).is_dir()}
    if "test" in splits and "train" not in splits:
        raise UserError(f"{folder}: has a folder test but none called train: put training images there")
    found = {split: _in_folder(path) for split, path in (splits or {"train": folder}).items()}
    for split in ("train", "test") if labelled else ():
        if split not in found or not found[split][0][0]:
            raise UserError(f"{folder}: {split}/<label>/*.png is missing: put it there too")
    names = sorted({label for images in found.values() for label, _ in images if label})
    numbers = {label: number for number, label in enumerate(names)}
    files = {split: [(path, numbers.get(label)) for label, path in images] for split, images in found.items()}
    return from_files(files)._replace(names=tuple(names))


def _in_folder(folder: Path) -> list[tuple[str, Path]]:
    """Return label, empty for none, and path of each image."""
    flat: list[tuple[str, Path]] = []
    labelled: list[tuple[str, Path]] = []
    for path in _visible(folder):
        if path.is_dir():
            labelled += [(path.name, inner) for inner in _visible(path) if inner.suffix.lower() in SUFFIXES]
        elif path.suffix.lower() in SUFFIXES:
            flat.append(("", path))
    if flat and labelled:
        raise UserError(
            f"{folder}: {flat[0][1].name} lies beside the folder {labelled[0][0]}: put every image into the folder of "
            "its label, or all into one folder"
        )
    if not flat and not labelled:
        raise UserError(
            f"{folder}: no images found: put .png, .jpg, .webp or .bmp files into it, into one subfolder per label, or "
            "into train and test"
        )
    return flat or labelled


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: can't be read ({error.strerror})") from error


def from_parquet(files: Mapping[str, Sequence[Path]], labelled: bool = False) -> ImageSource:
    """Return the images of parquet files by split; `labelled`: whether each row must have a label."""

    def table(path: Path) -> Table:
        file = open_parquet(path)

        def batches(columns: list[str]) -> Iterator[Any]:
            try:
                yield from file.iter_batches(BATCH, columns=columns)
            except Exception as error:  # arrow's errors have no common base
                raise damaged(path, error) from error

        return Table(file.metadata.num_rows, partial(_images, str(path), file.schema_arrow, batches, labelled))

    return ImageSource(_facts(files), lambda: {split: Table.join(map(table, paths)) for split, paths in files.items()})


def from_hub(
    hub_id: str,
    instead: str,
    config: str | None = None,
    splits: Sequence[str] | None = None,
    labelled: bool = False,
) -> ImageSource:
    """Return the images of a dataset on the hub; once decoded, they are not looked for there again.

    A single split is for training, and so are validation rows. If it can't be loaded, the message starts with
    `instead`. Of a dataset with several configurations `config` is loaded, and of its splits `splits`, or else all.
    """
    where = f"the hub's {hub_id}"

    def open() -> dict[str, Table]:
        try:
            found = _load(hub_id, config, splits)
        except Exception as error:  # connections fail in many ways, with one remedy
            raise UserError(f"{instead} and {where} can't be loaded ({reason(error)})") from error
        if len(found) == 1:
            return {"train": table(*next(iter(found.items())))}
        if "train" not in found:
            raise UserError(f"{where}: none of its splits is called train; found: {', '.join(found)}")
        train = Table.join(table(name, found[name]) for name in ("train", *VALIDATION) if name in found)
        return {"train": train} | {name: table(name, found[name]) for name in ("test",) if name in found}

    def table(name: str, rows: Any) -> Table:
        def batches(columns: list[str]) -> Iterator[Any]:
            return rows.select_columns(columns).with_format("arrow").iter(BATCH)

        return Table(
            len(rows), partial(_images, f"{where}, {name}", rows.features.arrow_schema, batches, labelled, _downloads())
        )

    return ImageSource(["hub", hub_id, config], open)


def _load(hub_id: str, config: str | None, splits: Sequence[str] | None) -> Mapping[str, Any]:
    import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because both take seconds
    from huggingface_hub import HfApi, constants

    # asked with the user's login: without a network, `datasets` would retry for half a minute
    if not constants.HF_HUB_OFFLINE:  # offline, it reads its own cache at once
        HfApi().dataset_info(hub_id, timeout=HUB_TIMEOUT)
    logger.info("loading the hub's %s", hub_id)
    load: Any = datasets.load_dataset
    return {split: load(hub_id, config, split=split) for split in splits} if splits else load(hub_id, config)


def _downloads() -> list[Path]:
    from datasets import config  # pyright: ignore[reportMissingTypeStubs]
    from huggingface_hub import constants

    return [Path(one) for one in (constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)]


def _images(
    where: str,
    schema: Any,
    batches: Callable[[list[str]], Iterable[Any]],
    labelled: bool,
    folders: Sequence[Path] = (),
) -> Iterator[EncodedImage]:
    """Yield the images in the rows of an arrow table, which may name files in `folders` only."""
    column, others = _columns(where, {field.name: str(field.type) for field in schema}, labelled)
    number = 0
    for batch in batches([column, *others]):
        values = batch[column].to_pylist()
        labels: list[Any] = batch["label"].to_pylist() if others else [None] * len(values)
        if not all(type(label) is int for label in labels):
            if labelled:
                raise UserError(f"{where}: column label must hold an integer in every row")
            labels = [None] * len(values)
        for value, label in zip(values, labels, strict=True):
            encoded = value if isinstance(value, dict) else {"bytes": value}
            path, content = encoded.get("path"), encoded.get("bytes")
            row = f"{where}, row {number}" + (f" ({path})" if path else "")
            if content is None and path is not None:
                content = Path(path)
                if not any(content.resolve().is_relative_to(folder.resolve()) for folder in folders):
                    raise UserError(
                        f"{row}: names a file instead of holding an image: save the table with embedded images"
                    )
            yield EncodedImage(row, content or b"", label)
            number += 1


def _columns(where: str, kinds: Mapping[str, str], labelled: bool) -> tuple[str, list[str]]:
    """Return the column of images, and that of labels if there is one."""
    labels = [name for name in ("label",) if name in kinds]
    named = [name for name in ("image", "img") if name in kinds]
    images = [name for name, kind in kinds.items() if kind.startswith("struct") and "bytes: " in kind]
    if (labelled and not labels) or not (named or len(images) == 1):
        needed = "the columns image (or img) and label" if labelled else "a column image (or img)"
        raise UserError(f"{where}: needs {needed}; found: {', '.join(kinds)}")
    column = (named or images)[0]
    if not kinds[column].startswith(("struct", "binary", "large_binary")):
        raise UserError(f"{where}: column {column} holds no encoded images ({kinds[column]})")
    return column, labels


def parquet_files(folder: Path) -> dict[str, list[Path]] | None:
    """Return the files `train-*.parquet` and `test-*.parquet` of a folder by split, or None without any.

    Files of validation rows are added to the training files.
    """
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
    missing = [split for split, found in files.items() if not found]
    if len(missing) == 2:
        return None
    if missing:
        raise UserError(f"{folder}: {missing[0]}-*.parquet is missing: put it there too")
    files["train"] += [path for split in VALIDATION for path in sorted(folder.glob(f"{split}-*.parquet"))]
    return files


def _facts(splits: Mapping[str, Sequence[Path]]) -> list[object]:
    try:
        return [[split, [cache.file_facts(path) for path in paths]] for split, paths in splits.items()]
    except OSError as error:
        raise UserError(f"{error.filename}: can't be read ({error.strerror})") from error
