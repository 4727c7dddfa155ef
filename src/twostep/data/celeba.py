"""CelebA: 202,599 faces, centre-cropped to a square and resized.

Source: Deep learning face attributes in the wild (Liu et al., 2015, arXiv 1411.7766).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pydantic import Field
from typing_extensions import override

from twostep.core.schema import Frozen, PositiveInt, UserError
from twostep.data.base import DATASETS, DatasetLoader, Source
from twostep.data.files.folders import read_folder
from twostep.data.files.images import Form, read_images
from twostep.data.files.sources import VALIDATION, ImageSource, from_files, from_hub, from_parquet, parquet_files

HUB_ID = "flwrlabs/celeba"
LISTS = ("list_eval_partition.csv", "list_eval_partition.txt")
IMAGES = "img_align_celeba"
SIDE = 64


class CelebAKeys(Frozen):
    """Keys of `celeba`."""

    image_size: PositiveInt = Field(SIDE, description="side of the square images, in pixels")


class CelebA(DatasetLoader):
    """Aligned faces without labels: 182,637 training images (with CelebA's validation split) and 19,962 test images."""

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        side = cast(CelebAKeys, options).image_size
        source = _source(data_root.resolve() / self.name)
        return Source.from_images(read_images(self.name, source, Form(3, side, side)))


def _source(folder: Path) -> ImageSource:
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if lists:
        return _partitioned(lists[0])
    if (folder / IMAGES).is_dir():
        raise UserError(f"{folder}: has {IMAGES}/ but no {LISTS[0]}: put that there too")
    files = parquet_files(folder, joining=VALIDATION)
    if files is not None:
        return from_parquet(files)
    if any((folder / split).is_dir() for split in ("train", "test")):
        return read_folder(folder)
    instead = (
        f"celeba: put {LISTS[0]} and {IMAGES}/, or train-*.parquet and test-*.parquet, or train/ and test/ with "
        f"images, into {folder}: nothing is there"
    )
    return from_hub(HUB_ID, instead, splits={"train": ["train", "valid"], "test": ["test"]})


def _partitioned(listed: Path) -> ImageSource:
    """Return the images of a list: 0 and 1 (training and validation) for training, 2 for test."""
    images = listed.parent / IMAGES
    if not images.is_dir():
        raise UserError(f"{listed}: the images it lists are missing: put them into {images}")
    nested = images / IMAGES
    images = nested if nested.is_dir() else images
    found: dict[str, list[Path]] = {"0": [], "1": [], "2": []}
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words == ["image_id", "partition"]):
            continue
        if len(words) != 2 or words[1] not in found:
            raise UserError(f"{listed}, line {number}: must hold a file name and 0, 1 or 2; found: {line[:60]}")
        found[words[1]].append(images / words[0])
    if not found["0"] or not found["2"]:
        raise UserError(f"{listed}: lists no images for training (0) or none for test (2)")
    return from_files({"train": found["0"] + found["1"], "test": found["2"]}, labels={})


DATASETS.register("celeba")(
    CelebA(
        "celeba",
        (3, SIDE, SIDE),
        "faces; key image_size",
        f"data_root/celeba, else the hub's {HUB_ID}",
        keys=CelebAKeys,
    )
)
