"""Encoded pictures to one uint8 array per split, as they are or brought to one form, kept in the cache.

Into a form, pictures are brought so: a palette becomes colours, what is transparent turns white, a photograph is
turned upright; then the largest middle part of the form's proportions is cut out and scaled bilinearly.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, field_validator
from torch import Tensor

from twostep.core.schema import Frozen, PositiveInt, UserError
from twostep.data.files import cache

GREY = frozenset({"1", "L", "LA"})
PHOTOGRAPHS = frozenset({"JPEG", "MPO", "WEBP"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # those that start no other program
DEEP = ("I", "F")  # modes of more than 8 bits a channel begin so
ORIENTATION = 0x0112
SECONDS_BETWEEN_LINES = 20

logger = logging.getLogger("twostep")

Size = tuple[PositiveInt, PositiveInt]


class ImageKeys(Frozen):
    """Keys of own pictures."""

    image_size: Size | None = Field(None, description="side, or [height, width], that all pictures are brought to")

    @field_validator("image_size", mode="before")
    @classmethod
    def _side_or_sides(cls, value: Any) -> Any:
        if isinstance(value, int):
            return value, value
        if not isinstance(value, list | tuple | None):
            raise ValueError("write a whole number, or [height, width]")
        return value


class Encoded(NamedTuple):
    """One picture in its file or in bytes; `where` is what messages call it by."""

    where: str
    content: Path | bytes
    label: int | None = None


class Pictures(Protocol):
    """Encoded pictures in order; they can be gone through more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Encoded]: ...


class ImageSource(Protocol):
    """Where the pictures of a set come from."""

    def facts(self) -> list[object]:
        """Return what changes when the pictures do, for the cache's key; JSON must be able to hold it."""
        ...

    def open(self) -> AbstractContextManager[Mapping[str, Sequence[Pictures]]]:
        """Give the parts of `train` and, if there is one, of `test`."""
        ...


@dataclass(frozen=True)
class Form:
    """What decoded pictures are like.

    Args:
        channels: 1 or 3.
        height: in pixels.
        width: in pixels.
        exact: refuse pictures that are not like that, rather than bring them to it.
    """

    channels: int
    height: int
    width: int
    exact: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of a picture."""
        return self.channels, self.height, self.width

    def array(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of a picture, `(C, H, W)`.

        Raises:
            UserError: if it is not like that, and must be.
        """
        mode, size = {1: "L", 3: "RGB"}[self.channels], (self.width, self.height)
        if not self.exact:
            picture = _middle(_plain(picture, mode), size).resize(size, Image.Resampling.BILINEAR)
        elif picture.mode != mode or picture.size != size:
            found = f"{picture.width} x {picture.height} {picture.mode}"
            raise UserError(f"the picture is {found}, it should be {self.width} x {self.height} {mode}")
        return np.asarray(picture).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def read_images(
    name: str, source: ImageSource, form: Form | None = None, size: Size | None = None
) -> dict[str, Tensor]:
    """Return the pictures of a source from the cache, or decode them and keep them there.

    Args:
        name: of the set, for messages and the cache's file.
        source: where they come from.
        form: what they must be like; None: as their headers say, brought to `size`.
        size: height and width; None: they must all have the same one.

    Returns:
        `train` and maybe `test`, `N x C x H x W`, uint8, and where all pictures have one, `..._labels`, `N`, int64.

    Raises:
        UserError: naming a picture that is damaged, of another size or not like `form`.
    """
    shape = None if form is None else form.shape
    key = cache.key(name, [*source.facts(), shape, size])
    start = time.perf_counter()
    arrays = cache.load(key)
    if arrays is not None:
        _report(name, arrays, f"read from the cache in {time.perf_counter() - start:.2f} s")
        return arrays
    with source.open() as splits:
        arrays = _decode(name, splits, form or _survey(name, chain(*chain(*splits.values())), size))
    seconds = time.perf_counter() - start
    kept = cache.store(key, arrays)
    _report(name, arrays, f"decoded in {seconds:.1f} s", f"; kept in {kept.parent}" if kept else "")
    return (kept and cache.load(key)) or arrays


def reason(error: Exception) -> str:
    """Return why something failed, in one line."""
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return " ".join(str(cause).split()) or type(cause).__name__


def _survey(name: str, pictures: Iterable[Encoded], size: Size | None) -> Form:
    """Return the form that pictures have by their headers: grey if they all are, of the size they all have."""
    grey, first, wanted = True, "", size
    for encoded in pictures:
        with _opened(encoded) as picture:
            if picture.mode.startswith(DEEP):
                raise UserError(f"has more than 8 bits a channel (mode {picture.mode}): save it with 8")
            grey = grey and picture.mode in GREY
            if size is not None:
                continue
            found = _upright_size(picture)
            if wanted is None:
                first, wanted = encoded.where, found
            elif found != wanted:
                raise UserError(
                    f"the picture is {_times(found)}, that of {first} is {_times(wanted)}: bring all to one size by "
                    "the key image_size, like dataset_kwargs=\"{'image_size': 64}\""
                )
    if wanted is None:
        raise UserError(f"{name}: holds no pictures")
    return Form(1 if grey else 3, *wanted)


def _decode(name: str, splits: Mapping[str, Sequence[Pictures]], form: Form) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    told = time.perf_counter()
    for split, parts in splits.items():
        count = sum(map(len, parts))
        pixels = cache.empty((count, *form.shape))
        labels: list[int | None] = []
        for row, encoded in enumerate(chain(*parts)):
            with _opened(encoded) as picture:
                pixels[row] = form.array(picture)
            labels.append(encoded.label)
            if time.perf_counter() - told > SECONDS_BETWEEN_LINES:
                told = time.perf_counter()
                logger.info("%s: %s of %s %s pictures decoded", name, f"{row + 1:,}", f"{count:,}", split)
        arrays[split] = torch.as_tensor(pixels)
        if None not in labels:
            arrays[f"{split}_labels"] = torch.tensor(labels, dtype=torch.int64)
    return arrays


@contextmanager
def _opened(encoded: Encoded) -> Generator[Image.Image]:
    content = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    Image.init()  # Pillow knows only some formats before
    try:
        with Image.open(content, formats=FORMATS) as picture:
            yield picture
    except UserError as error:
        raise UserError(f"{encoded.where}: {error}") from error
    except Exception as error:  # a damaged picture may raise almost anything in its decoder
        unknown = isinstance(error, UnidentifiedImageError)
        found = "is no picture, or a damaged one" if unknown else f"can't be read ({reason(error)})"
        raise UserError(f"{encoded.where}: {found}: save it anew, or take it away") from error


def _plain(picture: Image.Image, mode: str) -> Image.Image:
    if picture.format in PHOTOGRAPHS:
        picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)


def _middle(picture: Image.Image, size: Size) -> Image.Image:
    # cut first: Pillow's own fit lets what lies beside the cut bleed into its edges
    scale = min(picture.width / size[0], picture.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _upright_size(picture: Image.Image) -> Size:
    turned = picture.format in PHOTOGRAPHS and picture.getexif().get(ORIENTATION, 1) >= 5
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _times(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _report(name: str, arrays: Mapping[str, Tensor], done: str, kept: str = "") -> None:
    count = sum(len(array) for split, array in arrays.items() if not split.endswith("_labels"))
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    shape = "x".join(map(str, arrays["train"].shape[1:]))
    logger.info("%s: %s images %s %s, %.0f MB%s", name, f"{count:,}", shape, done, megabytes, kept)
