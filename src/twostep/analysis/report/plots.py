"""Images and figures of a run's page, as text inside of it: PNG as data, and SVG that takes the page's colours."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twostep.core.figures import as_image, central_range, grid, plain
from twostep.core.schema import DataSpec

Array = NDArray[Any]

INK = "#010203"  # replaced by the page's own
FAINT = "#9099a6"
BINS = 40
REAL, DRAWN = "#3b82c4", "#e0762b"  # seen on light and on dark
CLASSES = 10
MOST_LEVELS = 8  # that have room below a small plot
RANDOM_IDS = re.compile(r'(?<=<g) id="[\w.]+"')


def png(images: Array, spec: DataSpec, columns: int = 1) -> str:
    """Return images `(n, C, H, W)` in a grid as data of a PNG."""
    file = io.BytesIO()
    canvas = grid(torch.as_tensor(images), spec, min(columns, len(images)))
    as_image(canvas, spec.shape[1]).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def curves(series: Mapping[str, Sequence[float]], best: int | None, title: str) -> str:
    """Draw losses and validation metrics over epochs 1, 2, ...; `best` is the epoch whose weights were kept."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(6.4, 3.2)
    for (label, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        axes.plot(range(1, len(values) + 1), values, color=colour, label=plain(label), marker="." * (len(values) < 3))
    if best is not None:
        axes.axvline(best, color=INK, linestyle=":", linewidth=1, label=f"best epoch: {best}")
    axes.set(xlabel="epoch", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="best")
    ends = "; ".join(f"{label} ends at {values[-1]:.4g}" for label, values in series.items())
    return _svg(figure, f"Curves of {title} over {max(map(len, series.values()))} epochs: {ends}")


def histograms(series: Mapping[str, Array], xlabel: str, alt: str) -> str:
    """Draw densities of several sets of numbers; but one in 200 at either end lie within the axis."""
    figure, axes = _figure(6.4, 3.4)
    finite = {name: np.asarray(rows, np.float64)[np.isfinite(rows)] for name, rows in series.items()}
    low, high = central_range(finite.values())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for (name, rows), colour in zip(finite.items(), _colours(len(finite)), strict=True):
        within = rows.clip(edges[0], edges[-1])
        axes.hist(within, edges, density=True, histtype="stepfilled", alpha=0.3, color=colour)
        axes.hist(within, edges, density=True, histtype="step", color=colour, label=plain(name))
    axes.set(xlabel=xlabel, yticks=[])
    axes.spines["left"].set_visible(False)
    if len(finite) > 1:
        axes.legend(loc="best")
    return _svg(figure, alt)


def latent(points: Array, samples: Array | None, labels: Array | None, density: Array | None, shares: Array) -> str:
    """Draw embeddings on two axes, coloured by label or by log-density, beside those of samples."""
    figure, axes = _figure(6.4, 4.4)
    if samples is not None:
        axes.scatter(*samples.T, s=9, color=FAINT, label="samples", rasterized=True, linewidths=0)
    classes = np.unique(labels) if labels is not None else np.array([])
    if labels is not None and 1 < len(classes) <= CLASSES:
        for kind, colour in zip(classes, _colours(len(classes)), strict=True):
            rows = points[labels == kind]
            axes.scatter(*rows.T, s=9, color=colour, label=f"label {kind}", rasterized=True, linewidths=0)
        by = "by label"
    elif density is not None and np.isfinite(density).any():
        step = -(-len(points) // len(density))
        ends = np.nanquantile(density[np.isfinite(density)], [0.02, 0.98])
        drawn = axes.scatter(
            *points[::step].T, s=9, c=density.clip(*ends), cmap="viridis", rasterized=True, linewidths=0
        )
        bar = figure.colorbar(drawn)
        bar.set_label("log-density (nats)")
        by = "by log-density"
    else:
        axes.scatter(*points.T, s=9, color=REAL, label="held-out rows", rasterized=True, linewidths=0)
        by = ""
    names = [f"axis {n} ({share:.0%} of the variance)" for n, share in enumerate(shares, 1)]
    axes.set(xlabel=names[0], ylabel=names[1])
    if axes.get_legend_handles_labels()[1]:
        beside = {} if by == "by log-density" else {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(**beside)
    return _svg(figure, f"Embeddings of {len(points):,} held-out rows on their two principal axes {by}".strip())


def marginals(columns: Sequence[tuple[str, Array, Array, Sequence[str]]]) -> str:
    """Draw the distribution of each column, real against sampled: name, values of both, names of levels if any."""
    across = min(3, len(columns))
    lines = -(-len(columns) // across)
    figure = _bare(6.8, 1.7 * lines + 0.3)
    places = figure.subplots(lines, across, squeeze=False).flatten()
    for axes, (name, real, drawn, levels) in zip(places, columns, strict=False):
        if levels:
            names, shares = _shares(levels, real, drawn)
            index = np.arange(len(names))
            for heights, colour, shift in zip(shares, (REAL, DRAWN), (-0.2, 0.2), strict=True):
                axes.bar(index + shift, heights, 0.4, color=colour)
            axes.set_xticks(index, names, rotation=30, ha="right", fontsize=7)
        else:
            edges = np.linspace(*_range(real, 0.15), 31)
            for values, colour in ((real, REAL), (drawn, DRAWN)):
                axes.hist(
                    values[np.isfinite(values)].clip(*edges[[0, -1]]), edges, density=True, color=colour, alpha=0.55
                )
        axes.set_title(plain(name)[:32], fontsize=9)
        axes.set_yticks([])
    for axes in places[len(columns) :]:
        axes.axis("off")
    _legend(figure)
    return _svg(figure, f"Distributions of real and sampled rows: {', '.join(name for name, *_ in columns)}")


def _shares(levels: Sequence[str], real: Array, drawn: Array) -> tuple[list[str], Array]:
    """Return the most frequent levels, the others as one, and their shares among real and sampled rows, `(2, n)`."""
    codes = [rows[np.isfinite(rows)].clip(0, len(levels) - 1).astype(int) for rows in (real, drawn)]
    counts = np.stack([np.bincount(rows, minlength=len(levels)) for rows in codes])
    found = np.flatnonzero(counts.sum(0))
    kept = np.sort(found[np.argsort(-counts.sum(0)[found], kind="stable")[:MOST_LEVELS]])
    names, shown = [plain(levels[int(level)])[:10] for level in kept], counts[:, kept]
    if len(found) > len(kept):
        names.append(f"{len(found) - len(kept)} others")
        shown = np.column_stack([shown, counts.sum(1) - shown.sum(1)])
    return names, shown / counts.sum(1, keepdims=True).clip(1)


def pairs(columns: Sequence[tuple[str, Array, Array]]) -> str:
    """Draw each pair of columns, real rows above the diagonal and sampled rows below it."""
    n = len(columns)
    figure = _bare(6.8, 6.4)
    places = figure.subplots(n, n, squeeze=False)
    for i in range(n):
        for j in range(n):
            axes = places[i][j]
            axes.set(xticks=[], yticks=[])
            if i == j:
                axes.text(0.5, 0.5, plain(columns[i][0])[:18], ha="center", va="center", fontsize=8, wrap=True)
                continue
            which, colour = (1, REAL) if j > i else (2, DRAWN)
            axes.scatter(
                columns[j][which], columns[i][which], s=3, color=colour, alpha=0.5, rasterized=True, linewidths=0
            )
            axes.set(xlim=_range(columns[j][1], 0.15), ylim=_range(columns[i][1], 0.15))
    _legend(figure, "real (above the diagonal)", "sampled (below)")
    return _svg(
        figure, f"Pairs of the columns {', '.join(name for name, *_ in columns)}: real rows above, sampled below"
    )


def _legend(figure: Any, *names: str) -> None:
    from matplotlib.patches import Patch

    labels = names or ("real", "sampled")
    patches = [Patch(color=colour, label=name) for colour, name in zip((REAL, DRAWN), labels, strict=True)]
    figure.legend(handles=patches, loc="outside upper center", ncols=2, frameon=False)


def _range(rows: Array, margin: float) -> tuple[float, float]:
    """Return the range of real values, but one in 200 at either end, and a margin: samples beyond it end there."""
    low, high = central_range([rows])
    wider = margin * (high - low) or 1.0
    return low - wider, high + wider


def _colours(n: int) -> list[Any]:
    from matplotlib import colormaps

    first = [REAL, DRAWN, "#6aa84f", "#a45fb4"]
    return first[:n] if n <= len(first) else [colormaps["tab10"](k) for k in range(10)][:n]


def _bare(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # here because it takes a second

    return Figure(figsize=(width, height), layout="constrained")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = _bare(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, alt: str) -> str:
    """Return a figure as SVG with texts of the page's font and colour, its figures described by `alt`."""
    from matplotlib import rc_context
    from matplotlib.colors import to_hex
    from matplotlib.text import Text

    for artist in figure.findobj(Text):
        if to_hex(artist.get_color()) == "#000000":
            artist.set_color(INK)
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(color=INK, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_edgecolor(INK)
        if (legend := axes.get_legend()) is not None:
            legend.set_frame_on(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, dpi=110)
    text = file.getvalue()
    text = RANDOM_IDS.sub("", text[text.index("<svg") :])
    text = text.replace(INK, "currentColor")
    text = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1system-ui, sans-serif", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", re.sub(r' height="[\d.]+pt"', "", text, count=1), count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
