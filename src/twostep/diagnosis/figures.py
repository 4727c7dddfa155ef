"""A diagnosis as one figure: noise ladder, scale curve, spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostep.core.figures import save_figure

if TYPE_CHECKING:
    from twostep.diagnosis.diagnosis import Diagnosis


def draw(found: Diagnosis, path: Path) -> None:
    """Write the picture as PNG, in one atomic step.

    Raises:
        UserError: if it can't be written.
    """
    from matplotlib.figure import Figure  # here because it takes a second

    panels = _ladder, _curve, _spectrum
    figure = Figure(figsize=(4.3 * len(panels), 4), dpi=120, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        panel(axes, found)
    figure.suptitle(f"intrinsic dimension {found.dimension.recommended}, overfitting: {found.overfitting.line()}")
    save_figure(figure, path)


def _ladder(axes: Any, found: Diagnosis) -> None:
    rungs = found.ladder.rungs
    axes.set_title("noise ladder" if rungs else "noise ladder: too few rows for any rung")
    if not rungs:  # there is nothing that an axis of logarithms could show
        return
    scales = [rung.scale for rung in rungs]
    axes.plot(scales, [rung.gaussian for rung in rungs], "--", color="grey", label="Gaussian of the same covariance")
    axes.plot(scales, [rung.dimension for rung in rungs], ":", color="C0")
    seen = found.ladder.resolved
    scales = [rung.scale for rung in seen]
    axes.plot(scales, [rung.dimension for rung in seen], "o-", color="C0", label="data (dotted: not resolved)")
    axes.fill_between(scales, [rung.low for rung in seen], [rung.high for rung in seen], alpha=0.3)
    axes.axhline(found.latent_dim, color="C1", linewidth=1, label="recommended")
    top = max(found.dim if found.dim <= 2 * found.latent_dim + 3 else 0, 1.5 * found.latent_dim)
    axes.set(xscale="log", ylim=(0, 1.1 * top), xlabel="scale of the noise", ylabel="dimension d(s)")
    axes.legend(loc="best", fontsize="small")


def _curve(axes: Any, found: Diagnosis) -> None:
    curve = found.dimension.curve
    values = [estimate.value for estimate in curve]
    errors = [
        [estimate.value - estimate.low for estimate in curve],
        [estimate.high - estimate.value for estimate in curve],
    ]
    axes.errorbar([estimate.k for estimate in curve], values, errors, marker="o", capsize=3)
    axes.axhline(found.dimension.recommended, color="C1", linewidth=1)
    axes.set(xscale="log", xlabel="neighbours", ylabel="maximum likelihood, as it is", title="scale curve")
    axes.set_ylim(bottom=0)


def _spectrum(axes: Any, found: Diagnosis) -> None:
    axes.plot(range(1, len(found.spectrum) + 1), found.spectrum, ".-")
    axes.axvline(found.latent_dim, color="C1", linewidth=1)
    axes.set(yscale="log", xlabel="principal direction", ylabel="std, in units of the data", title="spectrum")
    axes.xaxis.get_major_locator().set_params(integer=True)
