"""What is refused or warned of when the data are known, before a run directory is made or written into."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from twostep.core.keys import INCEPTION_VARIABLE, MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.experiment.components import Component, Whole, components_of
from twostep.metrics import METRICS, check_metrics
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.features.inception import NAME as INCEPTION
from twostep.metrics.ood.conformal import MIN_ROWS
from twostep.metrics.ood.ood import asks_for_ood
from twostep.metrics.samples.table import SampleMetric
from twostep.models.base import DensityEstimator, Model, ModelConfig
from twostep.models.two_step import TwoStep
from twostep.runs.config import RunConfig, Settings
from twostep.runs.directory import Run

BADLY_SCALED = 1000  # standard deviations of columns, largest to smallest

logger = logging.getLogger("twostep")


def preflight(
    settings: Settings, splits: Splits, module: Model | TwoStep, ood: Mapping[str, Splits], ranks: int
) -> None:
    """Refuse what training or its test would fail at, and warn of what they will lack.

    Args:
        settings: configs of the run and its models.
        splits: its data.
        module: the model, or both as one.
        ood: other data by name.
        ranks: number of processes.

    Raises:
        UserError: naming the first problem.
    """
    check_ranks(settings.run, splits, ranks)
    for component in components_of(settings, splits.spec, module):
        if isinstance(component, Component):
            _check_early_stopping(component, splits)
        name = component.config.name if isinstance(component, Component) else "a two-step model"
        check_metrics(_metrics_of(component), component.model, name)
    _hint_at_standardisation(next(iter(settings.models.values())), splits)
    check_ood(module, splits, ood)


def check_ranks(config: RunConfig, splits: Splits, ranks: int) -> None:
    """Refuse more ranks than a split or a batch has rows.

    Raises:
        UserError: naming the numbers.
    """
    rows = min(len(splits.train), len(splits.test), len(splits.test if splits.valid is None else splits.valid))
    smallest = min(config.train_batch_size, config.valid_batch_size, config.test_batch_size)
    if ranks > min(rows, smallest):
        raise UserError(f"{ranks} ranks are more than there are rows in a split ({rows}) or in a batch ({smallest})")


def check_latent_dim(config: ModelConfig, spec: DataSpec) -> None:
    """Check the latent dimension of an autoencoder, before its networks, of any size, are built.

    Raises:
        UserError: if it is more than the data have coordinates.
    """
    latent_dim = getattr(config, "latent_dim", 1)
    if latent_dim > spec.dim:
        raise UserError(
            f"latent_dim={latent_dim} of {config.name} is more than the {spec.dim} coordinates of {spec.name}: "
            f"set latent_dim={spec.dim} or less"
        )


def check_ood(module: Model | TwoStep, splits: Splits, ood: Mapping[str, Splits]) -> None:
    """Report what a test on other data will lack: a density, or validation rows for calibration."""
    if not ood:
        return
    if not isinstance(module, DensityEstimator | TwoStep):
        logger.info("the model has no density: other data are detected by their distance alone")
    if splits.valid is None or len(splits.valid) < MIN_ROWS:
        logger.warning("too few validation rows for calibration (make_valid_loader): no p-values, no two-part score")


def check_features(names: Iterable[str], keys: MetricKeys, spec: DataSpec, splits: Splits) -> str:
    """Return in which features samples will be compared, in words; empty if no metric compares any.

    Raises:
        UserError: if the data can't have such features, or have too few rows.
    """
    wanted = [one for one in (METRICS[name] for name in dict.fromkeys(names)) if isinstance(one, SampleMetric)]
    if not wanted:
        return ""
    rows = min(len(splits.train), len(splits.test), keys.gen_samples)
    for metric in wanted:
        if rows < (least := metric.min_rows(keys.nearest_k)):
            raise UserError(
                f"{metric.name}: needs {least} training rows, test rows and samples, and {spec.name} has "
                f"{len(splits.train)}, {len(splits.test)} and {keys.gen_samples}: leave it out, or give more"
            )
    choice = FeatureChoice(spec, keys, splits)
    choice.check()
    called = [metric.name for metric in wanted]
    no_fid = "fd" in called and choice.name != INCEPTION
    note = "; fd is not FID, which needs Inception's features" if no_fid else ""
    if no_fid and spec.is_image and keys.weights is None:
        note += f", whose weights are missing (key inception_weights, or {INCEPTION_VARIABLE})"
    return f"{', '.join(called)}: in {choice.name} features of {spec.name} (key metric_kwargs){note}"


def features_of(settings: Settings, splits: Splits, module: Model | TwoStep) -> list[str]:
    """Return in which features a run's samples will be compared, a line for each model that has such metrics.

    Raises:
        UserError: if the data can't have such features, or a file that these need is missing.
    """
    lines = [
        check_features(_metrics_of(one), one.config.metric_kwargs, one.spec, splits)
        for one in components_of(settings, splits.spec, module)
    ]
    return [line for line in lines if line]


def note_missing_validation(splits: Splits) -> None:
    """Report what a run without validation rows lacks."""
    if splits.valid is None:
        logger.info(
            "no validation rows (make_valid_loader=False): nothing is validated, no p-values; unlike in the paper's "
            "code, test rows do not replace them; make_valid_loader=True holds out a tenth of the training rows"
        )


def warn_of_units(other: DataSpec, spec: DataSpec) -> None:
    """Warn of other data that are not on the scale of a run's images."""
    if (spec.discrete or other.discrete) and (other.low, other.high) != (spec.low, spec.high):
        logger.warning(
            "%s can have values from %g to %g, and %s from %g to %g: the test may detect their units",
            *(other.name, other.low, other.high, spec.name, spec.low, spec.high),
        )


