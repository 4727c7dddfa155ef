"""A run from its strings to its results: data, models, trainers, schedule, test, pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from twostep import pictures
from twostep.checkpoint import CheckpointError, State
from twostep.config import RunConfig, Settings, TwoStepRunConfig, config_class
from twostep.console import keep_in
from twostep.data.base import Splits, load_data
from twostep.data.batches import Batches
from twostep.data.latents import embed
from twostep.metrics import METRICS, Result, check_metrics, evaluate
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig, Role, evaluating
from twostep.models.two_step import TwoStep, latent_spec
from twostep.recorder import Recorder
from twostep.runs import Run, Tag
from twostep.schema import DataSpec, UserError
from twostep.seeds import derive
from twostep.training.distributed import Engine
from twostep.training.schedules import sequential
from twostep.training.trainer import Trainer

PICTURES = 64
LATEST_FIRST: tuple[Tag, ...] = ("latest", "best_valid")
BEST_FIRST: tuple[Tag, ...] = ("best_valid", "latest")

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Request:
    """A new run as it is asked for, before its data are known.

    Args:
        models: name of each model: `{"model": "vae"}`, or `{"gae": "vae", "de": "flow"}`; a two-step run with a
            pretrained autoencoder names only the density.
        overrides: values by key, for `run` and for each model.
        is_gae: whether one model alone is an autoencoder for a second step.
    """

    models: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, Any]]
    is_gae: bool = False

    def run_config(self) -> RunConfig:
        """Return the run's config, after every name and key of the request has been checked.

        Raises:
            UserError: for an unknown model, key or metric, a value of the wrong type or out of range.
        """
        kind = TwoStepRunConfig if "de" in self.models else RunConfig
        run = kind.parse(self.overrides.get("run", {}), "the run")
        for part, name in self.models.items():
            config = self._class(part).parse(self.overrides.get(part, {}), name)
            _look_up(*config.valid_metrics, *config.test_metrics, config.early_stopping_metric)
        if isinstance(run, TwoStepRunConfig):
            _look_up(*run.test_metrics)
        return run

    def preset(self, part: str, spec: DataSpec) -> ModelConfig:
        """Return a model's config: its defaults for this data, and the overrides on top."""
        return self._class(part).preset(spec, self._role(part), **self.overrides.get(part, {}))

    def _class(self, part: str) -> type[ModelConfig]:
        return config_class(self.models[part], self._role(part))

    def _role(self, part: str) -> Role:
        return "gae" if part == "gae" or (part == "model" and self.is_gae) else "de"


@dataclass(frozen=True)
class Limits:
    """Epoch limits of a loaded run that replace those it was started with; None keeps them."""

    every: int | None = None
    gae: int | None = None
    de: int | None = None

    def of(self, part: str) -> int | None:
        """Return the limit of one model: its own, or the common one."""
        return {"gae": self.gae, "de": self.de}.get(part) or self.every


