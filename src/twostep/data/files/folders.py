"""Folders of pictures: flat, one folder per label, or `train/` and `test/` of either kind."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twostep.core.schema import UserError
from twostep.data.files import cache
from twostep.data.files.images import Encoded

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
NAMED = "in .png, .jpg, .webp or .bmp files"


@dataclass(frozen=True)
class Files:
    """Pictures in files of their own.

    Args:
        paths: the files, in order.
        labels: a number each; None: they have none.
    """

    paths: Sequence[Path]
    labels: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Encoded]:
        for path, label in zip(self.paths, self.labels or [None] * len(self.paths), strict=True):
            yield Encoded(str(path), path, label)


@dataclass(frozen=True)
class Folder:
    """A set of pictures in files, by `train` and, if there is one, `test`."""

    splits: Mapping[str, Files]

    def facts(self) -> list[object]:
        """Return path, size and time of change of every file of each split.

        Raises:
            UserError: if one is not there.
        """
        return [[split, [_file_facts(path) for path in files.paths]] for split, files in self.splits.items()]

    @contextmanager
    def open(self) -> Generator[dict[str, list[Files]]]:
        """Give the files of each split."""
        yield {split: [files] for split, files in self.splits.items()}


def find(folder: Path) -> Folder:
    """Return the pictures below a folder, sorted by label and name; labels count the names of their folders.

    Hidden files and files with other endings are passed over.

    Raises:
        UserError: if there are none, some lie beside folders of others, or a folder can't be read.
    """
    parts = {split: folder / split for split in ("train", "test") if (folder / split).is_dir()}
    if "test" in parts and "train" not in parts:
        raise UserError(f"{folder}: has a folder test and none called train: put training pictures there")
    found = {split: _labelled(part) for split, part in (parts or {"train": folder}).items()}
    names = sorted({label for files in found.values() for label, _ in files if label})
    numbers = {label: number for number, label in enumerate(names)}
    return Folder(
        {
            split: Files([path for _, path in files], [numbers[label] for label, _ in files] if files[0][0] else None)
            for split, files in found.items()
        }
    )


def _labelled(folder: Path) -> list[tuple[str, Path]]:
    flat: list[tuple[str, Path]] = []
    labelled: list[tuple[str, Path]] = []
    for path in _visible(folder):
        if path.is_dir():
            labelled += [(path.name, inner) for inner in _visible(path) if inner.suffix.lower() in ENDINGS]
        elif path.suffix.lower() in ENDINGS:
            flat.append(("", path))
    if flat and labelled:
        raise UserError(
            f"{folder}: {flat[0][1].name} lies beside the folder {labelled[0][0]}: put every picture into the folder "
            "of its label, or all into one"
        )
    if not flat and not labelled:
        raise UserError(
            f"{folder}: no pictures there: put them, {NAMED}, right into it, into one folder per label, or into train "
            "and test"
        )
    return flat or labelled


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: can't be read ({error.strerror})") from error


def _file_facts(path: Path) -> tuple[str, int, int]:
    try:
        return cache.file_facts(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