def fit_batches(config: RunConfig, splits: Splits) -> RunConfig:
    """Return a run's config whose default training batch is no larger than the training data.

    Raises:
        UserError: if a larger one was asked for.
    """
    rows = len(splits.train)
    if config.train_batch_size <= rows:
        return config
    if "train_batch_size" in config.model_fields_set:
        raise UserError(
            f"train_batch_size={config.train_batch_size} is more than the {rows} training rows of {splits.spec.name}: "
            f"set train_batch_size={rows} or less"
        )
    return config.model_copy(update={"train_batch_size": rows})


def warn_of_seen_rows(pretrained: Run, digest: str) -> None:
    """Warn of a pretrained autoencoder with other training rows: a run's held-out rows may be among them."""
    if pretrained.digest and pretrained.digest != digest:
        logger.warning(
            "%s: its autoencoder was trained on other data or another split (dataset, seed, make_valid_loader), "
            "and may have seen rows that this run holds out",
            pretrained.path,
        )


def refuse_other_data(run: Run, splits: Splits) -> None:
    """Refuse data that are not those of a run; a file may have moved, if it keeps its name or its content is known.

    Raises:
        UserError: naming the data.
    """
    now, then = splits.spec, run.spec
    same = splits.digest() == run.digest if run.digest else Path(now.name).name == Path(then.name).name
    if not same or now.model_copy(update={"name": then.name}) != then:
        raise UserError(
            f"{run.path}: {now.name} does not hold the data of this run (other rows, values or order); put them back, "
            "or start a new run"
        )


def _check_early_stopping(component: Component, splits: Splits) -> None:
    config = component.config
    stop = config.early_stopping_metric
    if stop is not None and splits.valid is None and component.trained:
        raise UserError(
            f"early_stopping_metric={stop} of {config.name} needs validation rows, and the test rows are not for "
            "that: leave make_valid_loader=True, or set early_stopping_metric=None"
        )
    if stop is not None and not METRICS[stop].stops:
        raise UserError(
            f"early_stopping_metric={stop} of {config.name} is not a single value on validation rows: use loss or fd"
        )
    if asks_for_ood(config.valid_metrics):
        raise UserError(
            f"valid_metrics of {config.name}: metrics of the OOD test belong to test_metrics: validation has no other "
            "dataset"
        )


def _metrics_of(component: Component | Whole) -> tuple[str, ...]:
    config = component.config
    if not isinstance(config, ModelConfig):
        return config.test_metrics
    stop = config.early_stopping_metric
    return (*config.valid_metrics, *config.test_metrics, *([stop] if stop else []))


def _hint_at_standardisation(config: ModelConfig, splits: Splits) -> None:
    """Warn of columns of vectors that one common scale makes too small to be learned."""
    if splits.spec.is_image or config.whitening_transform:
        return
    stds = splits.train[:].std(0)
    stds = stds[stds > 0]
    if len(stds) and (largest := float(stds.max())) > BADLY_SCALED * (smallest := float(stds.min())):
        logger.warning(
            "%s: the standard deviations of its columns range from %.2g to %.2g, and the smallest hardly count for %s: "
            "consider whitening_transform=True",
            *(splits.spec.name, smallest, largest, config.name),
        )
