"""The page of a run: configs, training, results, images. One file, readable offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from twostep.core.figures import curves_svg
from twostep.core.files import atomic_write, read_json, to_json
from twostep.runs.directory import Run

CAPTIONS = {
    "samples": "Samples of the model.",
    "reconstructions": "Test points (above) and their reconstructions (below).",
}


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's directory, from the files there, and return its path.

    Raises:
        UserError: if the directory can't be written, or its files are damaged.
    """
    configs = run.settings.models
    models = [config.name for config in configs.values()]
    data = f"{run.spec.size:,} training points of shape {'x'.join(map(str, run.spec.shape))}"
    if run.settings.two_step:
        summary = f"A two-step model on {data}: {models[0]} learns the manifold, {models[1]} the density on it."
    else:
        summary = f"A single {models[0]}, on {data}."
    shown = [*sorted(run.path.glob("*config.json")), *run.path.glob("dimension.json")]
    template = Environment(loader=PackageLoader("twostep.analysis"), autoescape=True).get_template("report.html")
    page = template.render(
        title=f"{' + '.join(models)} on {run.spec.name}",
        summary=summary,
        environment=run.read_environment(),
        results=[
            {"model": part, "metric": name, "result": result}
            for part, results in run.read_metrics("test").items()
            for name, result in results.items()
        ],
        images=[
            {"name": name, "caption": caption, "data": base64.b64encode(path.read_bytes()).decode()}
            for name, caption in CAPTIONS.items()
            if (path := run.path / "samples" / f"{name}.png").is_file()
        ],
        curves=[
            _curve(configs[part].name if len(models) == 1 else f"{part}: {configs[part].name}", epochs)
            for part, epochs in run.read_history().items()
            if epochs
        ],
        configs={path.name: to_json(read_json(path)) for path in shown},
    )
    path = run.path / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _curve(title: str, epochs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the losses and validation metrics of each epoch as inline SVG."""
    series: dict[str, list[float]] = {}
    for kind in ("losses", "valid"):
        for name in epochs[0].get(kind, {}):
            label = name if kind == "losses" else f"validation {name}"
            series[label] = [epoch.get(kind, {}).get(name, float("nan")) for epoch in epochs]
    return curves_svg(series, title, "epoch")
