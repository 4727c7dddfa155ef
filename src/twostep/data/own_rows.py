"""A user's own file or folder: pictures or numbers, and all rows of it for a model that is there."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from twostep.core.schema import UserError
from twostep.data.files import folders
from twostep.data.files.arrays import read_array
from twostep.data.files.hub import Parquet
from twostep.data.files.images import PictureSource, Size, read_pictures
from twostep.data.files.tables import column_types


def pictures_at(path: Path) -> PictureSource | None:
    """Return the pictures of a folder or of a `.parquet` file of encoded ones; None: `path` is a file of numbers.

    Raises:
        UserError: for a folder without pictures, a damaged `.parquet` file, or nothing at all.
    """
    if path.is_dir():
        return folders.find(path.resolve())
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".parquet" and any(kind.startswith("struct") for kind in column_types(path)):
        return Parquet({"train": [path.resolve()]}, labelled=False)
    return None


def read_rows(path: Path, image_size: Size | None = None) -> Tensor:
    """Read all rows of one file or folder, `N x *S`, in their order, however few or alike they are.

    Args:
        path: a file of numbers (`.npy`, `.npz` with one array, `.csv`, `.parquet`), a `.parquet` file of encoded
            pictures, or a folder of pictures.
        image_size: height and width that pictures are brought to; None: they must all have the same.

    Raises:
        UserError: if it is missing, damaged, or holds something else than finite numbers in accepted shapes.
    """
    pictures = pictures_at(path)
    if pictures is None:
        return read_array(path)
    arrays = read_pictures(str(path), pictures, size=image_size)
    if "test" in arrays:
        raise UserError(f"{path}: has train and test: give one of the two folders")
    return arrays["train"]
