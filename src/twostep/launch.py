"""From a request, or from a run's directory, to an experiment that is ready to train: all checks come before it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from twostep.checkpoint import State
from twostep.config import RunConfig, Settings, TwoStepRunConfig
from twostep.data.base import Splits, load_data
from twostep.data.images import OOD_PARTNERS
from twostep.experiment import Experiment, put_weights
from twostep.metrics import check_metrics
from twostep.metrics.ood import scores_of
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig
from twostep.models.two_step import TwoStep, latent_spec
from twostep.request import Limits, Request
from twostep.runs import Run, tags
from twostep.schema import DataSpec, UserError
from twostep.seeds import derive
from twostep.training.distributed import Engine
from twostep.training.trainer import Trainer

logger = logging.getLogger("twostep")


def start(
    request: Request, best_first: bool = False, limits: Limits | None = None, test_ood: bool = False
) -> Experiment:
    """Prepare a new run; its directory is made last, when all that can be checked has been.

    Args:
        request: what is asked for.
        best_first: take a pretrained autoencoder from its `best_valid` checkpoint.
        limits: epoch limit of a pretrained autoencoder.
        test_ood: load a second data set too, which `test` tells the run's own from.

    Raises:
        UserError: for whatever is wrong with the request or its data.
    """
    config = request.run_config()
    pretrained = config.pretrained_gae if isinstance(config, TwoStepRunConfig) else None
    source = None if pretrained is None else Run.open(pretrained)
    loaded = None if source is None else _pretrained_config(source, request.overrides.get("gae", {}))
    splits = _load(config)
    ood = _load_ood(config, splits.spec) if test_ood else None
    engine = Engine(config.device, config.precision)
    torch.manual_seed(derive(config.seed, "weights"))
    configs: dict[str, ModelConfig] = {}
    models: dict[str, Model] = {}
    if "de" in request.models:
        configs["gae"] = loaded or request.preset("gae", splits.spec)
        gae = cast(GeneralizedAutoencoder, configs["gae"].build(splits.spec))
        embeddings = latent_spec(splits.spec, gae.latent_dim)
        configs["de"] = request.preset("de", embeddings)
        models = {"gae": gae, "de": configs["de"].build(embeddings)}
    else:
        configs["model"] = request.preset("model", splits.spec)
        models["model"] = configs["model"].build(splits.spec)
    settings = Settings(config, configs, request.is_gae)
    _check(settings, splits, models, engine)
    _check_ood(settings, models, ood)
    state = None if source is None else _pretrained_state(source, best_first)
    if state is not None:
        put_weights(models["gae"], state, f"{pretrained}: the autoencoder is for other data")
    run = Run.create(settings, splits.spec, engine.world_size) if engine.is_main else None
    path = engine.share(run.path if run else None)
    experiment = Experiment(settings, splits, engine, models, run or Run(path, settings, splits.spec), ood)
    if state is not None:
        if "gae" in experiment.trainers:
            _train_further(experiment.trainers["gae"], state, limits or Limits())
        if engine.is_main:
            experiment.run.save("latest", experiment.state())
    logger.info("run directory: %s", path)
    return experiment


def resume(
    path: Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    best_first: bool = False,
    limits: Limits | None = None,
    test_ood: bool = False,
) -> Experiment:
    """Open a run and take up its last state.

    Args:
        path: its directory.
        overrides: values by key, for `run` and each model, of keys that can change in a run that exists.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        limits: new epoch limits.
        test_ood: load a second data set too, which `test` tells the run's own from.

    Raises:
        UserError: for a directory that is no run, a damaged one, or a key that can't change.
    """
    run = Run.open(path)
    settings = run.settings.adjusted(overrides or {})
    splits = _load(settings.run)
    if splits.spec != run.spec:
        raise UserError(f"{path}: the data have changed since the run was started ({run.spec} then, {splits.spec} now)")
    ood = _load_ood(settings.run, splits.spec) if test_ood else None
    engine = Engine(settings.run.device, settings.run.precision)
    torch.manual_seed(derive(settings.run.seed, "weights"))
    models = build_models(settings, splits.spec)
    _check(settings, splits, models, engine)
    _check_ood(settings, models, ood)
    state = run.load(*tags(best_first)) if run.has_checkpoint() else None
    experiment = Experiment(settings, splits, engine, models, Run(path, settings, splits.spec), ood)
    if state is None and getattr(settings.run, "pretrained_gae", None) is not None:
        raise UserError(f"{path}: stopped before its pretrained autoencoder was copied into it; start a new run")
    if state is None:
        logger.warning("%s: no checkpoint yet; starting from the beginning", path)
    else:
        experiment.load(state, limits or Limits())
    return experiment


def build_models(settings: Settings, spec: DataSpec) -> dict[str, Model]:
    """Return the untrained models that the settings describe."""
    if not settings.is_two_step:
        return {"model": settings.models["model"].build(spec)}
    gae = cast(GeneralizedAutoencoder, settings.models["gae"].build(spec))
    return {"gae": gae, "de": settings.models["de"].build(latent_spec(spec, gae.latent_dim))}


def _load(config: RunConfig) -> Splits:
    return load_data(
        config.dataset,
        data_root=config.data_root,
        seed=config.seed,
        make_valid=config.make_valid_loader,
        kwargs=config.dataset_kwargs,
    )


def _load_ood(config: RunConfig, spec: DataSpec) -> Splits:
    name = config.ood_dataset or OOD_PARTNERS.get(config.dataset)
    if name is None:
        raise UserError(f"--test-ood: {config.dataset} has no usual partner: say ood_dataset=NAME or PATH")
    kwargs = config.ood_dataset_kwargs
    ood = load_data(name, data_root=config.data_root, seed=config.seed, make_valid=False, kwargs=kwargs)
    if ood.spec.shape != spec.shape:
        shapes = ["x".join(map(str, shape)) for shape in (ood.spec.shape, spec.shape)]
        raise UserError(
            f"--test-ood: points of {name} have the shape {shapes[0]} and those of {spec.name} {shapes[1]}: "
            "say ood_dataset= one of the same shape"
        )
    if (spec.discrete or ood.spec.discrete) and (ood.spec.low, ood.spec.high) != (spec.low, spec.high):
        logger.warning(
            "%s has values from %g to %g, and %s from %g to %g: the test may tell their units apart",
            *(name, ood.spec.low, ood.spec.high, spec.name, spec.low, spec.high),
        )
    return ood


def _check_ood(settings: Settings, models: Mapping[str, Model], ood: Splits | None) -> None:
    if ood is not None and not settings.is_two_step and not scores_of(models["model"]):
        raise UserError(f"--test-ood: {settings.models['model'].name} has no density: test it with a second step")


def _check(settings: Settings, splits: Splits, models: Mapping[str, Model], engine: Engine) -> None:
    """Refuse what training would stumble over: metrics a model lacks, early stopping without data, large batches."""
    size = settings.run.train_batch_size
    if size > len(splits.train):
        raise UserError(
            f"train_batch_size={size} is more than the {len(splits.train)} training rows of {splits.spec.name}: "
            f"set train_batch_size={len(splits.train)} or less"
        )
    rows = min(len(splits.train), len(splits.test), len(splits.test if splits.valid is None else splits.valid))
    smallest = min(size, settings.run.valid_batch_size, settings.run.test_batch_size)
    if engine.world_size > min(rows, smallest):
        raise UserError(
            f"{engine.world_size} ranks are more than there are rows in a split ({rows}) or in a batch ({smallest})"
        )
    for model in models.values():
        config = model.config
        stop = config.early_stopping_metric
        if stop is not None and splits.valid is None:
            raise UserError(
                f"early_stopping_metric={stop} of {config.name} needs validation rows, and the test rows are not for "
                "that: leave make_valid_loader=True, or set early_stopping_metric=None"
            )
        check_metrics([*config.valid_metrics, *config.test_metrics, *([stop] if stop else [])], model, config.name)
    if isinstance(settings.run, TwoStepRunConfig):
        two_step = TwoStep(cast(GeneralizedAutoencoder, models["gae"]), cast(DensityEstimator, models["de"]))
        check_metrics(settings.run.test_metrics, two_step, "a two-step model")


def _pretrained_config(source: Run, overrides: Mapping[str, Any]) -> ModelConfig:
    if not source.settings.is_gae:
        raise UserError(f"{source.path}: not a run of an autoencoder alone; train one by single_main.py with --is-gae")
    return source.settings.adjusted({"model": overrides}).models["model"]


def _pretrained_state(source: Run, best_first: bool) -> State:
    return source.load(*tags(best_first)).part("model")


def _train_further(trainer: Trainer, state: State, limits: Limits) -> None:
    trainer.load_state_dict(state)
    trainer.first_epoch = trainer.epochs_done
    limit = limits.of("gae")
    if limit is not None:
        trainer.raise_limit(limit)
    if trainer.finished:
        logger.warning(
            "the pretrained autoencoder has had its %d epochs and is not trained further: raise them by "
            "--max-epochs-loaded-gae, or say --freeze-pretrained-gae",
            trainer.epochs_done,
        )
