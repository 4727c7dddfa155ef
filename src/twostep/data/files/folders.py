"""Folders of images: flat, one subfolder per label, or `train/` and `test/` of either kind."""

from __future__ import annotations

from pathlib import Path

from twostep.core.schema import UserError
from twostep.data.files.sources import EncodedImage, ImageSource, from_files

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def read_folder(folder: Path, labelled: bool = False) -> ImageSource:
    """Return the images below a folder, sorted by label and name; labels number the sorted names of the subfolders.

    Hidden files and files with other suffixes are skipped. `labelled`: `train/<label>` and `test/<label>` are required.
    """
    splits = {split: folder / split for split in ("train", "test") if (folder / split).is_dir()}
    if "test" in splits and "train" not in splits:
        raise UserError(f"{folder}: has a folder test but none called train: put training images there")
    found = {split: _images(path) for split, path in (splits or {"train": folder}).items()}
    for split in ("train", "test") if labelled else ():
        if split not in found or not found[split][0][0]:
            raise UserError(f"{folder}: {split}/<label>/*.png is missing: put it there too")
    names = sorted({label for images in found.values() for label, _ in images if label})
    numbers = {label: number for number, label in enumerate(names)}
    return from_files(
        {
            split: [EncodedImage(str(path), path, numbers.get(label)) for label, path in images]
            for split, images in found.items()
        }
    )


def _images(folder: Path) -> list[tuple[str, Path]]:
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