class Experiment:
    """Everything of one run: settings, data, engine, models, directory, trainers.

    Use `start` or `resume` to make one.

    Args:
        settings: configs of the run and its models.
        splits: its data.
        engine: device, precision, ranks.
        models: by part: `model`, or `gae` and `de`.
        run: its directory.
    """

    def __init__(self, settings: Settings, splits: Splits, engine: Engine, models: dict[str, Model], run: Run) -> None:
        self.settings, self.splits, self.engine, self.models, self.run = settings, splits, engine, models, run
        self.trainers: dict[str, Trainer] = {}
        self.recorder = Recorder(run, engine, self.trainers, self.state)
        for part, model in models.items():
            if part == "gae" and getattr(settings.run, "freeze_pretrained_gae", False):
                engine.place(model)
                continue
            stop_metric = model.config.early_stopping_metric
            self.trainers[part] = Trainer(
                part,
                model,
                engine,
                self.recorder,
                partial(self._validate, model),
                settings.run.seed,
                lower_is_better=stop_metric is None or METRICS[stop_metric].lower_is_better,
            )

    @property
    def module(self) -> Model | TwoStep:
        """The trained model: the one, or the two as one."""
        if self.settings.is_two_step:
            return TwoStep(cast(GeneralizedAutoencoder, self.models["gae"]), cast(DensityEstimator, self.models["de"]))
        return self.models["model"]

    def batches(self, data: Tensor, size: int) -> Batches:
        """Return data in batches, of which this rank sees its share."""
        return Batches(data, size, self.engine.rank, self.engine.world_size, self.engine.device)

    def fit(self) -> None:
        """Train what is not trained yet.

        Raises:
            NonFiniteLossError: at the first step whose loss is not finite.
            InterruptedTraining: after a signal; the checkpoint is written.
        """
        train = self.batches(self.splits.train, self.settings.run.train_batch_size)
        valid = self._valid_batches(self.splits.valid)
        with self.recorder.listening():
            if not self.settings.is_two_step:
                self.trainers["model"].use(train, valid)
                self.trainers["model"].fit()
                return
            gae = self.trainers.get("gae")
            if gae is not None:
                gae.use(train, valid)
                self._warn_of_stale_density(gae)
            sequential(gae, self.trainers["de"], self._embeddings)

    def test(self) -> dict[str, dict[str, Result]]:
        """Measure every model on the test split, write the results and return them by part."""
        for trainer in self.trainers.values():
            trainer.use_best()
            if not trainer.finished:
                logger.warning(
                    "%s: tested after %d of %d epochs", trainer.name, trainer.epochs_done, trainer.max_epochs
                )
        results: dict[str, dict[str, Result]] = {}
        batches = self.batches(self.splits.test, self.settings.run.test_batch_size)
        for part, model in self.models.items():
            names = model.config.test_metrics
            results[part] = self._measure(names, model, self._embed(self.splits.test) if part == "de" else batches)
        if isinstance(self.settings.run, TwoStepRunConfig):
            results["two_step"] = self._measure(self.settings.run.test_metrics, self.module, batches)
        if self.engine.is_main:
            self.run.write_metrics("test", results)
            self.run.write_history({part: trainer.history for part, trainer in self.trainers.items()})
        for part, measured in results.items():
            for name, result in measured.items():
                logger.info("test %s: %s", part, result.line(name))
        return results

    def draw(self) -> None:
        """Draw samples and reconstructions into the run's `samples` folder."""
        if not self.engine.is_main:
            return
        with evaluating(self.module):
            drawn = draw_pictures(
                self.module, self.splits.test[:PICTURES], self.run.path / "samples", self._generator()
            )
        for name, canvas in drawn.items():
            self.run.log_pictures(name, canvas, sum(trainer.steps_done for trainer in self.trainers.values()))

    def state(self) -> State:
        """Return the state of the whole run."""
        parts = {part: trainer.state_dict() for part, trainer in self.trainers.items()}
        for part, model in self.models.items():
            if part not in parts:
                parts[part] = State({f"model.{key}": value for key, value in model.state_dict().items()})
        return State.join(parts)

    def load(self, state: State, limits: Limits) -> None:
        """Take up a state of this run.

        Raises:
            CheckpointError: if it is that of another model.
        """
        for part, model in self.models.items():
            try:
                if part in self.trainers:
                    self.trainers[part].load_state_dict(state.part(part))
                else:
                    model.load_state_dict(state.part(f"{part}.model").tensors)
            except (RuntimeError, KeyError) as error:
                raise CheckpointError(
                    f"{self.run.path}: the checkpoint is of another {part} than the config describes ({_short(error)})"
                ) from None
            limit = limits.of(part)
            if part in self.trainers and limit is not None:
                self.trainers[part].raise_limit(limit)

    def _measure(self, names: tuple[str, ...], model: Model | TwoStep, batches: Batches) -> dict[str, Result]:
        seed = derive(self.settings.run.seed, "test", self.engine.rank)
        return evaluate(names, model, batches, self.engine.sum, seed)

    def _validate(self, model: Model, batches: Batches) -> dict[str, float]:
        config = model.config
        names = [*config.valid_metrics, *([config.early_stopping_metric] if config.early_stopping_metric else [])]
        seed = derive(self.settings.run.seed, "valid", self.engine.rank)
        return {name: result.value for name, result in evaluate(names, model, batches, self.engine.sum, seed).items()}

    def _valid_batches(self, data: Tensor | None) -> Batches | None:
        return None if data is None else self.batches(data, self.settings.run.valid_batch_size)

    def _embed(self, data: Tensor, size: int | None = None) -> Batches:
        gae = cast(GeneralizedAutoencoder, self.models["gae"])
        with evaluating(gae):
            latents = embed(gae.encode, data, self.engine.device)
        return self.batches(latents, size or self.settings.run.test_batch_size)

    def _embeddings(self) -> tuple[Batches, Batches | None]:
        train = self._embed(self.splits.train, self.settings.run.train_batch_size)
        valid = self.splits.valid
        return train, None if valid is None else self._embed(valid, self.settings.run.valid_batch_size)

    def _warn_of_stale_density(self, gae: Trainer) -> None:
        if not gae.finished and self.trainers["de"].steps_done:
            logger.warning(
                "the autoencoder is trained further, and the density was fitted to its earlier embeddings: "
                "raise --max-epochs-loaded-de too"
            )

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.engine.device).manual_seed(derive(self.settings.run.seed, "pictures"))


