"""Figures of a diagnosis: of a dataset, of a model, and of autoencoders over their latent_dim.

All raise `UserError` for a path that can't be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twostep.core.figures import save_figure
from twostep.core.moments import leading_axes
from twostep.diagnosis.dimension.consensus import Dimension
from twostep.diagnosis.model.chart import Chart
from twostep.diagnosis.model.density_decay import DensityDecay
from twostep.diagnosis.model.jacobian_spectrum import COUNTS
from twostep.diagnosis.overfitting.noise_scales import NoiseScaleCurve

BAND = (0.05, 0.5, 0.95)
LEAST = 1e-12  # of the largest singular value
SMALLEST = 1e-4  # nats

Panel = Callable[[Any], None]


def draw_dataset(
    dimension: Dimension,
    noise_scales: NoiseScaleCurve,
    spectrum: Sequence[float],
    latent_dim: int,
    path: Path,
    title: str,
) -> None:
    """Draw noise scales, scale curve and spectrum of a dataset as one PNG."""
    panels = (
        partial(_noise_scales, noise_scales, latent_dim),
        partial(_scale_curve, dimension),
        partial(_spectrum, spectrum, latent_dim),
    )
    _draw(panels, path, title)


def draw_run(chart: Chart | None, decay: DensityDecay | None, likelihood: Sequence[float], path: Path) -> None:
    """Draw the diagnosis of a model as one PNG, with the mean log-likelihood of each epoch, in nats."""
    panels: list[Panel] = []
    if chart is not None:
        panels += [partial(_jacobian, chart), partial(_embeddings, chart)]
    if decay is not None:
        panels.append(partial(_decay, decay))
    if len(likelihood) > 1:
        panels.append(partial(_likelihood, likelihood))
    _draw(panels, path)


def draw_knee(model: str, sizes: Sequence[int], errors: Sequence[float], knee: int | None, path: Path) -> None:
    """Draw the reconstruction error of a model over its latent_dim as PNG."""

    def panel(axes: Any) -> None:
        axes.plot(sizes, errors, "o-")
        if knee is not None:
            axes.axvline(knee, color="C1", linewidth=1, label="knee")
            axes.legend(loc="best")
        axes.set(xscale="log", yscale="log", xlabel="latent_dim", ylabel="share of variance left", title=model)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)

    _draw([panel], path)


def _draw(panels: Sequence[Panel], path: Path, title: str | None = None) -> None:
    from matplotlib.figure import Figure  # imported here because it takes a second

    count = max(1, len(panels))
    figure = Figure(figsize=(4.4 * count, 4.2), dpi=120, layout="constrained")
    for axes, panel in zip(figure.subplots(1, count, squeeze=False)[0], panels, strict=False):
        panel(axes)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def _noise_scales(curve: NoiseScaleCurve, latent_dim: int, axes: Any) -> None:
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


def _scale_curve(dimension: Dimension, axes: Any) -> None:
    curve = dimension.curve
    errors = [[at.value - at.low for at in curve], [at.high - at.value for at in curve]]
    axes.errorbar([at.k for at in curve], [at.value for at in curve], errors, marker="o", capsize=3)
    axes.axhline(dimension.recommended, color="C1", linewidth=1)
    axes.set(xscale="log", xlabel="neighbours", ylabel="maximum likelihood, uncorrected", title="scale curve")
    axes.set_ylim(bottom=0)


def _spectrum(spectrum: Sequence[float], latent_dim: int, axes: Any) -> None:
    axes.plot(range(1, len(spectrum) + 1), spectrum, ".-")
    axes.axvline(latent_dim, color="C1", linewidth=1)
    axes.set(yscale="log", xlabel="principal direction", ylabel="std, in units of the data", title="spectrum")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _jacobian(chart: Chart, axes: Any) -> None:
    values = chart.spectrum.values.clamp(min=float(chart.spectrum.values.max()) * LEAST)
    low, middle, high = values.quantile(torch.tensor(BAND, dtype=values.dtype), dim=0)
    errors = torch.stack([middle - low, high - middle]).numpy()
    axes.errorbar(range(1, len(middle) + 1), middle.numpy(), errors, fmt="o", capsize=3)
    axes.axhline(COUNTS * float(middle[0]), color="grey", linestyle=":", label="counts above")
    axes.set(yscale="log", title="decoder's Jacobian", xlabel="direction", ylabel="units of data / std of embeddings")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")


def _embeddings(chart: Chart, axes: Any) -> None:
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


def _decay(decay: DensityDecay, axes: Any) -> None:
    for values, label in ((decay.off, "off the data"), (decay.along, "along the data")):
        axes.plot(decay.scales.numpy(), values.where(values > SMALLEST, torch.nan).numpy(), marker=".", label=label)
    axes.axvline(decay.thickness, color="grey", linestyle=":", label="thickness")
    axes.set(xscale="log", yscale="log", title="decay of the log-density", xlabel="distance s", ylabel="nats")
    axes.legend(loc="best")


def _likelihood(values: Sequence[float], axes: Any) -> None:
    axes.plot(range(1, len(values) + 1), values, marker=".")
    axes.set(title="likelihood in training", xlabel="epoch", ylabel="nats")
