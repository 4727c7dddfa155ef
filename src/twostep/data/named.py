"""Image datasets known by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from twostep.core.schema import Frozen, PositiveInt, UserError
from twostep.data.base import DATASETS, DatasetLoader, NoKeys, Source, hold_out
from twostep.data.files.images import Form, read_images
from twostep.data.files.sources import ImageSource, from_files, from_folder, from_hub, from_parquet, parquet_files

CELEBA_HUB = "flwrlabs/celeba"
CELEBA_LISTS = ("list_eval_partition.csv", "list_eval_partition.txt")
CELEBA_IMAGES = "img_align_celeba"
CELEBA_SIDE = 64

OOD_PARTNERS = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}


class Digits(DatasetLoader):
    """The 8 x 8 digits of scikit-learn: 1,438 training and 359 test images, the same split for every seed."""

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]  # here because it takes a second

        bundle: Any = datasets.load_digits()
        images = torch.as_tensor(bundle.images.astype(np.uint8)).unsqueeze(1)
        labels = torch.as_tensor(bundle.target.astype(np.int64))
        train, test = hold_out(len(images), 0.2, torch.Generator().manual_seed(0))
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
        layouts = "train-*.parquet and test-*.parquet, or train/<label>/*.png and test/<label>/*.png,"
        source = self.source(data_root.resolve() / self.name, layouts, labelled=True)
        return read_images(self.name, source, Form(*self.shape, exact=True))

    def source(self, folder: Path, layouts: str, labelled: bool) -> ImageSource:
        """Return the images of a folder, or else those of the hub; `layouts`: what may lie in the folder."""
        files = parquet_files(folder)
        if files is not None:
            return from_parquet(files, labelled)
        if any((folder / split).is_dir() for split in ("train", "test")):
            return from_folder(folder, labelled)
        splits = ("train", "test") if labelled else None  # svhn has a third, of many images
        instead = f"{self.name}: put {layouts} into {folder}: nothing is there"
        return from_hub(self.hub_id, instead, self.hub_config, splits, labelled)


class CelebAKeys(Frozen):
    """Keys of `celeba`."""

    image_size: PositiveInt = Field(CELEBA_SIDE, description="side of the square images, in pixels")


class CelebA(ImageDataset):
    """CelebA: aligned faces, cropped to a square; 182,637 for training (with its validation split), 19,962 for test.

    Source: Deep learning face attributes in the wild (Liu et al., 2015, arXiv 1411.7766).
    """

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        side, folder = cast(CelebAKeys, options).image_size, data_root.resolve() / self.name
        layouts = (
            f"{CELEBA_LISTS[0]} and {CELEBA_IMAGES}/, or train-*.parquet and test-*.parquet, or train/ and test/ with "
            "images,"
        )
        lists = [folder / name for name in CELEBA_LISTS if (folder / name).is_file()]
        if not lists and (folder / CELEBA_IMAGES).is_dir():
            raise UserError(f"{folder}: has {CELEBA_IMAGES}/ but no {CELEBA_LISTS[0]}: put that there too")
        source = _partitioned(lists[0]) if lists else self.source(folder, layouts, labelled=False)
        return read_images(self.name, source, Form(3, side, side))


def _partitioned(listed: Path) -> ImageSource:
    """Return the images of a list: 0 and 1 (training and validation) for training, 2 for test."""
    images = listed.parent / CELEBA_IMAGES
    if not images.is_dir():
        raise UserError(f"{listed}: the images it lists are missing: put them into {images}")
    nested = images / CELEBA_IMAGES
    images = nested if nested.is_dir() else images
    found: dict[str, list[tuple[Path, None]]] = {"0": [], "1": [], "2": []}
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words == ["image_id", "partition"]):
            continue
        if len(words) != 2 or words[1] not in found:
            raise UserError(f"{listed}, line {number}: must hold a file name and 0, 1 or 2; found: {line[:60]}")
        found[words[1]].append((images / words[0], None))
    if not found["0"] or not found["2"]:
        raise UserError(f"{listed}: lists no images for training (0) or none for test (2)")
    return from_files({"train": found["0"] + found["1"], "test": found["2"]})


DATASETS.register("digits")(
    Digits("digits", (1, 8, 8), "handwritten digits, values 0 to 16", "bundled with scikit-learn")
)
for _kind, _name, _shape, _description, *_hub in (
    (ImageDataset, "mnist", (1, 28, 28), "handwritten digits", "ylecun/mnist"),
    (ImageDataset, "fashion-mnist", (1, 28, 28), "clothes and shoes", "zalando-datasets/fashion_mnist"),
    (ImageDataset, "cifar10", (3, 32, 32), "animals and vehicles", "uoft-cs/cifar10"),
    (ImageDataset, "svhn", (3, 32, 32), "house numbers", "ufldl-stanford/svhn", "cropped_digits"),
    (CelebA, "celeba", (3, CELEBA_SIDE, CELEBA_SIDE), "faces; key image_size", CELEBA_HUB),
):
    _files, _keys = f"data_root/{_name}, else the hub's {_hub[0]}", CelebAKeys if _kind is CelebA else NoKeys
    DATASETS.register(_name)(_kind(_name, _shape, _description, _files, *_hub, keys=_keys))
