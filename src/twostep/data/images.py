"""Picture data sets by name: parquet files, folders of pictures or the hub, decoded once into one tensor."""

from __future__ import annotations

import glob
import io
import logging
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from twostep.data import cache
from twostep.data.base import DATASETS, DatasetLoader, Source, cut
from twostep.schema import Frozen, UserError

PATTERNS = ("{split}-*.parquet", "{split}/*/*.png")
HUB_SECONDS = 5
BATCH = 1000

logger = logging.getLogger("twostep")


class Digits(DatasetLoader):
    """The small digits that come with scikit-learn; the test fifth is the same for every seed."""

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Return 1,438 training and 359 test pictures."""
        bundle = _bundled_digits()
        pictures = torch.as_tensor(bundle.images.astype(np.uint8)).unsqueeze(1)
        labels = torch.as_tensor(bundle.target.astype(np.int64))
        train, test = cut(len(pictures), 5, torch.Generator().manual_seed(0))
        return Source(pictures[train], pictures[test], labels[train], labels[test], discrete=True, low=0.0, high=16.0)


@dataclass(frozen=True)
class PictureSet(DatasetLoader):
    """A set of uint8 pictures, read with Hugging Face `datasets` and kept decoded in the cache.

    Args:
        hub_id: its name on the hub.
        hub_config: which of its configurations on the hub, where there are several.
    """

    hub_id: str
    hub_config: str | None = None

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Return the pictures `N x C x H x W` and labels, from the cache, the files of `data_root/name` or the hub."""
        folder = data_root.resolve() / self.name
        files = _find(folder)
        if files is None:
            facts: list[object] = ["hub", self.hub_id, self.hub_config]
        else:
            facts = [cache.file_facts(path) for split in files.values() for path in split]
        key = cache.key(self.name, facts)
        start = time.perf_counter()
        arrays = cache.load(key)
        if arrays is None:
            arrays = self._decode(folder, files)
            seconds = time.perf_counter() - start
            kept = cache.store(key, arrays)
            self._report(arrays, f"decoded in {seconds:.1f} s", f"; kept in {kept.parent}" if kept else "")
        else:
            self._report(arrays, f"read from the cache in {time.perf_counter() - start:.2f} s", "")
        return Source(
            arrays["train"],
            arrays["test"],
            arrays["train_labels"],
            arrays["test_labels"],
            discrete=True,
            low=0.0,
            high=255.0,
        )

    def _decode(self, folder: Path, files: dict[str, list[Path]] | None) -> dict[str, Tensor]:
        arrays: dict[str, Tensor] = {}
        # what `datasets` converts the files into goes aside: the folder of the data may be read-only
        with _quiet(), tempfile.TemporaryDirectory(prefix="twostep-") as scratch:
            for split in ("train", "test"):
                if files is None:
                    parts = self._from_hub(split, folder)
                elif files[split][0].suffix == ".parquet":
                    parts = [_from_parquet(path, scratch) for path in files[split]]
                else:
                    parts = [_from_pictures(folder, split, scratch)]
                arrays[split], arrays[f"{split}_labels"] = _decode(parts, self.shape)
        return arrays

    def _from_hub(self, split: str, folder: Path) -> list[Part]:
        where = f"the hub's {self.hub_id}"
        try:
            _require_hub(self.hub_id)
            logger.info("%s: nothing in %s; loading the %s split of %s", self.name, folder, split, where)
            return [Part(where, _hugging_face().load_dataset(self.hub_id, self.hub_config, split=split))]
        except Exception as error:  # connections fail in many ways, and the user can mend all of them alike
            raise UserError(
                f"{self.name}: put train-*.parquet and test-*.parquet, or train/<label>/*.png and test/<label>/*.png, "
                f"into {folder}: nothing is there and {where} can't be loaded ({_reason(error)})"
            ) from error

    def _report(self, arrays: dict[str, Tensor], done: str, kept: str) -> None:
        count = len(arrays["train"]) + len(arrays["test"])
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        shape = "x".join(map(str, self.shape))
        logger.info("%s: %s images %s %s, %.0f MB%s", self.name, f"{count:,}", shape, done, megabytes, kept)


@dataclass(frozen=True)
class Part:
    """Rows that are still encoded, and the name that messages call them by."""

    where: str
    rows: Any


