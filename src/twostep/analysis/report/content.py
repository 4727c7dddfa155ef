"""What the page of a run says and shows, gathered from the run's files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostep.analysis.report import plots
from twostep.analysis.report.words import PARTS, figure_name, number, uncertainty_of, value_of
from twostep.core.files import read_json, without_folders
from twostep.core.result import Result
from twostep.core.schema import UserError
from twostep.data.named import OOD_PARTNERS
from twostep.experiment import report_data
from twostep.metrics import METRICS
from twostep.metrics.samples.memorisation import QUANTILE, of_distances
from twostep.models.two_step import latent_spec
from twostep.runs.directory import Run
from twostep.runs.summary import RunSummary

PAIRS = 4  # columns that are drawn pairwise
NEAREST = 8  # samples beside their nearest training rows
MOST_SCORES = 5000
NOT_SHOWN = ("name", "dataset", "logdir_root", "pretrained_gae")  # keys that differ from defaults in every run


@dataclass
class Legend:
    """Units, kinds and notes of figures, each once, by number."""

    entries: list[str] = field(default_factory=list[str])

    def numbers(self, one: Result) -> list[int]:
        """Return the numbers of a figure's unit, kind and measure, and of the pieces of its note."""
        about = "; ".join(part for part in (one.unit, one.kind, one.measure) if part)
        texts = [str(without_folders(text)) for text in (about, *one.note.split("; ")) if text]
        self.entries += [text for text in dict.fromkeys(texts) if text not in self.entries]
        return [self.entries.index(text) + 1 for text in texts]


def result_rows(results: Mapping[str, Result], legend: Legend) -> list[dict[str, Any]]:
    """Return a row for each figure: name, value, error, value of held-out data, its numbers in the legend."""
    return [
        {
            "name": figure_name(metric),
            "metric": metric,
            "value": value_of(metric, one.value) if np.isfinite(one.value) else one.shown,
            "error": uncertainty_of(metric, one),
            "reference": "" if one.reference is None else value_of(metric, one.reference),
            "better": _better(metric),
            "marks": legend.numbers(one),
        }
        for metric, one in results.items()
    ]


def tests(run: RunSummary, legend: Legend) -> list[dict[str, Any]]:
    """Return the results of the test by component, the whole model first."""
    return [
        {"name": PARTS.get(part, part), **_with_ood_apart(result_rows(results, legend))}
        for part, results in reversed([*run.test.items()])
    ]


