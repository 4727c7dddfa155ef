"""Image grids scaled by the range of the data, scatter plots and histograms as files.

Files are written atomically; a path that can't be written is a `UserError`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from twostep.core.files import atomic_write
from twostep.core.schema import DataSpec, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_TILE = 56  # pixels
LONGEST_NAME = 40  # characters in the legend of a figure
BINS = 80


def plain(name: str) -> str:
    """Return a name as figures show it: short, and escaped, as matplotlib reads formulas between dollars."""
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    return shown.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def grid(images: Tensor, spec: DataSpec, columns: int | None = None) -> Tensor:
    """Arrange images `(n, C, H, W)` in units of the data in a grid `(C, height, width)` with values in [0, 1].

    Values out of the data's range are clamped. `columns`: images in a row; None: the square root of their number.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scaled = ((images.detach().float().cpu() - spec.low) / max(spec.high - spec.low, 1e-12)).nan_to_num().clamp(0, 1)
    canvas = torch.ones(channels, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for index, image in enumerate(scaled):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def as_image(canvas: Tensor, tile: int) -> Image.Image:
    """Return a grid `(C, height, width)` as an image, magnified by an integer if its tiles of this height are small."""
    pixels = (canvas * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    factor = max(1, math.ceil(SMALLEST_TILE / tile))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_png(canvas: Tensor, path: Path, tile: int) -> None:
    """Write the image of a grid `(C, height, width)` as PNG."""
    with atomic_write(path) as beside:
        as_image(canvas, tile).save(beside, "png")


def scatter(data: Tensor, samples: Tensor, path: Path) -> None:
    """Plot the first two coordinates of data and samples `(n, D)` on top of each other as PNG."""
    figure, axes = _figure(5, 5)
    for points, label in ((data, "data"), (samples, "samples")):
        first, second = points.detach().float().cpu()[:, :2].unbind(1)
        axes.scatter(first.numpy(), second.numpy(), s=8, alpha=0.6, label=label)
    axes.set(xlabel="coordinate 1", ylabel="coordinate 2")
    axes.legend(loc="best")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a path that ends in .png."""
    if path.suffix != ".png":
        raise UserError(f"{path}: can't be written: give a path that ends in .png")
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png")


def histogram(series: Mapping[str, NDArray[np.float64]], xlabel: str, path: Path) -> None:
    """Plot density histograms of several sets of numbers `(n,)` as PNG.

    The axis covers all but one in 200 of each set at either end; those, and infinities, count in the outermost bins.
    """
    figure, axes = _figure(6, 4)
    draw_histogram(axes, series, xlabel)
    save_figure(figure, path)


def central_range(sets: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the range of the finite values of all sets, but one in 200 of each at either end; 0 to 1 without any."""
    finite = [values[np.isfinite(values)] for values in sets]
    ends = np.array([np.quantile(values, [0.005, 0.995]) for values in finite if len(values)] or [[0.0, 1.0]])
    return float(ends.min()), float(ends.max())


def draw_histogram(axes: Any, series: Mapping[str, NDArray[np.float64]], xlabel: str) -> None:
    """Draw the histograms of `histogram` on existing axes."""
    low, high = central_range(series.values())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for label, values in series.items():
        within = np.nan_to_num(values, nan=low).clip(edges[0], edges[-1])
        axes.hist(within, edges, density=True, alpha=0.6, label=label)
    axes.set(xlabel=xlabel, ylabel="density")
    axes.legend(loc="best")  # explicit, or matplotlib warns if finding the place takes a second


def check_writable(path: Path, spec: DataSpec) -> None:
    """Check that `write_samples` can write such points to a file of this ending."""
    if path.suffix not in (".png", ".npz", ".npy"):
        raise UserError(f"{path}: write to a .png, .csv, .parquet, .npz or .npy file")
    if path.suffix == ".png" and not spec.is_image:
        raise UserError(
            f"{path}: rows of shape {spec.shape} are not images: write to a .csv, .parquet, .npz or .npy file"
        )


def write_samples(samples: Tensor, spec: DataSpec, path: Path) -> None:
    """Write samples `(n, *S)` as a grid (`.png`) or as an array in units of the data (`.npz`, `.npy`)."""
    check_writable(path, spec)
    if path.suffix == ".png":
        save_png(grid(samples, spec), path, spec.shape[1])
        return
    array = samples.detach().cpu().numpy()
    with atomic_write(path) as beside, beside.open("wb") as file:
        if path.suffix == ".npz":
            np.savez(file, samples=array)
        else:
            np.save(file, array)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # imported here because it takes a second

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
