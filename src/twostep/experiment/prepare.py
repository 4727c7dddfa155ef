"""From a request, or from a run's directory, to an experiment that is ready to train."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from twostep.core.checkpoint import State
from twostep.core.keys import resolve_fid
from twostep.core.schema import DataSpec, UserError
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.data.load import load_data, located, takes_image_size
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.auto_latent_dim import estimated
from twostep.experiment.experiment import Experiment
from twostep.experiment.preflight import (
    check,
    check_latent_dim,
    check_ood,
    features_of,
    fit_batches,
    note_missing_validation,
    refuse_other_data,
    warn_of_seen_rows,
    warn_of_units,
)
from twostep.experiment.weights import put_weights, refuse_untrained
from twostep.metrics.ood.ood import asks_for_ood
from twostep.models.base import GeneralizedAutoencoder, Model, ModelConfig
from twostep.models.two_step import latent_spec
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import Run, tags
from twostep.runs.request import Limits, Request
from twostep.training.engine import Device, Engine
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
        test_ood: add the OOD test, as a metric of that test in `test_metrics` does.

    Raises:
        UserError: for whatever is wrong with the request or its data.
    """
    config = request.run_config()
    ood_dataset = config.ood_dataset and located(config.ood_dataset)
    config = config.model_copy(update={"dataset": located(config.dataset), "ood_dataset": ood_dataset})
    pretrained = config.pretrained_gae if isinstance(config, TwoStepRunConfig) else None
    source = None if pretrained is None else Run.open(pretrained)
    loaded = None if source is None else _pretrained_config(source, request.overrides.get("gae", {}))
    splits = _load(config)
    config = resolve_fid(fit_batches(config, splits), splits.spec.is_image)
    engine = Engine(config.device, config.precision)
    request, size = estimated(request, splits, engine, config.seed)
    torch.manual_seed(derive(config.seed, "weights"))
    configs: dict[str, ModelConfig] = {}
    models: dict[str, Model] = {}
    if "de" in request.models:
        configs["gae"] = loaded or request.preset("gae", splits.spec)
        check_latent_dim(configs["gae"], splits.spec)
        gae = cast(GeneralizedAutoencoder, configs["gae"].build(splits.spec))
        embeddings = latent_spec(splits.spec, gae.latent_dim)
        configs["de"] = request.preset("de", embeddings)
        models = {"gae": gae, "de": configs["de"].build(embeddings)}
    else:
        configs["model"] = request.preset("model", splits.spec)
        if request.is_gae:
            check_latent_dim(configs["model"], splits.spec)
        models["model"] = configs["model"].build(splits.spec)
    settings = Settings(config, configs, request.is_gae)
    ood = _others(config, splits.spec) if test_ood or asks_for_ood(settings.test_metrics) else {}
    check(settings, splits, models, engine.world_size)
    features = features_of(settings, splits, models)
    check_ood(models, splits, ood)
    note_missing_validation(splits)
    state = None if source is None else _pretrained_state(source, best_first)
    if state is not None:
        put_weights(models["gae"], state, f"{pretrained}: the autoencoder is for other data")
    digest = splits.digest()
    if source is not None:
        warn_of_seen_rows(source, digest)
    more = {} if size is None else size.files()
    path = engine.on_first(lambda: Run.create(settings, splits.spec, digest, engine.world_size, more).path)
    run = Run(path, settings, splits.spec, digest)
    engine.on_first(run.claim)
    experiment = Experiment(settings, splits, engine, models, run, ood)
    if state is not None:
        if "gae" in experiment.trainers:
            _train_further(experiment.trainers["gae"], state, limits or Limits())
            engine.on_first(experiment.keep_limits)
        if engine.is_main:
            run.save("latest", experiment.state())
    logger.info("run directory: %s", path)
    for line in features:
        logger.info("%s", line)
    return experiment


def resume(
    path: Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    best_first: bool = False,
    limits: Limits | None = None,
    writing: bool = False,
    test_ood: bool = False,
) -> Experiment:
    """Open a run and take up its last state.

    Args:
        path: its directory.
        overrides: values by key, for `run` and each model, of keys that can change in a run that exists.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        limits: new epoch limits.
        writing: keep other processes from writing into the run, note there that this one goes on with it, and see
            that its samples can be compared as it says.
        test_ood: add the OOD test, as a metric of that test in `test_metrics` does.

    Raises:
        UserError: for a directory that is no run, a damaged one, one in use, or a key that can't change.
    """
    run = Run.open(path)
    settings = run.settings.adjusted(overrides or {}).resolve_fid(run.spec.is_image)
    if limits is not None and limits.gae is not None and not settings.trains("gae"):
        raise UserError(f"--max-epochs-loaded-gae: the autoencoder of {path} is frozen and is not trained further")
    place = Path(located(settings.run.dataset))
    if place.is_absolute() and not place.exists():
        flag = "--shared-config dataset=" if settings.is_two_step else "--config dataset="
        flag = flag if writing else "--data "
        raise UserError(f"{place}: no such file or folder; say where the data of {path} are now: {flag}PATH")
    splits = _load(settings.run)
    refuse_other_data(run, splits)
    ood = _others(settings.run, splits.spec) if test_ood or (writing and asks_for_ood(settings.test_metrics)) else {}
    engine = Engine(settings.run.device, settings.run.precision)
    torch.manual_seed(derive(settings.run.seed, "weights"))
    models = build_models(settings, splits.spec)
    check(settings, splits, models, engine.world_size)
    features = features_of(settings, splits, models) if writing else []
    check_ood(models, splits, ood)
    run = Run(path, settings, run.spec, run.digest)
    if writing:
        engine.on_first(run.claim)
    try:
        experiment = Experiment(settings, splits, engine, models, run, ood)
        _take_up(experiment, best_first, limits or Limits())
        if writing:
            engine.on_first(lambda: run.record(engine.world_size))
    except UserError:
        run.close()
        raise
    for line in features:
        logger.info("%s", line)
    return experiment