def _with_ood_apart(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return rows that are shown at once, and the many of OOD tests but for areas under the curve."""
    apart = [row for row in rows if "_ood_" in row["metric"] and "auroc" not in row["metric"]]
    return {"rows": [row for row in rows if row not in apart], "ood": apart}


def evaluations(run: RunSummary, legend: Legend) -> list[dict[str, Any]]:
    """Return later evaluations: what was asked, and the results."""
    found: list[dict[str, Any]] = []
    for name, (asked, results) in run.evaluations.items():
        keys = asked.get("metric_kwargs") or {}
        about = [f"of the {PARTS.get(str(asked.get('part')), 'model')}", f"seed {asked.get('seed')}"]
        about += (
            [f"{keys['gen_samples']:,} samples"] if any(one.reference is not None for one in results.values()) else []
        )
        about += [f"against {', '.join(without_folders(asked['ood']))}"] if asked.get("ood") else []
        found.append(
            {"name": name.replace("-", " "), "about": ", ".join(about), **_with_ood_apart(result_rows(results, legend))}
        )
    return found


def not_default(run: Run) -> list[tuple[str, str, str]]:
    """Return the keys that differ from their defaults for these data: key, value, default."""
    settings, spec = run.settings, run.spec
    found: list[tuple[str, str, str]] = []
    latent, grid = (getattr(settings.first, key, None) for key in ("latent_dim", "latent_shape"))
    for part, config in settings.models.items():
        of = latent_spec(spec, latent, grid) if part == "de" and latent else spec
        role = "gae" if part == "gae" or settings.is_gae else "de"
        if part == "model" and role not in config.roles:
            role = config.roles[0]
        default = type(config).for_data(of, role)
        prefix = "" if part == "model" else f"{part} "
        found += [(f"{prefix}{key}", *pair) for key, pair in _differences(config, default).items()]
    given = type(settings.run).parse({"dataset": settings.run.dataset}, "the run")
    return [(key, *pair) for key, pair in _differences(settings.run, given).items()] + found


def command(run: RunSummary) -> str:
    """Return the command that trained a run, with files by name alone."""
    program, *arguments = [str(one) for one in run.environment.get("command", [])] or ["twostep"]
    program = "twostep" if program.startswith("__main__") else program
    return " ".join([program, *(_quoted(str(without_folders(argument))) for argument in arguments)])


def _quoted(word: str) -> str:
    """Return a word as a shell reads it, in the quotes that are read most easily."""
    plain = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if plain else shlex.quote(word)


def curves(run: Run) -> list[str]:
    """Return the curves of each model, with its best epoch marked."""
    found: list[str] = []
    for part, epochs in run.read_history().items():
        if not epochs:
            continue
        config = run.settings.models[part]
        series = {
            (name if kind == "losses" else f"validation {name}"): [
                one.get(kind, {}).get(name, np.nan) for one in epochs
            ]
            for kind in ("losses", "valid")
            for name in epochs[0].get(kind, {})
        }
        best, stop = None, config.early_stopping_metric
        values = series.get(f"validation {stop}", [])
        if np.isfinite(values).any():
            best = int((np.nanargmin if METRICS[str(stop)].lower_is_better else np.nanargmax)(values)) + 1
        title = config.name if part == "model" else f"{config.name} ({PARTS[part]})"
        found.append(plots.curves(series, best, title))
    return found


def diagnosis(path: Path) -> list[tuple[str, str, str]]:
    """Return what was found about the data and the models of a run: name, text, advice; those with advice first."""
    found: list[tuple[str, str, str]] = []
    with suppress(UserError, KeyError, TypeError):
        values = read_json(path / "dimension.json") if (path / "dimension.json").is_file() else {}
        if values:
            found.append(("intrinsic dimension of the training rows", ", ".join(_facts(values)), ""))
    for file in sorted({*path.glob("diagnosis*.json"), *path.glob("diagnosis*/*.json")})[-1:]:
        with suppress(UserError, KeyError, TypeError):
            found += [
                (str(one["name"]), str(one["text"]), str(one.get("advice", "")))
                for one in read_json(file).get("findings", [])
            ]
    return [tuple(without_folders(one)) for one in sorted(found, key=lambda one: not one[2])]  # type: ignore[misc]


def densities(run: Run, arrays: report_data.Arrays) -> report_data.Arrays:
    """Return sets of log-densities by name: of training and held-out rows, and of other data that were tested."""
    found = {
        name: arrays[key]
        for name, key in (("training rows", "density_train"), ("held-out rows", "density_test"))
        if key in arrays
    }
    if not found:
        return {}
    for path in sorted((run.path / "ood").rglob("log_prob_ood_test*.npy")):
        with suppress(OSError, ValueError):
            rows = np.load(path, allow_pickle=False)
            name = path.stem.removeprefix("log_prob_ood_test").strip("_") or _other(run)
            found[f"{name} (other data)"] = rows[:: -(-len(rows) // MOST_SCORES)].astype(np.float64)
    return found


def images(run: Run, arrays: report_data.Arrays) -> dict[str, Any]:
    """Return the images of samples, real rows, nearest training rows and reconstructions, as far as there are any."""
    spec = run.spec
    found: dict[str, Any] = {}
    if not spec.is_image or not arrays:
        return {}

    def png(name: str, rows: slice, columns: int = 8) -> str:
        return plots.png(arrays[name][rows], spec, columns)

    if "samples" in arrays:
        found = {"samples": png("samples", slice(32)), "real": png("real", slice(32))}
        found["nearest"] = [
            {"images": [png("samples", slice(k, k + 1), 1), png("nearest", slice(k, k + 1), 1)], "distance": distance}
            for k, distance in enumerate(number(one) for one in arrays["sample_distances"][:NEAREST])
        ]
    if "rows" in arrays:
        found["reconstructions"] = [
            {
                "images": [png("rows", slice(k, k + 1), 1), png("reconstructions", slice(k, k + 1), 1)],
                "left": f"{100 * share:.3g} %",
            }
            for k, share in enumerate(arrays["unexplained"])
        ]
    return found


def figures(run: Run, arrays: report_data.Arrays) -> dict[str, str]:
    """Return the figures as inline SVG by name, as far as the run has what they show."""
    found: dict[str, str] = {}
    if "latent" in arrays:
        found["latent"] = plots.latent(
            *(arrays["latent"], arrays.get("latent_samples"), arrays.get("labels"), arrays.get("density_test")),
            arrays["latent_variance"],
        )
    if (sets := densities(run, arrays)) and all(np.isfinite(rows).any() for rows in sets.values()):
        found["density"] = plots.histograms(
            sets, "log-density (nats)", f"Histograms of log-densities of {', '.join(sets)}"
        )
    if "shares" in arrays:
        shares = {"held-out rows": 100 * arrays["shares"]}
        label = "share of the mean variance left by the reconstruction (%)"
        found["shares"] = plots.histograms(shares, label, f"Histogram of the {label} of held-out rows")
    if "table_real" in arrays:
        shown = [_described(run, int(column)) for column in arrays["columns"]]
        columns = [
            (name, arrays["table_real"][:, k] + offset, arrays["table_samples"][:, k] + offset, levels)
            for k, (name, offset, levels) in enumerate(shown)
        ]
        found["marginals"] = plots.marginals(columns)
        worst = np.argsort(-arrays["column_distances"], kind="stable")
        if len(columns) > 1:
            found["pairs"] = plots.pairs([columns[k][:3] for k in sorted(worst[:PAIRS])])
    return found


def _described(run: Run, place: int) -> tuple[str, float, list[str]]:
    """Return the name of a column of the data, what to add to its codes, and the names of levels, if it has some."""
    if run.spec.columns is None:
        return f"column {place + 1}", 0.0, []
    one = run.spec.columns.modelled[place]
    if one.kind == "date":
        return f"{one.name} (days since {np.datetime64(int(one.offset), 'D')})", 0.0, []
    return one.name, one.offset, [*map(str, one.levels), "other"] if one.nominal else []


def distances(arrays: report_data.Arrays) -> str:
    """Return in a sentence whether samples are nearer to training rows than held-out rows are."""
    drawn, real = (torch.as_tensor(arrays.get(f"{name}_distances", [])) for name in ("sample", "real"))
    if len(drawn) < 2 or len(real) < 2:
        return ""
    copies = of_distances(real, drawn).copies
    verdict = (
        "samples are copies of training rows" if copies.low > max(QUANTILE, 1 / len(real)) else "no sign of copies"
    )
    near, usual = (number(float(rows.median())) for rows in (drawn, real))
    return (
        f"Median distance to the nearest training row: {near} of samples, {usual} of held-out rows; {copies.value:.0%} "
        f"of the samples ({copies.low:.0%} to {copies.high:.0%}) are as near to one as the nearest held-out rows: "
        f"{verdict}."
    )


def _better(metric: str) -> str:
    known = METRICS[metric].lower_is_better if metric in METRICS else None
    if metric == "explained_variance" or metric in ("recall", "precision", "density", "coverage"):
        known = False
    return "" if known is None or metric == "loss" else "lower is better" if known else "higher is better"


def _differences(config: Any, default: Any) -> dict[str, tuple[str, str]]:
    keys = [key for key in type(config).model_fields if key not in NOT_SHOWN]
    pairs = {key: (getattr(config, key), getattr(default, key)) for key in keys}
    return {
        key: (str(without_folders(_plain(mine))), str(_plain(other)))
        for key, (mine, other) in pairs.items()
        if mine != other
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


def _facts(values: Mapping[str, Any]) -> Iterable[str]:
    for key, value in values.items():
        yield f"{key.replace('_', ' ')} {'; '.join(map(str, value)) if isinstance(value, list) else value}"


def _other(run: Run) -> str:
    name = run.settings.run.ood_dataset or OOD_PARTNERS.get(run.settings.run.dataset) or "other data"
    return Path(name).stem
