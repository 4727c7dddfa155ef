"""Decode images into one uint8 array per split, kept in the cache.

Unless the form must be exact, images are converted: palettes to colours, transparency to white, photographs upright by
their EXIF orientation; then the largest centre crop of the target's aspect ratio is resized bilinearly.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, field_validator
from torch import Tensor

from twostep.core.schema import Frozen, PositiveInt, UserError, reason
from twostep.data.base import Source
from twostep.data.files import cache
from twostep.data.files.sources import EncodedImage, ImageSource, Table

GRAY = frozenset({"1", "L", "LA"})
WITH_EXIF = frozenset({"JPEG", "MPO", "WEBP"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # decoded without an external program
DEEP = ("I", "F")  # first letter of modes with more than 8 bits per channel
ORIENTATION = 0x0112
SECONDS_BETWEEN_REPORTS = 20

logger = logging.getLogger("twostep")

Size = tuple[PositiveInt, PositiveInt]


class ImageKeys(Frozen):
    """Keys of image folders and image tables."""

    image_size: Size | None = Field(None, description="side, or [height, width], to which all images are resized")

    @field_validator("image_size", mode="before")
    @classmethod
    def _side_or_sides(cls, value: Any) -> Any:
        if isinstance(value, int):
            return value, value
        if not isinstance(value, list | tuple | None):
            raise ValueError("write an integer, or [height, width]")
        return value


class Form(NamedTuple):
    """Shape of decoded images, with 1 or 3 channels; `exact`: refuse images of another form, don't convert them."""

    channels: int
    height: int
    width: int
    exact: bool = False

    def decode(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of an image, `(C, H, W)`."""
        mode, size = {1: "L", 3: "RGB"}[self.channels], (self.width, self.height)
        if not self.exact:
            image = _centre_crop(_convert(image, mode), size).resize(size, Image.Resampling.BILINEAR)
        elif image.mode != mode or image.size != size:
            found = f"{image.width} x {image.height} {image.mode}"
            raise UserError(f"the image is {found}, it should be {self.width} x {self.height} {mode}")
        return np.asarray(image).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def read_images(name: str, source: ImageSource, form: Form | None = None, size: Size | None = None) -> Source:
    """Return the images of a source from the cache, or decode them and keep them there.

    Without a `form` their headers give it, and they are resized to `size` or must all have the same size.
    """
    start, done = time.perf_counter(), "read from the cache"
    key = cache.key(name, [*source.facts, form and form[:3], size])
    arrays, kept = cache.load(key), None
    if arrays is None:
        arrays, done = _decode(name, source.open(), form, size), "decoded"
        kept = cache.store(key, arrays)
        arrays = (kept and cache.load(key)) or arrays
    found = Source(**arrays, discrete=True, low=0.0, high=255.0, columns=None, label_names=source.names)
    count = len(found.train) + (0 if found.test is None else len(found.test))
    shape = "x".join(map(str, found.train.shape[1:]))
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    done = f"{count:,} images {shape} {done} in {time.perf_counter() - start:.2f} s, {megabytes:.0f} MB"
    logger.info("%s: %s%s", name, done, f"; kept in {kept.parent}" if kept else "")
    return found


def _survey(name: str, images: Iterable[EncodedImage], size: Size | None) -> Form:
    """Return the form that the headers of images give: grayscale if all are, with their common size."""
    gray, first, wanted = True, "", size
    for encoded in images:
        with _opened(encoded) as image:
            if image.mode.startswith(DEEP):
                raise UserError(f"has more than 8 bits per channel (mode {image.mode}): save it with 8")
            gray = gray and image.mode in GRAY
            if size is not None:
                continue
            rotated = image.format in WITH_EXIF and image.getexif().get(ORIENTATION, 1) >= 5
            found = (image.width, image.height) if rotated else (image.height, image.width)
            if wanted is None:
                first, wanted = encoded.where, found
            elif found != wanted:
                raise UserError(
                    f"the image is {_times(found)}, that of {first} is {_times(wanted)}: resize all to one size by the "
                    "key image_size, like --dataset-kwargs image_size=64"
                )
    if wanted is None:
        raise UserError(f"{name}: contains no images")
    return Form(1 if gray else 3, *wanted)


def _decode(name: str, splits: Mapping[str, Table], form: Form | None, size: Size | None) -> dict[str, Tensor]:
    """Return `train` and maybe `test`, and `..._labels` where every image has one, as `Source` has them."""
    form = form or _survey(name, chain.from_iterable(table.images() for table in splits.values()), size)
    arrays: dict[str, Tensor] = {}
    reported = time.perf_counter()
    for split, table in splits.items():
        pixels = cache.empty((table.size, *form[:3]))
        labels: list[int | None] = []
        for row, encoded in enumerate(table.images()):
            with _opened(encoded) as image:
                pixels[row] = form.decode(image)
            labels.append(encoded.label)
            if time.perf_counter() - reported > SECONDS_BETWEEN_REPORTS:
                reported = time.perf_counter()
                logger.info("%s: %s of %s %s images decoded", name, f"{row + 1:,}", f"{table.size:,}", split)
        arrays[split] = torch.as_tensor(pixels)
        if None not in labels:
            arrays[f"{split}_labels"] = torch.tensor(labels, dtype=torch.int64)
    return arrays


@contextmanager
def _opened(encoded: EncodedImage) -> Generator[Image.Image]:
    content = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    Image.init()  # registers all formats
    try:
        with Image.open(content, formats=FORMATS) as image:
            yield image
    except UserError as error:
        raise UserError(f"{encoded.where}: {error}") from error
    except Exception as error:  # decoders raise almost anything for damaged images
        unknown = isinstance(error, UnidentifiedImageError)
        found = "not an image, or damaged" if unknown else f"can't be read ({reason(error)})"
        raise UserError(f"{encoded.where}: {found}: save it again, or remove it") from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.format in WITH_EXIF:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _centre_crop(image: Image.Image, size: Size) -> Image.Image:
    # cropped before resizing: with Pillow's own fit, pixels outside the crop would bleed into its edges
    scale = min(image.width / size[0], image.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _times(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