def start(request: Request, best_first: bool = False, limits: Limits | None = None) -> Experiment:
    """Prepare a new run; its directory is made last, when all that can be checked has been.

    Args:
        request: what is asked for.
        best_first: take a pretrained autoencoder from its `best_valid` checkpoint.
        limits: epoch limit of a pretrained autoencoder.

    Raises:
        UserError: for whatever is wrong with the request or its data.
    """
    config = request.run_config()
    pretrained = config.pretrained_gae if isinstance(config, TwoStepRunConfig) else None
    source = None if pretrained is None else Run.open(pretrained)
    loaded = None if source is None else _pretrained_config(source, request.overrides.get("gae", {}))
    splits = _load(config)
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
    state = None if source is None else _pretrained_state(source, best_first)
    if state is not None:
        _put_weights(models["gae"], state, f"{pretrained}: the autoencoder is for other data")
    run = Run.create(settings, splits.spec, engine.world_size) if engine.is_main else None
    path = engine.share(run.path if run else None)
    experiment = Experiment(settings, splits, engine, models, run or Run(path, settings, splits.spec))
    if state is not None and "gae" in experiment.trainers:
        _train_further(experiment.trainers["gae"], state, limits or Limits())
    if engine.is_main:
        keep_in(path)
    logger.info("run directory: %s", path)
    return experiment


def resume(
    path: Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    best_first: bool = False,
    limits: Limits | None = None,
) -> Experiment:
    """Open a run and take up its last state.

    Args:
        path: its directory.
        overrides: values by key, for `run` and each model, of keys that can change in a run that exists.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        limits: new epoch limits.

    Raises:
        UserError: for a directory that is no run, a damaged one, or a key that can't change.
    """
    experiment = _reopen(path, overrides, best_first, limits)
    if experiment.engine.is_main:
        keep_in(path)
    return experiment


def _reopen(
    path: Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    best_first: bool = False,
    limits: Limits | None = None,
) -> Experiment:
    run = Run.open(path)
    settings = run.settings.adjusted(overrides or {})
    splits = _load(settings.run)
    if splits.spec != run.spec:
        raise UserError(f"{path}: the data have changed since the run was started ({run.spec} then, {splits.spec} now)")
    engine = Engine(settings.run.device, settings.run.precision)
    torch.manual_seed(derive(settings.run.seed, "weights"))
    models = build_models(settings, splits.spec)
    _check(settings, splits, models, engine)
    state = run.load(*(BEST_FIRST if best_first else LATEST_FIRST)) if run.has_checkpoint() else None
    experiment = Experiment(settings, splits, engine, models, Run(path, settings, splits.spec))
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


