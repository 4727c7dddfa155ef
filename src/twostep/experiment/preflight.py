"""What is refused or warned of before a run directory is made or written into, once the data are known."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from twostep.core.keys import INCEPTION_VARIABLE, MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.metrics import METRICS, check_metrics
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.features.inception import NAME as INCEPTION
from twostep.metrics.ood.conformal import MIN_ROWS
from twostep.metrics.ood.ood import asks_for_ood
from twostep.metrics.samples.table import SampleMetric
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig
from twostep.models.two_step import TwoStep
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import Run

BADLY_SCALED = 1000  # standard deviations of columns, largest to smallest

logger = logging.getLogger("twostep")


def check_ood(models: Mapping[str, Model], splits: Splits, ood: Mapping[str, Splits]) -> None:
    """Tell what a test on other data will lack: a density, or validation rows to calibrate on."""
    if not ood:
        return
    if "model" in models and not isinstance(models["model"], DensityEstimator):
        logger.info("%s has no density: other data are told by their distance alone", models["model"].config.name)
    if splits.valid is None or len(splits.valid) < MIN_ROWS:
        logger.warning("too few validation rows to calibrate on (make_valid_loader): no p-values, no two-part score")


def note_missing_validation(splits: Splits) -> None:
    """Say what a run without validation rows lacks, and that the test rows do not stand in for them."""
    if splits.valid is None:
        logger.info(
            "no validation rows (make_valid_loader=False): nothing is validated, no p-values; the test rows do not "
            "stand in for them as in the paper's code; make_valid_loader=True holds out a tenth of the training rows"
        )


def warn_of_units(other: DataSpec, spec: DataSpec) -> None:
    """Tell of other data that are not on the scale of a run's pictures."""
    if (spec.discrete or other.discrete) and (other.low, other.high) != (spec.low, spec.high):
        logger.warning(
            "%s can have values from %g to %g, and %s from %g to %g: the test may tell their units apart",
            *(other.name, other.low, other.high, spec.name, spec.low, spec.high),
        )


def fit_batches(config: RunConfig, splits: Splits) -> RunConfig:
    """Let the default training batch give way to small data.

    Raises:
        UserError: if a larger one than the training data was asked for.
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
    """Tell of a pretrained autoencoder that had other training rows: a run's held-out rows may be among them."""
    if pretrained.digest and pretrained.digest != digest:
        logger.warning(
            "%s: its autoencoder was trained on other data or split (dataset, seed, make_valid_loader), "
            "and may have seen rows that this run holds out",
            pretrained.path,
        )


def refuse_other_data(run: Run, splits: Splits) -> None:
    """Refuse data that are not those of a run; a file may lie elsewhere now, if only its name is known, under it.

    Raises:
        UserError: naming the data.
    """
    now, then = splits.spec, run.spec
    same = splits.digest() == run.digest if run.digest else Path(now.name).name == Path(then.name).name
    if not same or now.model_copy(update={"name": then.name}) != then:
        raise UserError(
            f"{run.path}: {now.name} does not hold the data that the run was started with (other rows, values or "
            "order); put them back, or start a new run"
        )


def check(settings: Settings, splits: Splits, models: Mapping[str, Model], ranks: int) -> None:
    """Refuse what training would stumble over: metrics a model lacks, early stopping without data, too many ranks.

    Raises:
        UserError: naming it.
    """
    rows = min(len(splits.train), len(splits.test), len(splits.test if splits.valid is None else splits.valid))
    smallest = min(settings.run.train_batch_size, settings.run.valid_batch_size, settings.run.test_batch_size)
    if ranks > min(rows, smallest):
        raise UserError(f"{ranks} ranks are more than there are rows in a split ({rows}) or in a batch ({smallest})")
    for part, model in models.items():
        config = model.config
        if part == "gae" or settings.is_gae:
            check_latent_dim(config, splits.spec)
        if part != "de":
            _hint_at_whitening(config, splits)
        stop = config.early_stopping_metric
        if stop is not None and splits.valid is None and settings.trains(part):
            raise UserError(
                f"early_stopping_metric={stop} of {config.name} needs validation rows, and the test rows are not for "
                "that: leave make_valid_loader=True, or set early_stopping_metric=None"
            )
        if stop is not None and not METRICS[stop].stops:
            raise UserError(
                f"early_stopping_metric={stop} of {config.name} is no single figure of validation rows: take loss or fd"
            )
        if asks_for_ood(config.valid_metrics):
            raise UserError(
                f"valid_metrics of {config.name}: figures of the OOD test are for test_metrics: validation has no "
                "other data set"
            )
        names = [*config.valid_metrics, *config.test_metrics, *([stop] if stop else [])]
        check_metrics(names, model, config.name)
    if isinstance(settings.run, TwoStepRunConfig):
        two_step = TwoStep(cast(GeneralizedAutoencoder, models["gae"]), cast(DensityEstimator, models["de"]))
        check_metrics(settings.run.test_metrics, two_step, "a two-step model")


