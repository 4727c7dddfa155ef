"""Picture data sets by name: parquet files, folders of pictures or the hub, decoded once into one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostep.core.schema import Frozen, UserError
from twostep.data.base import DATASETS, DatasetLoader, Source, hold_out
from twostep.data.files.folders import find
from twostep.data.files.hub import Hub, Parquet, parquet_files
from twostep.data.files.images import Form, ImageSource, read_images


class Digits(DatasetLoader):
    """The small digits that come with scikit-learn; the test fifth is the same for every seed."""

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Return 1,438 training and 359 test pictures."""
        bundle = _bundled_digits()
        pictures = torch.as_tensor(bundle.images.astype(np.uint8)).unsqueeze(1)
        labels = torch.as_tensor(bundle.target.astype(np.int64))
        train, test = hold_out(len(pictures), 5, torch.Generator().manual_seed(0))
        return Source(pictures[train], pictures[test], labels[train], labels[test], discrete=True, low=0.0, high=16.0)


@dataclass(frozen=True)
class ImageDataset(DatasetLoader):
    """A set of uint8 pictures of one size, with labels, kept decoded in the cache.

    Args:
        hub_id: its name on the hub.
        hub_config: which of its configurations on the hub, where there are several.
    """

    hub_id: str
    hub_config: str | None = None

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Return the pictures `N x C x H x W` and labels, from the cache, the files of `data_root/name` or the hub."""
        source = self._source(data_root.resolve() / self.name)
        channels, height, width = self.shape
        return Source.from_images(read_images(self.name, source, Form(channels, height, width, exact=True)))

    def _source(self, folder: Path) -> ImageSource:
        files = parquet_files(folder)
        if files is not None:
            return Parquet(files, labelled=True)
        if any((folder / split).is_dir() for split in ("train", "test")):
            return _labelled(folder)
        instead = (
            f"{self.name}: put train-*.parquet and test-*.parquet, or train/<label>/*.png and test/<label>/*.png, into "
            f"{folder}: nothing is there"
        )
        splits = {split: [split] for split in ("train", "test")}
        return Hub(self.hub_id, instead, self.hub_config, splits, labelled=True)


def _labelled(folder: Path) -> ImageSource:
    pictures = find(folder)
    for split in ("train", "test"):
        if split not in pictures.splits or pictures.splits[split].labels is None:
            raise UserError(f"{folder}: {split}/<label>/*.png is missing: put it there too")
    return pictures


def _bundled_digits() -> Any:
    from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes a second

    return datasets.load_digits()  # pyright: ignore[reportUnknownVariableType]


def _file(loader: DatasetLoader) -> None:
    DATASETS.register(loader.name)(loader)


def _picture_set(name: str, shape: tuple[int, ...], description: str, hub_id: str, config: str | None = None) -> None:
    _file(ImageDataset(name, shape, description, f"data_root/{name}, else the hub's {hub_id}", hub_id, config))


_file(Digits("digits", (1, 8, 8), "handwritten digits, values 0 to 16", "bundled with scikit-learn"))
_picture_set("mnist", (1, 28, 28), "handwritten digits", "ylecun/mnist")
_picture_set("fashion-mnist", (1, 28, 28), "clothes and shoes", "zalando-datasets/fashion_mnist")
_picture_set("cifar10", (3, 32, 32), "animals and vehicles", "uoft-cs/cifar10")
_picture_set("svhn", (3, 32, 32), "house numbers", "ufldl-stanford/svhn", "cropped_digits")

OOD_PARTNERS = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}
