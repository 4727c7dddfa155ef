"""Measures of a finished run, after the fact."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from twostep.core.keys import MetricKeys
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import subsample
from twostep.experiment.experiment import Experiment
from twostep.experiment.preflight import check_features, check_ood
from twostep.experiment.prepare import HERE, Place, load_other, trained
from twostep.experiment.weights import fingerprint
from twostep.metrics import Result, check_metrics, evaluate
from twostep.metrics.density_check.certificate import check_normalised
from twostep.metrics.ood.ood import asks_for_ood
from twostep.models.base import DensityEstimator
from twostep.models.ebm import EBM
from twostep.models.normalized_ebm import NormalizedEBM
from twostep.models.two_step import TwoStep
from twostep.runs.config import TwoStepRunConfig

logger = logging.getLogger("twostep")

ROWS = 5000  # of data that show where a density lies


@dataclass(frozen=True)
class Questions:
    """What is asked of a run.

    Args:
        metrics: names.
        part: that is measured: `model`; or `gae`, `de`, `two_step`. None: the whole.
        keys: of metrics that compare samples, those that differ from the run's.
        ood: data sets, by name or path, that scores are to tell the run's own from.
        density: whether the integral of the density is checked.
        seed: of what is drawn; None: the run's.
    """

    metrics: tuple[str, ...] = ()
    part: str | None = None
    keys: Mapping[str, Any] | None = None
    ood: tuple[str, ...] = ()
    density: bool = False
    seed: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is asked."""
        return bool(self.metrics or self.ood or self.density)


def assess(
    path: Path,
    questions: Questions,
    best_first: bool = False,
    place: Place = HERE,
    show: Callable[[Mapping[str, Result]], object] | None = None,
) -> tuple[dict[str, Result], Path]:
    """Measure a run on its test split, and keep the results beside earlier ones, as `metrics/evaluation-001.json`.

    Scores of rows that other data are told by lie in `ood/evaluation-001`.

    Args:
        path: directory of the run.
        questions: what is asked.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        place: where the run is opened, device and data.
        show: is given the results on the main rank before they are written, for a disk may be full.

    Returns:
        the results by name, and the file that holds them.

    Raises:
        UserError: if the run can't be opened, or has not what is asked for; nothing is computed then. Or if the results
            can't be written.
    """
    experiment = trained(path, best_first, place)
    part = questions.part or experiment.examiner.whole
    names, keys = _checked(experiment, questions, part)
    seed = experiment.settings.run.seed if questions.seed is None else questions.seed
    results = experiment.examiner.measure(names, part, keys, seed)
    detection = experiment.detect(seed) if questions.ood else None
    if detection is not None:
        results |= detection.results
    if questions.density:
        results |= _certificate(experiment, part, seed)
    asked = {"part": part, "seed": seed, "metric_kwargs": keys.model_dump(mode="json"), "ood": list(experiment.ood)}
    weights = fingerprint(experiment.examiner.part(part))
    write_scores = None if detection is None else detection.write

    def keep() -> Path:
        if show is not None:
            show(results)
        return experiment.run.add_evaluation(results, weights, asked, write_scores)

    return results, experiment.engine.on_first(keep)


def _checked(experiment: Experiment, questions: Questions, part: str) -> tuple[tuple[str, ...], MetricKeys]:
    """Refuse whatever can't be answered, before anything is computed; return the metrics and their keys."""
    parts = [*experiment.models, *({experiment.examiner.whole} - set(experiment.models))]
    if part not in parts:
        raise UserError(f"--part {part}: no such part of {experiment.run.path}; it has {', '.join(parts)}")
    model = experiment.examiner.part(part)
    run = experiment.settings.run
    config = cast(TwoStepRunConfig, run) if isinstance(model, TwoStep) else model.config
    keys = MetricKeys.parse({**config.metric_kwargs.model_dump(), **(questions.keys or {})}, "metric_kwargs")
    keys = keys.for_metrics(questions.metrics, model.spec.is_image)
    names = keys.resolve_names(questions.metrics)
    check_metrics(names, model, part)
    if asks_for_ood(names) and not questions.ood:
        raise UserError("--metrics: figures of the OOD test need other data: add --ood NAME or PATH")
    if line := check_features(names, keys, model.spec, experiment.splits):
        logger.info("%s", line)
    if questions.density and not isinstance(model, DensityEstimator | TwoStep):
        raise UserError(f"--check-density: {part} has no density")
    if questions.ood and part != experiment.examiner.whole:
        raise UserError(f"--ood goes with the whole model: leave out --part {part}")
    others = {Path(name).stem: load_other(name, run, experiment.splits.spec) for name in questions.ood}
    if len(others) < len(questions.ood):
        raise UserError(f"--ood {' '.join(questions.ood)}: two of them have one name: rename a file")
    if others:
        check_ood(experiment.models, experiment.splits, others)
    experiment.ood = others
    return names, keys


def _certificate(experiment: Experiment, part: str, seed: int) -> dict[str, Result]:
    """Integrate a density; of an energy, estimate the normaliser, and with it the log-likelihood."""
    batches = replace(experiment.examiner.test_batches(part), device="cpu")
    model = cast(DensityEstimator | TwoStep, experiment.examiner.part(part)).cpu()  # where quadrature and fits are
    energy = model.de if isinstance(model, TwoStep) else model
    if not isinstance(energy, EBM):
        rows = subsample(batches.data, ROWS).float()
        certificate = check_normalised(model, rows, seed=derive(seed, "certificate"))
        return {f"integral ({certificate.verdict})": certificate.integral}
    density = NormalizedEBM.of(energy, seed=derive(seed, "normaliser"))
    log_z = density.log_z
    whole = TwoStep(model.gae, density) if isinstance(model, TwoStep) else density
    likelihood = evaluate(["log_likelihood"], whole, batches, experiment.engine.sum, seed)["log_likelihood"]
    error = math.hypot(likelihood.standard_error or 0.0, log_z.standard_error)
    return {
        "log_normalizer": Result(
            log_z.value, "nats", log_z.chains, log_z.standard_error, "estimate", likelihood.measure, log_z.line()
        ),
        "log_likelihood": replace(likelihood, standard_error=error),
    }