def _find(folder: Path) -> dict[str, list[Path]] | None:
    for pattern in PATTERNS:
        files = {split: sorted(folder.glob(pattern.format(split=split))) for split in ("train", "test")}
        missing = [pattern.format(split=split) for split, found in files.items() if not found]
        if not missing:
            return files
        if len(missing) == 1:
            raise UserError(f"{folder}: {missing[0]} is missing: put it there too")
    return None


def _from_parquet(path: Path, scratch: str) -> Part:
    try:
        return Part(str(path), _hugging_face().Dataset.from_parquet(glob.escape(str(path)), cache_dir=scratch))
    except Exception as error:  # arrow's and datasets' errors have no common base
        raise UserError(f"{path}: is not a whole parquet file, get it anew ({_reason(error)})") from error


def _from_pictures(folder: Path, split: str, scratch: str) -> Part:
    pattern = f"{glob.escape(str(folder))}/{split}/*/*.png"
    files = {"train": [pattern]}
    load = _hugging_face().load_dataset
    rows = load("imagefolder", data_files=files, split="train", drop_labels=False, cache_dir=scratch)
    return Part(str(folder / split), rows)


def _require_hub(hub_id: str) -> None:
    from huggingface_hub import constants

    # the hub's own client retries for half a minute where there is no network; offline, it reads its own cache at once
    if not constants.HF_HUB_OFFLINE:
        urlopen(f"{constants.ENDPOINT}/api/datasets/{hub_id}", timeout=HUB_SECONDS).close()


def _decode(parts: Sequence[Part], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    count = sum(len(part.rows) for part in parts)
    pixels = np.empty((count, *shape), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    done = 0
    for part in parts:
        for row, (encoded, label) in enumerate(_pairs(part)):
            try:
                pixels[done] = _picture(encoded, shape)
            except Exception as error:  # a damaged picture may raise almost anything in its decoder
                path = encoded and encoded["path"]
                place = f"row {row} ({path})" if path else f"row {row}"
                raise UserError(f"{part.where}, {place}: {_reason(error)}") from error
            labels[done] = label
            done += 1
    return torch.as_tensor(pixels), torch.as_tensor(labels)


def _pairs(part: Part) -> Iterator[tuple[Any, int]]:
    columns = part.rows.column_names
    picture = next((column for column in ("image", "img") if column in columns), None)
    if picture is None or "label" not in columns:
        raise UserError(f"{part.where}: needs the columns image (or img) and label; found: {', '.join(columns)}")
    try:
        rows = part.rows.select_columns([picture, "label"]).cast_column(picture, _hugging_face().Image(decode=False))
    except Exception as error:  # arrow's errors for a cast that can't be have no common base
        raise UserError(f"{part.where}: column {picture} does not hold encoded pictures ({_reason(error)})") from error
    for batch in rows.iter(BATCH):
        if np.asarray(batch["label"]).dtype.kind not in "iu":
            raise UserError(f"{part.where}: column label must hold whole numbers, and none may be missing")
        yield from zip(batch[picture], batch["label"], strict=True)


def _picture(encoded: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    with Image.open(encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"])) as picture:
        if picture.mode != mode or picture.size != (width, height):
            found = f"{picture.width} x {picture.height} {picture.mode}"
            raise UserError(f"the picture is {found}, it should be {width} x {height} {mode}")
        return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split()) or type(cause).__name__


def _bundled_digits() -> Any:
    from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes a second

    return datasets.load_digits()  # pyright: ignore[reportUnknownVariableType]


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


def _file(loader: DatasetLoader) -> None:
    DATASETS.register(loader.name)(loader)


def _picture_set(name: str, shape: tuple[int, ...], description: str, hub_id: str, config: str | None = None) -> None:
    _file(PictureSet(name, shape, description, f"data_root/{name}, else the hub's {hub_id}", hub_id, config))


_file(Digits("digits", (1, 8, 8), "handwritten digits, values 0 to 16", "bundled with scikit-learn"))
_picture_set("mnist", (1, 28, 28), "handwritten digits", "ylecun/mnist")
_picture_set("fashion-mnist", (1, 28, 28), "clothes and shoes", "zalando-datasets/fashion_mnist")
_picture_set("cifar10", (3, 32, 32), "animals and vehicles", "uoft-cs/cifar10")
_picture_set("svhn", (3, 32, 32), "house numbers", "ufldl-stanford/svhn", "cropped_digits")

OOD_PARTNERS = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}
