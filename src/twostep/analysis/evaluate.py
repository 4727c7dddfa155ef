"""Measures of a finished run, after the fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twostep.core.checkpoint import fingerprint
from twostep.core.keys import MetricKeys
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import subsample
from twostep.experiment.artifacts import write_detection
from twostep.experiment.components import Component, Whole
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.load import load_finished
from twostep.experiment.normaliser import energy_of, normalised_likelihood
from twostep.experiment.preflight import check_features, check_ood
from twostep.experiment.resolve import load_other
from twostep.metrics import Result, check_metrics
from twostep.metrics.density_check.certificate import check_normalised
from twostep.metrics.ood.ood import asks_for_ood
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep, spec_seen
from twostep.training.engine import Device

ROWS = 5000  # of data that show where a density has its mass


def evaluate_run(
    path: Path,
    metrics: Sequence[str] = (),
    ood: Sequence[str] = (),
    density: bool = False,
    part: str | None = None,
    keys: Mapping[str, Any] | None = None,
    seed: int | None = None,
    best_first: bool = False,
    device: Device | None = None,
    data: Path | None = None,
    show: Callable[[Mapping[str, Result]], object] | None = None,
) -> tuple[dict[str, Result], Path]:
    """Measure a run on its test split, and add the results as `metrics/evaluation-001.json`.

    Scores of rows of other data lie in `ood/evaluation-001`. The run is opened as by `load_run`.

    Args:
        path: directory of the run.
        metrics: names of metrics.
        ood: datasets, by name or path, that scores are to separate from the run's own.
        density: whether the integral of the density is checked.
        part: the component: `model`; or `gae`, `de`, `two_step`. None: the whole.
        keys: of metrics that compare samples, those that differ from the run's.
        seed: of random draws; None: the run's.
        show: is given the results on the main rank before they are written, for a disk may be full.

    Returns:
        the results by name, and the file that holds them.

    Raises:
        UserError: if the run can't be opened, or can't be measured so; nothing is computed then. Or if the results
            can't be written.
    """
    run, evaluator, _ = load_finished(path, best_first, device, data)
    found = {one.name: one for one in evaluator.components}
    if part is not None and part not in found:
        raise UserError(f"--part {part}: no such part of {path}; it has {', '.join(found)}")
    component = evaluator.whole if part is None else found[part]
    names, metric_keys = _checked(evaluator, component, metrics, keys or {}, bool(ood))
    if density and not isinstance(component.model, DensityEstimator | TwoStep):
        raise UserError(f"--check-density: {component.name} has no density")
    if ood and component != evaluator.whole:
        raise UserError(f"--ood is for the whole model: leave out --part {component.name}")
    others = {Path(name).stem: load_other(name, evaluator.run, evaluator.splits.spec) for name in ood}
    if len(others) < len(ood):
        raise UserError(f"--ood {' '.join(ood)}: two of them have one name: rename a file")
    check_ood(evaluator.module, evaluator.splits, others)
    seed = evaluator.run.seed if seed is None else seed
    results = evaluator.measure(component, names, metric_keys, seed)
    detection = evaluator.detect(others, seed) if others else None
    if detection is not None:
        results |= detection.results
    if density:
        results |= _certificate(evaluator, component, seed)
    kwargs = metric_keys.model_dump(mode="json")
    asked = {"part": component.name, "seed": seed, "metric_kwargs": kwargs, "ood": list(others)}
    weights = fingerprint(component.model)
    write_scores = None if detection is None else partial(write_detection, detection)

    def keep() -> Path:
        if show is not None:
            show(results)
        return run.add_evaluation(results, weights, asked, write_scores)

    return results, evaluator.engine.on_first(keep)


def _checked(
    evaluator: Evaluator, component: Component | Whole, metrics: Sequence[str], keys: Mapping[str, Any], with_ood: bool
) -> tuple[tuple[str, ...], MetricKeys]:
    """Refuse metrics that can't be measured, before anything is computed; return their names and keys."""
    spec = spec_seen(component.model, evaluator.splits.spec)
    given = {**component.config.metric_kwargs.model_dump(), **keys}
    metric_keys, names = MetricKeys.parse(given, "metric_kwargs").resolve(metrics, spec.is_image)
    check_metrics(names, component.model, component.name)
    if asks_for_ood(names) and not with_ood:
        raise UserError("--metrics: metrics of the OOD test need other data: add --ood NAME or PATH")
    check_features(names, metric_keys, spec, evaluator.splits)
    return names, metric_keys


def _certificate(evaluator: Evaluator, component: Component | Whole, seed: int) -> dict[str, Result]:
    """Integrate a density; of an energy, estimate the normaliser, and with it the log-likelihood."""
    batches = replace(evaluator.seen(component, evaluator.splits.test), device="cpu")
    model = component.model.cpu()  # where quadrature and fits are
    assert isinstance(model, DensityEstimator | TwoStep)
    if energy_of(model) is not None:
        return normalised_likelihood(model, batches, evaluator.engine.sum, seed)
    rows = subsample(batches.data, ROWS).float()
    certificate = check_normalised(model, rows, seed=derive(seed, "certificate"))
    return {f"integral ({certificate.verdict})": certificate.integral}