@dataclass(frozen=True)
class Place:
    """Where a finished run is opened, as far as that is not where it was trained.

    Args:
        device: kind of device.
        data: where its data are now: their file or folder, or the `data_root` of a data set known by name.
    """

    device: Device | None = None
    data: Path | None = None

    def keys(self, config: RunConfig) -> dict[str, Any]:
        """Return the keys of the run that say so."""
        found: dict[str, Any] = {} if self.device is None else {"device": self.device}
        if self.data is not None:
            own = Path(config.dataset).is_absolute()
            found["dataset" if own else "data_root"] = located(str(self.data)) if own else self.data
        return found


HERE = Place()


def trained(path: Path, best_first: bool = False, place: Place = HERE) -> Experiment:
    """Open a run to look at its models, which take their best weights.

    Args:
        path: its directory.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        place: device and data, where they are not those of its start.

    Raises:
        UserError: as `resume` does, and for a run whose training has saved nothing yet, or a model not trained yet.
    """
    require_checkpoint(path)
    experiment = resume(path, {"run": place.keys(Run.open(path).settings.run)}, best_first)
    refuse_untrained(path, {part: one.steps_done for part, one in experiment.trainers.items()}, best_first)
    for trainer in experiment.trainers.values():
        trainer.use_best()
    return experiment


def require_checkpoint(path: Path) -> None:
    """Refuse the directory of a run whose training has saved nothing yet.

    Raises:
        UserError: saying so.
    """
    if not Run.open(path).has_checkpoint():
        raise UserError(f"{path}: has no checkpoint, so nothing is trained yet: go on with it by --load-dir {path}")


def _take_up(experiment: Experiment, best_first: bool, limits: Limits) -> None:
    run = experiment.run
    if run.has_checkpoint():
        experiment.load(run.load(*tags(best_first)))
    elif getattr(run.settings.run, "pretrained_gae", None) is not None:
        raise UserError(f"{run.path}: stopped before its pretrained autoencoder was copied into it; start a new run")
    else:
        logger.warning("%s: no checkpoint yet; starting from the beginning", run.path)
    for part, trainer in experiment.trainers.items():
        limit = limits.of(part)
        if limit is not None:
            _set_limit(trainer, limit)


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


def load_other(name: str, config: RunConfig, spec: DataSpec, kwargs: Mapping[str, Any] | None = None) -> Splits:
    """Load other data, which a run's are told from.

    Args:
        name: a data set's name or path.
        config: of the run.
        spec: facts of its data.
        kwargs: keys of the other data set; without any, images of any size are brought to that of the run's.

    Raises:
        UserError: if they can't be loaded, or are of another shape.
    """
    if not kwargs and spec.is_image and takes_image_size(name):
        kwargs = {"image_size": spec.shape[1:]}
    ood = load_data(name, data_root=config.data_root, seed=config.seed, make_valid=False, kwargs=kwargs)
    if ood.spec.shape != spec.shape:
        shapes = ["x".join(map(str, shape)) for shape in (ood.spec.shape, spec.shape)]
        raise UserError(
            f"points of {name} have the shape {shapes[0]} and those of {spec.name} {shapes[1]}: "
            "compare it with data of the same shape"
        )
    warn_of_units(ood.spec, spec)
    return ood


def _others(config: RunConfig, spec: DataSpec) -> dict[str, Splits]:
    """Load what the OOD test compares a run's data with, by name."""
    name = config.ood_dataset or OOD_PARTNERS.get(config.dataset)
    if name is None:
        raise UserError(f"OOD test: {config.dataset} has no usual partner: say ood_dataset=NAME or PATH")
    return {Path(name).stem: load_other(name, config, spec, config.ood_dataset_kwargs)}


def _pretrained_config(source: Run, overrides: Mapping[str, Any]) -> ModelConfig:
    if not source.settings.is_gae:
        raise UserError(f"{source.path}: not a run of an autoencoder alone; train one by single_main.py with --is-gae")
    return source.settings.adjusted({"model": overrides}).resolve_fid(source.spec.is_image).models["model"]


def _pretrained_state(source: Run, best_first: bool) -> State:
    return source.load(*tags(best_first)).under("model")


def _set_limit(trainer: Trainer, max_epochs: int) -> None:
    if max_epochs < trainer.epochs_done:
        logger.info(
            "%s: has had %d epochs already; the new limit of %d only keeps it from more",
            trainer.name,
            trainer.epochs_done,
            max_epochs,
        )
    trainer.raise_limit(max(max_epochs, trainer.epochs_done))


def _train_further(trainer: Trainer, state: State, limits: Limits) -> None:
    trainer.load_state_dict(state)
    trainer.first_epoch = trainer.epochs_done
    limit = limits.of("gae")
    if limit is not None:
        _set_limit(trainer, limit)
    if trainer.finished:
        logger.warning(
            "the pretrained autoencoder has had its %d epochs and is not trained further: raise them by "
            "--max-epochs-loaded-gae, or say --freeze-pretrained-gae",
            trainer.epochs_done,
        )
