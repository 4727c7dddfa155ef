"""CelebA: 202,599 faces, cut from the middle to a square and scaled.

Source: Deep learning face attributes in the wild (Liu et al., 2015, arXiv 1411.7766).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pydantic import Field

from twostep.core.schema import Frozen, PositiveInt, UserError
from twostep.data.base import DATASETS, DatasetLoader, Source
from twostep.data.files.folders import Files, Folder, find
from twostep.data.files.hub import VALIDATION, Hub, Parquet, parquet_files
from twostep.data.files.images import Form, ImageSource, read_images

HUB_ID = "flwrlabs/celeba"
LISTS = ("list_eval_partition.csv", "list_eval_partition.txt")
PICTURES = "img_align_celeba"
SIDE = 64


class CelebAKeys(Frozen):
    """Keys of `celeba`."""

    image_size: PositiveInt = Field(SIDE, description="side of the square pictures, in pixels")


class CelebA(DatasetLoader):
    """Aligned and cropped faces without labels; the set's own validation rows are among those for training."""

    def load(self, data_root: Path, options: Frozen) -> Source:
        """Return 182,637 training and 19,962 test pictures `N x 3 x image_size x image_size`."""
        side = cast(CelebAKeys, options).image_size
        source = _source(data_root.resolve() / self.name)
        return Source.from_images(read_images(self.name, source, Form(3, side, side)))


def _source(folder: Path) -> ImageSource:
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if lists:
        return Folder(_partitioned(lists[0]))
    if (folder / PICTURES).is_dir():
        raise UserError(f"{folder}: has {PICTURES}/ and no {LISTS[0]}: put that there too")
    files = parquet_files(folder, joining=VALIDATION)
    if files is not None:
        return Parquet(files, labelled=False)
    if any((folder / split).is_dir() for split in ("train", "test")):
        return find(folder)
    instead = (
        f"celeba: put {LISTS[0]} and {PICTURES}/, or train-*.parquet and test-*.parquet, or train/ and test/ with "
        f"pictures, into {folder}: nothing is there"
    )
    return Hub(HUB_ID, instead, splits={"train": ["train", "valid"], "test": ["test"]})


def _partitioned(listed: Path) -> dict[str, Files]:
    """Return the pictures of a list: 0 and 1 (training and validation) for training, 2 for test."""
    pictures = listed.parent / PICTURES
    if not pictures.is_dir():
        raise UserError(f"{listed}: the pictures it lists are not there: put them into {pictures}")
    nested = pictures / PICTURES
    pictures = nested if nested.is_dir() else pictures
    found: dict[str, list[Path]] = {"0": [], "1": [], "2": []}
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words == ["image_id", "partition"]):
            continue
        if len(words) != 2 or words[1] not in found:
            raise UserError(f"{listed}, line {number}: must hold a file's name and 0, 1 or 2; found: {line[:60]}")
        found[words[1]].append(pictures / words[0])
    if not found["0"] or not found["2"]:
        raise UserError(f"{listed}: lists no pictures for training (0) or none for test (2)")
    return {"train": Files(found["0"] + found["1"]), "test": Files(found["2"])}


DATASETS.register("celeba")(
    CelebA(
        "celeba",
        (3, SIDE, SIDE),
        "faces; key image_size",
        f"data_root/celeba, else the hub's {HUB_ID}",
        keys=CelebAKeys,
    )
)
