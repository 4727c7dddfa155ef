"""The page of a run, and of a comparison of runs: one file, readable offline, that one can send to a colleague."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader

from twostep.analysis.report import content, plots
from twostep.analysis.report.words import cards, subject
from twostep.core.files import atomic_write, read_json, to_json, without_folders
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.experiment import report_data
from twostep.experiment.load import load_finished
from twostep.models.base import evaluating
from twostep.runs.comparison import about_rows, differing_keys, distinct_names, figure_rows
from twostep.runs.directory import Run
from twostep.runs.summary import RunSummary
from twostep.training.engine import Device

logger = logging.getLogger("twostep")


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's directory, from the files there, and return its path.

    Raises:
        UserError: if the directory can't be written, or its files are damaged.
    """
    summary, arrays, legend = RunSummary.read(run.path), report_data.read(run.path), content.Legend()
    configs = sorted(path for path in run.path.glob("*config.json"))
    page = _template("report.html").render(
        title=f"{summary.title} on {without_folders(summary.dataset)}",
        subject=subject(summary),
        cards=cards(summary),
        run=summary,
        environment=run.read_environment(),
        tests=content.tests(summary, legend),
        evaluations=content.evaluations(summary, legend),
        legend=legend.entries,
        images=content.images(run, arrays),
        old_images={} if arrays else _old_images(run.path),
        figures=content.figures(run, arrays),
        curves=content.curves(run),
        distances=content.distances(arrays),
        diagnosis=content.diagnosis(run.path),
        can_diagnose=run.spec.table is None,
        not_default=content.not_default(run),
        command=content.command(summary),
        configs={path.name: to_json(without_folders(read_json(path))) for path in configs},
    )
    return _written(run.path / "report.html", page)


def keep_rows(path: Path, device: Device | None = None, data: Path | None = None) -> None:
    """Keep the rows that the page of a run shows, if an earlier version has not; without its data, it says so."""
    run = Run.open(path)
    if (path / report_data.NAME).is_file() or not run.has_checkpoint():
        return
    try:
        _, evaluator, _ = load_finished(path, device=device, data=data)
    except UserError as error:
        logger.warning("the page lacks samples beside real rows, reconstructions and densities: %s", error)
        return
    generator = torch.Generator(evaluator.engine.device).manual_seed(derive(evaluator.run.seed, "pictures"))
    with evaluating(evaluator.module):
        report_data.write(path, report_data.collect(evaluator.module, evaluator.splits, generator))


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Write a page that compares runs: what differs in keys and figures, and samples of each."""
    summaries = [RunSummary.read(run.path) for run in runs]
    figures, kinds = figure_rows(summaries)
    page = _template("comparison.html").render(
        title=f"Comparison of {len(runs)} runs",
        names=distinct_names([run.path for run in runs]),
        about=[(label, 0, cells) for label, *cells in about_rows(summaries)],
        keys=[(label, 0, without_folders(cells)) for label, *cells in differing_keys(summaries)],
        figures=[(label, mark, cells) for (label, *cells), mark in figures],
        legend=[without_folders(kind) for kind in kinds],
        samples=[_sample_image(run) for run in runs],
        curves=[content.curves(run) for run in runs],
    )
    return _written(path, page)


def _template(name: str) -> Any:
    return Environment(loader=PackageLoader("twostep.analysis"), autoescape=True).get_template(name)


def _written(path: Path, page: str) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _sample_image(run: Run) -> str:
    arrays = report_data.read(run.path)
    if run.spec.is_image and "samples" in arrays:
        return plots.png(arrays["samples"][:16], run.spec, 4)
    return _old_images(run.path).get("samples", "")


def _old_images(path: Path) -> dict[str, str]:
    """Return the images of a run that keeps no rows for its page."""
    files = {name: path / "samples" / f"{name}.png" for name in ("samples", "reconstructions")}
    return {
        name: f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        for name, file in files.items()
        if file.is_file()
    }
