"""The words of a run's page: names of figures, numbers, the headline, and texts without folders of a machine."""

from __future__ import annotations

from twostep.core.result import Result
from twostep.runs.summary import RunSummary

NAMES = {
    "explained_variance": "variance explained",
    "l2_reconstruction_error": "reconstruction error",
    "log_likelihood": "log-likelihood",
    "bits_per_dim": "bits per dimension",
    "fd": "Fréchet distance",
    "fid": "Fréchet inception distance",
    "fd_infinity": "Fréchet distance, unbiased",
    "fd_reconstruction": "Fréchet distance of reconstructions",
    "kid": "kernel distance",
    "c2st": "classifier two-sample test",
    "sliced_wasserstein": "sliced Wasserstein distance",
}
PARTS = {"gae": "autoencoder", "de": "density of embeddings", "two_step": "two-step model", "model": "model"}
SCORES = {"two_part": "two-part score", "likelihood": "log-density", "distance": "distance"}


def figure_name(metric: str) -> str:
    """Return a metric's name in words."""
    if "_ood_" in metric:
        score, _, figure = metric.partition("_ood_")
        figure = figure.replace("auroc", "AUROC").replace("aupr", "AUPR").replace("_", " ")
        return f"OOD {figure} by {SCORES.get(score, score.replace('_', ' '))}"
    return NAMES.get(metric, metric.replace("_", " "))


def value_of(metric: str, value: float) -> str:
    """Return a value in four digits; shares of the variance in per cent."""
    return f"{100 * value:.1f} %" if metric == "explained_variance" else number(value)


def number(value: float) -> str:
    """Return a number in four digits; thousands are written out."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e8 else f"{value:.4g}"


def uncertainty_of(metric: str, one: Result) -> str:
    """Return standard error or interval, as the value is written."""
    if metric == "explained_variance" and one.standard_error is not None:
        return f"± {100 * one.standard_error:.2g} %"
    if one.standard_error is not None and one.standard_error >= 1000 and one.interval is None:
        return f"± {number(float(f'{one.standard_error:.2g}'))}"
    return one.uncertainty


def minutes(run: RunSummary) -> str:
    """Return how long a run was trained, in words; empty if it does not say."""
    if run.minutes is None:
        return ""
    if run.minutes < 1:
        return f"{max(1, round(60 * run.minutes))} s"
    return f"{run.minutes:.0f} min" if run.minutes < 120 else f"{run.minutes / 60:.1f} h"


def subject(run: RunSummary) -> str:
    """Return in a sentence what was trained on what."""
    shape = [int(side) for side in run.data.get("shape", [])]
    size = int(run.data.get("size", 0))
    rows = f"images of {'x'.join(map(str, shape[1:]))} pixels" if len(shape) == 3 else f"rows of {shape[0]} columns"
    if len(shape) == 3 and shape[0] == 3:
        rows = f"colour {rows}"
    models = [*run.models.values()]
    size_z = next((keys["latent_dim"] for keys in run.configs.values() if "latent_dim" in keys), None)
    latent = f" with {size_z} latent coordinates" if size_z is not None else ""
    took = f", trained in {minutes(run)}" if minutes(run) else ""
    if len(models) == 2:
        what = f"A two-step model: {models[0]}{latent} learns the manifold, {models[1]} the density of its embeddings"
    else:
        what = f"A single {models[0]}{latent}"
    return f"{what}; {size:,} training {rows}{took}."


def cards(run: RunSummary) -> list[dict[str, str]]:
    """Return the two or three figures that count: value, name, what to compare it with."""
    found: list[dict[str, str]] = []
    for metric, one in run.headline().items():
        about = uncertainty_of(metric, one)
        if one.reference is not None:
            about = f"held-out data: {value_of(metric, one.reference)}"
        elif metric.endswith("auroc"):
            about = "chance: 0.5, best: 1"
        elif one.kind:
            about = f"{about} {one.unit}; {one.kind}".strip()
        found.append({"value": value_of(metric, one.value), "name": figure_name(metric), "about": about})
    return found
