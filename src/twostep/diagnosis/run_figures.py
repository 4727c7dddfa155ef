"""The picture of a diagnosed model: spectrum, data by embedding, falls and training, as far as it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twostep.core.figures import save_figure
from twostep.diagnosis.model.chart import Chart
from twostep.diagnosis.model.density_thickness import Falls
from twostep.diagnosis.model.jacobian_spectrum import COUNTS

WIDTH = 4.5  # inches of a panel
BAND = (0.05, 0.5, 0.95)
LEAST = 1e-12  # of the largest singular value
SEEN = 1e-4  # nats


def draw_run(chart: Chart | None, falls: Falls | None, likelihood: Sequence[float], path: Path) -> None:
    """Write one picture with a panel for each thing that there is.

    Args:
        chart: of the autoencoder.
        falls: of the density.
        likelihood: mean log-likelihood of each epoch, in nats.
        path: of the picture.

    Raises:
        UserError: if it can't be written.
    """
    from matplotlib.figure import Figure

    panels: list[Callable[[Any], None]] = []
    if chart is not None:
        panels += [partial(_spectrum, chart), partial(_data, chart)]
    if falls is not None:
        panels.append(partial(_falls, falls))
    if len(likelihood) > 1:
        panels.append(partial(_likelihood, likelihood))
    figure = Figure(figsize=(WIDTH * max(1, len(panels)), WIDTH), layout="constrained")
    for axes, panel in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
        panel(axes)
    save_figure(figure, path)


def _spectrum(chart: Chart, axes: Any) -> None:
    values = chart.spectrum.values.clamp(min=float(chart.spectrum.values.max()) * LEAST)
    low, middle, high = values.quantile(torch.tensor(BAND, dtype=values.dtype), dim=0)
    ends = torch.stack([middle - low, high - middle]).numpy()
    axes.errorbar(range(1, len(middle) + 1), middle.numpy(), ends, fmt="o", capsize=3)
    axes.axhline(COUNTS * float(middle[0]), color="grey", linestyle=":", label="counts above")
    axes.set(yscale="log", title="decoder's Jacobian", xlabel="direction", ylabel="units of data / std of embeddings")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")


def _data(chart: Chart, axes: Any) -> None:
    """Show data by two directions, coloured by the first of the embeddings, so that cuts and folds are seen."""
    one, two = _principal(chart.rows.double().flatten(1), 2).T
    for marked, shape, label in ((chart.folds.torn, "o", "torn"), (chart.folds.folded, "s", "folded")):
        if bool(marked.any()):
            axes.scatter(
                one[marked], two[marked], s=60, marker=shape, facecolors="none", edgecolors="black", label=label
            )
    colours = _principal(chart.embeddings.double(), 1)[:, 0]
    axes.scatter(one, two, s=4, c=colours.numpy(), label="data, by embedding")
    axes.set(title="data and embeddings", xlabel="first direction", ylabel="second direction")
    axes.legend(loc="best")


def _principal(rows: Tensor, count: int) -> Tensor:
    """Return coordinates `(n, count)` of rows `(n, D)` in their first principal directions; 0 beyond the D-th."""
    rows = rows - rows.mean(0)
    found = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[:count].T
    return torch.nn.functional.pad(found, (0, count - found.shape[1]))


def _falls(falls: Falls, axes: Any) -> None:
    for values, label in ((falls.off, "off the data"), (falls.along, "along the data")):
        axes.plot(falls.scales.numpy(), values.where(values > SEEN, torch.nan).numpy(), marker=".", label=label)
    axes.axvline(falls.thickness, color="grey", linestyle=":", label="thickness")
    axes.set(xscale="log", yscale="log", title="fall of the log-density", xlabel="push s", ylabel="nats")
    axes.legend(loc="best")


def _likelihood(values: Sequence[float], axes: Any) -> None:
    axes.plot(range(1, len(values) + 1), values, marker=".")
    axes.set(title="likelihood in training", xlabel="epoch", ylabel="nats")
