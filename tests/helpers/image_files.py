"""Generated images, and the files that hold them."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def random_images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write(path, encoded, labels=None, column="image", label="label"):
    """Write a parquet file of the hub's schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    items = [{"bytes": item, "path": None} for item in encoded]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    labels = list(range(len(items))) if labels is None else labels
    pyarrow.parquet.write_table(pyarrow.table({column: pyarrow.array(items, kind), label: labels}), path)


def save(path, pixels, **options):
    """Write an image `H x W` or `H x W x 3`, or one of Pillow's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def save_all(folder, every, ending="png"):
    """Write images in order, and return them as the array of a dataset, `N x C x H x W`."""
    for number, pixels in enumerate(every):
        save(folder / f"{number:03}.{ending}", pixels)
    return every.reshape(*every.shape[:3], -1).transpose(0, 3, 1, 2)