def load_module(path: Path, best_first: bool = False) -> Model | TwoStep:
    """Return a run's trained model on the CPU, in eval mode, without its data: the best weights it has.

    Raises:
        UserError: for a directory that is no run, has no checkpoint, or a damaged one.
    """
    run = Run.open(path)
    state = run.load(*(BEST_FIRST if best_first else LATEST_FIRST))
    models = build_models(run.settings, run.spec)
    for part, model in models.items():
        _put_weights(model, state.part(part), f"{path}: the checkpoint is of another {part} than the config describes")
        model.eval()
    if run.settings.is_two_step:
        return TwoStep(cast(GeneralizedAutoencoder, models["gae"]), cast(DensityEstimator, models["de"])).eval()
    return models["model"]


class TwoStepTrainers(NamedTuple):
    """The trainers of a two-step run; a frozen autoencoder has none."""

    gae: Trainer | None
    de: Trainer


class LoadedRun(NamedTuple):
    """A run in Python: `module, trainer, (train, valid, test) = load_run(path)`."""

    module: Model | TwoStep
    trainer: Trainer | TwoStepTrainers
    loaders: tuple[Batches, Batches | None, Batches]


def load_run(run_dir: str | Path, best_first: bool = False) -> LoadedRun:
    """Load a run: its module in eval mode with its best weights, its trainer, and its data in batches.

    Args:
        run_dir: directory of a one-step or two-step run.
        best_first: prefer the `best_valid` checkpoint to `latest`.

    Raises:
        UserError: as `resume` does.
    """
    experiment = _reopen(Path(run_dir), best_first=best_first)
    for trainer in experiment.trainers.values():
        trainer.use_best()
    config, splits, trainers = experiment.settings.run, experiment.splits, experiment.trainers
    loaders = (
        experiment.batches(splits.train, config.train_batch_size),
        None if splits.valid is None else experiment.batches(splits.valid, config.valid_batch_size),
        experiment.batches(splits.test, config.test_batch_size),
    )
    two_step = experiment.settings.is_two_step
    trainer = TwoStepTrainers(trainers.get("gae"), trainers["de"]) if two_step else trainers["model"]
    return LoadedRun(experiment.module.eval(), trainer, loaders)


def draw_pictures(
    module: Model | TwoStep, data: Tensor, folder: Path, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Write `samples.png` and `reconstructions.png` as far as the model and its data have them.

    Returns:
        the pictures by name, `(C, H, W)` in [0, 1]; nothing for data that are not images.
    """
    drawn: dict[str, Tensor] = {}
    spec = module.spec
    like = next(module.parameters())
    points = data.to(like.device, like.dtype)
    samples = module.sample(len(points), generator) if isinstance(module, DensityEstimator | TwoStep) else None
    if not spec.is_image:
        if samples is not None and spec.dim > 1:
            pictures.scatter(points, samples, folder / "samples.png")
        return drawn
    if samples is not None:
        drawn["samples"] = pictures.grid(samples, spec)
    if isinstance(module, GeneralizedAutoencoder | TwoStep):
        shown = points[:16]
        drawn["reconstructions"] = pictures.grid(
            torch.cat([shown, module.decode(module.encode(shown))]), spec, columns=len(shown)
        )
    for name, canvas in drawn.items():
        pictures.save_png(canvas, folder / f"{name}.png", spec.shape[1])
    return drawn


def _load(config: RunConfig) -> Splits:
    return load_data(config.dataset, data_root=config.data_root, seed=config.seed, make_valid=config.make_valid_loader)


def _look_up(*names: str | None) -> None:
    for name in names:
        if name is not None:
            METRICS[name]


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
    return source.load(*(BEST_FIRST if best_first else LATEST_FIRST)).part("model")


def _train_further(trainer: Trainer, state: State, limits: Limits) -> None:
    trainer.load_state_dict(state)
    limit = limits.of("gae")
    if limit is not None:
        trainer.raise_limit(limit)
    if trainer.finished:
        logger.warning(
            "the pretrained autoencoder has had its %d epochs and is not trained further: raise them by "
            "--max-epochs-loaded-gae, or say --freeze-pretrained-gae",
            trainer.epochs_done,
        )


def _put_weights(model: Model, state: State, problem: str) -> None:
    """Put the best weights that a trainer's state has into a model."""
    try:
        model.load_state_dict(state.part("best").tensors or state.part("model").tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{problem} ({_short(error)})") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
