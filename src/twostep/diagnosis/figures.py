"""Figures of a diagnosis: of a dataset, of a model, and of autoencoders over their latent_dim.

All raise `UserError` for a path that can't be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twostep.core.figures import save_figure
from twostep.core.moments import leading_axes
from twostep.diagnosis.dimension.consensus import Dimension
from twostep.diagnosis.model.chart import Chart
from twostep.diagnosis.model.density_decay import DensityDecay
from twostep.diagnosis.model.jacobian_spectrum import COUNTS
from twostep.diagnosis.overfitting.noise_scales import NoiseScaleCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 1e-12  # of the largest singular value
SMALLEST = 1e-4  # nats


def draw_dataset(
    dimension: Dimension,
    noise_scales: NoiseScaleCurve,
    spectrum: Sequence[float],
    latent_dim: int,
    path: Path,
    title: str,
) -> None:
    """Draw noise scales, scale curve and spectrum of a dataset as one PNG."""
    figure, (left, middle, right) = _figure(3)
    _noise_scales(left, noise_scales, latent_dim)
    errors = [[at.value - at.low for at in dimension.curve], [at.high - at.value for at in dimension.curve]]
    values = [at.value for at in dimension.curve]
    middle.errorbar([at.k for at in dimension.curve], values, errors, marker="o", capsize=3)
    middle.axhline(dimension.recommended, color="C1", linewidth=1)
    middle.set(xscale="log", xlabel="neighbours", ylabel="maximum likelihood, uncorrected", title="scale curve")
    middle.set_ylim(bottom=0)
    right.plot(range(1, len(spectrum) + 1), spectrum, ".-")
    right.axvline(latent_dim, color="C1", linewidth=1)
    right.set(yscale="log", xlabel="principal direction", ylabel="std, in units of the data", title="spectrum")
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    save_figure(figure, path)


def draw_run(
    chart: Chart | None, decay: DensityDecay | None, likelihood: Sequence[float], path: Path, title: str = ""
) -> None:
    """Draw the diagnosis of a model as one PNG, with the mean log-likelihood of each epoch, in nats."""
    trained = len(likelihood) > 1
    figure, panels = _figure(2 * (chart is not None) + (decay is not None) + trained)
    if chart is not None:
        _jacobian(next(panels), chart)
        _embeddings(next(panels), chart)
    if decay is not None:
        _decay(next(panels), decay)
    if trained:
        axes = next(panels)
        axes.plot(range(1, len(likelihood) + 1), likelihood, marker=".")
        axes.set(title="likelihood in training", xlabel="epoch", ylabel="nats")
    figure.suptitle(title)
    save_figure(figure, path)


def draw_knee(model: str, sizes: Sequence[int], errors: Sequence[float], knee: int | None, path: Path) -> None:
    """Draw the reconstruction error of a model over its latent_dim as PNG."""
    figure, (axes,) = _figure(1)
    axes.plot(sizes, errors, "o-")
    if knee is not None:
        axes.axvline(knee, color="C1", linewidth=1, label="knee")
        axes.legend(loc="best")
    axes.set(xscale="log", yscale="log", xlabel="latent_dim", ylabel="share of variance left", title=model)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    save_figure(figure, path)


def _figure(count: int) -> tuple[Figure, Iterator[Any]]:
    """Return a figure and its panels, side by side; one without panels has an empty one."""
    from matplotlib.figure import Figure  # imported here because it takes a second

    figure = Figure(figsize=(4.4 * max(1, count), 4.2), dpi=120, layout="constrained")
    return figure, iter(figure.subplots(1, max(1, count), squeeze=False)[0])


def _noise_scales(axes: Any, curve: NoiseScaleCurve, latent_dim: int) -> None:
    scales, resolved = curve.scales, curve.resolved
    axes.set_title("noise scales" if scales else "noise scales: too few rows for any")
    if not scales:  # a logarithmic axis can't be empty
        return
    at = [point.scale for point in scales]
    axes.plot(at, [point.gaussian for point in scales], "--", color="grey", label="Gaussian of the same covariance")
    axes.plot(at, [point.value for point in scales], ":", color="C0")
    at = [point.scale for point in resolved]
    axes.plot(at, [point.value for point in resolved], "o-", color="C0", label="data (dotted: not resolved)")
    axes.fill_between(at, [point.low for point in resolved], [point.high for point in resolved], alpha=0.3)
    axes.axhline(latent_dim, color="C1", linewidth=1, label="recommended")
    top = max(curve.dim if curve.dim <= 2 * latent_dim + 3 else 0, 1.5 * latent_dim)
    axes.set(xscale="log", ylim=(0, 1.1 * top), xlabel="scale of the noise", ylabel="dimension d(s)")
    axes.legend(loc="best", fontsize="small")


def _jacobian(axes: Any, chart: Chart) -> None:
    values = chart.spectrum.values.clamp(min=float(chart.spectrum.values.max()) * LEAST)
    low, middle, high = values.quantile(values.new_tensor([0.05, 0.5, 0.95]), dim=0)
    errors = torch.stack([middle - low, high - middle]).numpy()
    axes.errorbar(range(1, len(middle) + 1), middle.numpy(), errors, fmt="o", capsize=3)
    axes.axhline(COUNTS * float(middle[0]), color="grey", linestyle=":", label="counts above")
    axes.set(yscale="log", title="decoder's Jacobian", xlabel="direction", ylabel="units of data / std of embeddings")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")


def _embeddings(axes: Any, chart: Chart) -> None:
    """Plot data in two directions, coloured by the first direction of the embeddings, so that tears and folds show."""
    one, two = _coordinates(chart.rows.double().flatten(1), 2).T
    style = {"s": 60, "facecolors": "none", "edgecolors": "black"}
    for marked, marker, label in ((chart.injectivity.torn, "o", "torn"), (chart.injectivity.folded, "s", "folded")):
        if bool(marked.any()):
            axes.scatter(one[marked], two[marked], marker=marker, label=label, **style)
    colours = _coordinates(chart.embeddings.double(), 1)[:, 0]
    axes.scatter(one, two, s=4, c=colours.numpy(), label="data, by embedding")
    axes.set(title="data and embeddings", xlabel="first direction", ylabel="second direction")
    axes.legend(loc="best")


def _coordinates(rows: Tensor, count: int) -> Tensor:
    """Return coordinates `(n, count)` of rows `(n, D)` in their first principal directions; 0 beyond the D-th."""
    mean, axes = leading_axes(rows, count)
    return torch.nn.functional.pad((rows - mean) @ axes, (0, count - axes.shape[1]))


def _decay(axes: Any, decay: DensityDecay) -> None:
    for values, label in ((decay.off, "off the data"), (decay.along, "along the data")):
        axes.plot(decay.scales.numpy(), values.where(values > SMALLEST, torch.nan).numpy(), marker=".", label=label)
    axes.axvline(decay.thickness, color="grey", linestyle=":", label="thickness")
    axes.set(xscale="log", yscale="log", title="decay of the log-density", xlabel="distance s", ylabel="nats")
    axes.legend(loc="best")
