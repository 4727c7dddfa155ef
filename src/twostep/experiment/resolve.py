"""From what is asked for and the data to frozen configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twostep.core.keys import Config, resolve_fid
from twostep.core.schema import DataSpec, UserError
from twostep.core.seeds import derive
from twostep.data.base import Source, Splits
from twostep.data.load import is_path, load_data, located, read_rows, split_source, takes_image_size
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.auto_latent_dim import LatentSize, with_latent_dim
from twostep.metrics import METRICS
from twostep.models.base import GeneralizedAutoencoder, ModelConfig
from twostep.models.table import build_model
from twostep.models.two_step import latent_spec
from twostep.runs.config import RunConfig, Settings
from twostep.runs.overrides import Request
from twostep.training.engine import Device, Engine

logger = logging.getLogger("twostep")


class Resolved(NamedTuple):
    """The configs of a new run and its models, and how `latent_dim=auto` was resolved, if it was asked for.

    `gae` is the autoencoder, untrained, if only that itself knows its number of latent coordinates.
    """

    settings: Settings
    size: LatentSize | None
    gae: GeneralizedAutoencoder | None = None


def resolve(
    request: Request, run: RunConfig, splits: Splits, engine: Engine, pretrained: ModelConfig | None = None
) -> Resolved:
    """Return the configs of a new run.

    `run` is what `request.run_config` returned, `pretrained` the config of a pretrained autoencoder.

    Raises:
        UserError: if the configs contradict the data.
    """
    spec, rows = splits.spec, len(splits.train)
    if run.train_batch_size > rows and "train_batch_size" in run.model_fields_set:
        raise UserError(
            f"train_batch_size={run.train_batch_size} is more than the {rows} training rows of {spec.name}: "
            f"set train_batch_size={rows} or less"
        )
    run = resolve_fid(run.model_copy(update={"train_batch_size": min(run.train_batch_size, rows)}), spec.is_image)
    first = "gae" if request.is_two_step else "model"
    config, found = pretrained, None
    if config is None:
        config, found = with_latent_dim(request.model_config(first, spec), splits, engine, run.seed)
    latent_dim = getattr(config, "latent_dim", None)
    if latent_dim is not None and latent_dim > spec.dim and (request.is_two_step or request.is_gae):
        raise UserError(  # before its networks, of any size, are built
            f"latent_dim={latent_dim} of {config.name} is more than the {spec.dim} coordinates of {spec.name}: "
            f"set latent_dim={spec.dim} or less"
        )
    if not request.is_two_step:
        return Resolved(Settings(run, {first: config}, request.is_gae), found)
    gae = None
    if latent_dim is None or getattr(config, "encoder_net", None) == "rescnn":
        # a model without such a key, of another package or of one's own, or that need not have a log-volume
        with torch.random.fork_rng([]):
            torch.manual_seed(derive(run.seed, "weights"))
            gae = build_model(config, spec)
        assert isinstance(gae, GeneralizedAutoencoder)
        latent_dim = gae.latent_dim
        config = _with_metrics_of(gae, config, request.overrides.get("gae", {}))
        run = _with_metrics_of(gae, run, request.overrides.get("run", {}))
    de = request.model_config("de", latent_spec(spec, latent_dim, getattr(config, "latent_shape", None)))
    return Resolved(Settings(run, {first: config, "de": de}), found, gae)


def _with_metrics_of(gae: GeneralizedAutoencoder, config: Config, given: Mapping[str, Any]) -> Config:
    """Leave out of metrics that nobody asked for what an encoder of one's own has not, and say so."""
    update: dict[str, Any] = {}
    for key in ("valid_metrics", "test_metrics"):
        names: tuple[str, ...] = getattr(config, key, ())
        lacking = {name: METRICS[name].lacking(gae) for name in names}
        if key not in given and any(lacking.values()):
            update[key] = tuple(name for name in names if not lacking[name])
            left_out = ", ".join(name for name in names if lacking[name])
            logger.info("%s: without %s: %s", key, left_out, next(filter(None, lacking.values())))
    return config.model_copy(update=update)


def load_splits(config: RunConfig) -> Splits:
    """Load the data of a run."""
    return load_data(
        config.dataset,
        data_root=config.data_root,
        seed=config.seed,
        make_valid=config.make_valid_loader,
        valid_fraction=config.valid_fraction,
        kwargs=config.dataset_kwargs,
    )


def load_other(name: str, config: RunConfig, spec: DataSpec, kwargs: Mapping[str, Any] | None = None) -> Splits:
    """Load other data, with which a run's are compared; images are resized to those of the run, unless keys are given.

    Raises:
        UserError: if they can't be loaded, or have another shape.
    """
    if spec.table is not None and is_path(name):
        rows = read_rows(Path(name), columns=spec.table, kwargs=kwargs)
        return split_source(Source(rows, low=spec.low, high=spec.high, columns=spec.table), name, config.seed, 0)
    if not kwargs and spec.is_image and takes_image_size(name):
        kwargs = {"image_size": spec.shape[1:]}
    other = load_data(name, data_root=config.data_root, seed=config.seed, make_valid=False, kwargs=kwargs)
    if other.spec.shape != spec.shape:
        shapes = ["x".join(map(str, shape)) for shape in (other.spec.shape, spec.shape)]
        raise UserError(
            f"points of {name} have the shape {shapes[0]} and those of {spec.name} {shapes[1]}: "
            "compare it with data of the same shape"
        )
    its = other.spec
    if (spec.discrete or its.discrete) and (its.low, its.high) != (spec.low, spec.high):
        logger.warning(
            "%s can have values from %g to %g, and %s from %g to %g: the test may detect their units",
            *(its.name, its.low, its.high, spec.name, spec.low, spec.high),
        )
    return other


def load_others(config: RunConfig, spec: DataSpec) -> dict[str, Splits]:
    """Load the data with which the OOD test compares a run's, by name: those of its key, or its usual partner."""
    name = config.ood_dataset or OOD_PARTNERS.get(config.dataset)
    if name is None:
        raise UserError(f"OOD test: {config.dataset} has no usual partner: set ood_dataset=NAME or PATH")
    return {Path(name).stem: load_other(name, config, spec, config.ood_dataset_kwargs)}


def moved(config: RunConfig, device: Device | None, data: Path | None) -> dict[str, Any]:
    """Return the keys of a run that is opened on another device, or with its data in another place, as overrides.

    Data in a file or folder are there; `data` is the `data_root` of a dataset known by name.
    """
    found: dict[str, Any] = {} if device is None else {"device": device}
    if data is not None:
        own = Path(config.dataset).is_absolute()
        found["dataset" if own else "data_root"] = located(str(data)) if own else data
    return found
