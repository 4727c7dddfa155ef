"""Image datasets known by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from twostep.core.schema import Frozen
from twostep.data.base import DATASETS, DatasetLoader, Source, hold_out
from twostep.data.files.folders import read_folder
from twostep.data.files.images import Form, read_images
from twostep.data.files.sources import ImageSource, from_hub, from_parquet, parquet_files

OOD_PARTNERS = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}


class Digits(DatasetLoader):
    """The 8 x 8 digits of scikit-learn: 1,438 training and 359 test images, the same split for every seed."""

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes a second

        bundle: Any = datasets.load_digits()
        images = torch.as_tensor(bundle.images.astype(np.uint8)).unsqueeze(1)
        labels = torch.as_tensor(bundle.target.astype(np.int64))
        train, test = hold_out(len(images), 5, torch.Generator().manual_seed(0))
        return Source(images[train], images[test], labels[train], labels[test], discrete=True, low=0.0, high=16.0)


@dataclass(frozen=True)
class ImageDataset(DatasetLoader):
    """Labelled uint8 images of one size, from the cache, the files of `data_root/name` or the hub.

    Args:
        hub_id: its id on the hub.
        hub_config: which of its configurations on the hub, if it has several.
    """

    hub_id: str
    hub_config: str | None = None

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        channels, height, width = self.shape
        source = self._source(data_root.resolve() / self.name)
        return Source.from_images(read_images(self.name, source, Form(channels, height, width, exact=True)))

    def _source(self, folder: Path) -> ImageSource:
        files = parquet_files(folder)
        if files is not None:
            return from_parquet(files, labelled=True)
        if any((folder / split).is_dir() for split in ("train", "test")):
            return read_folder(folder, labelled=True)
        instead = (
            f"{self.name}: put train-*.parquet and test-*.parquet, or train/<label>/*.png and test/<label>/*.png, into "
            f"{folder}: nothing is there"
        )
        splits = {split: [split] for split in ("train", "test")}
        return from_hub(self.hub_id, instead, self.hub_config, splits, labelled=True)


DATASETS.register("digits")(
    Digits("digits", (1, 8, 8), "handwritten digits, values 0 to 16", "bundled with scikit-learn")
)
for _name, _shape, _description, *_hub in (
    ("mnist", (1, 28, 28), "handwritten digits", "ylecun/mnist"),
    ("fashion-mnist", (1, 28, 28), "clothes and shoes", "zalando-datasets/fashion_mnist"),
    ("cifar10", (3, 32, 32), "animals and vehicles", "uoft-cs/cifar10"),
    ("svhn", (3, 32, 32), "house numbers", "ufldl-stanford/svhn", "cropped_digits"),
):
    _files = f"data_root/{_name}, else the hub's {_hub[0]}"
    DATASETS.register(_name)(ImageDataset(_name, _shape, _description, _files, *_hub))