def check_features(names: Iterable[str], keys: MetricKeys, spec: DataSpec, splits: Splits) -> str:
    """Return in which features samples of some data will be compared, in words; empty if no metric does that.

    Raises:
        UserError: if the data can't have such features, or have too few rows.
    """
    metrics = [METRICS[name] for name in dict.fromkeys(names)]
    wanted = [metric.name for metric in metrics if isinstance(metric, SampleMetric)]
    if not wanted:
        return ""
    rows = min(len(splits.train), len(splits.test), keys.gen_samples)
    for metric in metrics:
        if isinstance(metric, SampleMetric) and rows < (least := metric.min_rows(keys.nearest_k)):
            raise UserError(
                f"{metric.name}: needs {least} training rows, test rows and samples, and {spec.name} has "
                f"{len(splits.train)}, {len(splits.test)} and {keys.gen_samples}: leave it out, or give more"
            )
    choice = FeatureChoice.of(spec, keys, splits)
    choice.check()
    no_fid = "fd" in wanted and choice.name != INCEPTION
    told = "; fd is no FID, which is the one in Inception's features" if no_fid else ""
    if no_fid and spec.is_image and keys.weights is None:
        told += f", whose weights are not here (key inception_weights, or {INCEPTION_VARIABLE})"
    return f"{', '.join(wanted)}: in {choice.name} features of {spec.name} (key metric_kwargs){told}"


def features_of(settings: Settings, splits: Splits, models: Mapping[str, Model]) -> list[str]:
    """Return in which features a run's samples will be compared, a line for each of its parts that compares any.

    Raises:
        UserError: if the data can't have such features, or a file that these need is missing.
    """
    lines = [check_features(names, keys, spec, splits) for names, keys, spec in _compared(settings, models)]
    return [line for line in lines if line]


def _compared(
    settings: Settings, models: Mapping[str, Model]
) -> Iterator[tuple[tuple[str, ...], MetricKeys, DataSpec]]:
    """Give the metrics, their keys and the facts of what is sampled, for each part of a run."""
    for model in models.values():
        config = model.config
        stop = config.early_stopping_metric
        names = (*config.valid_metrics, *config.test_metrics, *([stop] if stop else []))
        yield names, config.metric_kwargs, model.spec
    if isinstance(settings.run, TwoStepRunConfig):
        yield settings.run.test_metrics, settings.run.metric_kwargs, models["gae"].spec


def check_latent_dim(config: ModelConfig, spec: DataSpec) -> None:
    """Check the latent dimension of an autoencoder, before its networks are built: they may need any memory.

    Raises:
        UserError: if it is more than the data have coordinates.
    """
    latent_dim = getattr(config, "latent_dim", 1)
    if latent_dim > spec.dim:
        raise UserError(
            f"latent_dim={latent_dim} of {config.name} is more than the {spec.dim} coordinates of {spec.name}: "
            f"set latent_dim={spec.dim} or less"
        )


def _hint_at_whitening(config: ModelConfig, splits: Splits) -> None:
    """Tell of columns of vectors that one common scale makes too small to be learned."""
    if splits.spec.is_image or config.whitening_transform:
        return
    spreads = splits.train[:].std(0)
    spreads = spreads[spreads > 0]
    if len(spreads) and (most := float(spreads.max())) > BADLY_SCALED * (least := float(spreads.min())):
        logger.warning(
            "%s: the standard deviations of its columns go from %.2g to %.2g, and those of the smallest hardly count "
            "for %s: consider whitening_transform=True",
            splits.spec.name,
            least,
            most,
            config.name,
        )
