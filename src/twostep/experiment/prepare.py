"""From a request, or from a run's directory, to an experiment that is ready to train."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from twostep.core.checkpoint import State, load_weights
from twostep.core.files import require_free_folder
from twostep.core.schema import UserError
from twostep.data.base import Splits
from twostep.data.load import located
from twostep.experiment.components import build
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.experiment import Experiment
from twostep.experiment.loggers import require_loggers
from twostep.experiment.preflight import preflight
from twostep.experiment.resolve import load_others, load_splits, resolve
from twostep.metrics.ood.ood import asks_for_ood
from twostep.models.base import Model, ModelConfig
from twostep.models.two_step import TwoStep
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import PLACES, Run
from twostep.runs.overrides import Overrides, Request
from twostep.training.engine import Engine
from twostep.training.schedules import TwoStepTrainer

Epochs = Mapping[str, int]
"""New epoch limits of a loaded run, by model: `model`, or `gae` and `de`; a model that is not named keeps its own."""

logger = logging.getLogger("twostep")


def start(
    request: Request, best_first: bool = False, max_epochs: Epochs | None = None, test_ood: bool = False
) -> Experiment:
    """Prepare a new run; its directory is made last, after everything has been checked.

    A pretrained autoencoder is taken from its `best_valid` checkpoint if `best_first`, with a new epoch limit.
    `test_ood` adds the OOD test, as a metric of that test in `test_metrics` does.

    Raises:
        UserError: for whatever is wrong with the request or its data.
    """
    run_config = request.run_config()
    require_loggers(run_config.loggers)
    if request.to is not None:
        require_free_folder(request.to)
    source, loaded = _pretrained(request, run_config)
    splits = load_splits(run_config)
    engine = Engine(run_config.device, run_config.precision)
    settings, size, gae = resolve(request, run_config, splits, engine, loaded)
    evaluator, ood = _checked(settings, splits, engine, test_ood, testing=True, gae=gae)
    if splits.valid is None:
        logger.info(
            "no validation rows (make_valid_loader=False): nothing is validated, no p-values; unlike in the paper's "
            "code, test rows do not replace them; make_valid_loader=True holds out a tenth of the training rows"
        )
    state, digest = None, splits.digest()
    if source is not None:
        assert isinstance(evaluator.module, TwoStep)
        state = source.load(best_first).under("model")
        load_weights(evaluator.module.gae, state, f"{source.path}: the autoencoder is for other data")
        if source.digest and source.digest != digest:
            logger.warning(
                "%s: its autoencoder was trained on other data or another split (dataset, seed, make_valid_loader), "
                "and may have seen rows that this run holds out",
                source.path,
            )
    more = {} if size is None else {"dimension": asdict(size)}
    path = engine.on_first(
        lambda: Run.create(settings, splits.spec, digest, engine.world_size, request.to, **more).path
    )
    run = Run(path, settings, splits.spec, digest)
    engine.on_first(run.claim)
    experiment = Experiment(evaluator, run, ood)
    if state is not None:
        _take_pretrained(experiment, state, max_epochs or {})
    logger.info("run directory: %s", path)
    return experiment


def settings_of(request: Request) -> Settings:
    """Return the configs that a new run would have; errors are those of `start`."""
    run = request.run_config()
    engine = Engine(run.device, run.precision)
    return resolve(request, run, load_splits(run), engine, _pretrained(request, run)[1]).settings


def _pretrained(request: Request, run: RunConfig) -> tuple[Run | None, ModelConfig | None]:
    """Return the run of a pretrained autoencoder and its config, if there is one."""
    path = run.pretrained_gae if isinstance(run, TwoStepRunConfig) else None
    if path is None:
        return None, None
    source = Run.open(path)
    if not source.settings.is_gae:
        raise UserError(f"{path}: not a run of an autoencoder alone; train one by single_main.py with --is-gae")
    overrides = {"model": request.overrides.get("gae", {})}
    return source, source.settings.adjusted(overrides, source.spec.is_image).first


def resume(
    path: Path,
    overrides: Overrides | None = None,
    best_first: bool = False,
    max_epochs: Epochs | None = None,
    writing: bool = False,
    test_ood: bool = False,
) -> Experiment:
    """Open a run and load its last state, or its best one if `best_first`, with new epoch limits.

    Overrides are values by key, for `run` and each model, of keys that can change in a run that exists. `writing` keeps
    other processes from writing into the run, and records this command in it. `test_ood` is as for `start`.

    Raises:
        UserError: for a directory that is no run, a damaged one, one in use, or a key that can't change.
    """
    run, splits = with_data(Run.open(path), overrides or {}, for_training=writing)
    settings = run.settings
    if max_epochs and "gae" in max_epochs and settings.freezes_gae:
        raise UserError(f"--max-epochs-loaded-gae: the autoencoder of {path} is frozen and is not trained further")
    if writing:
        require_loggers(settings.run.loggers)
    engine = Engine(settings.run.device, settings.run.precision)
    evaluator, ood = _checked(settings, splits, engine, test_ood, testing=writing)
    if writing:
        engine.on_first(run.claim)
    try:
        experiment = Experiment(evaluator, run, ood)
        if run.has_checkpoint():
            experiment.load(run.load(best_first))
        elif settings.two_step is not None and settings.two_step.pretrained_gae is not None:
            raise UserError(f"{path}: stopped before its pretrained autoencoder was copied into it; start a new run")
        else:
            logger.warning("%s: no checkpoint yet; starting from the beginning", path)
        for trainer in experiment.trainers:
            if max_epochs and trainer.name in max_epochs:
                trainer.set_max_epochs(max_epochs[trainer.name])
        if writing:
            engine.on_first(lambda: run.record(engine.world_size))
    except UserError:
        run.close()
        raise
    return experiment


def with_data(run: Run, overrides: Overrides, for_training: bool) -> tuple[Run, Splits]:
    """Return a run with settings adjusted by overrides, and its data; messages name the flags of training or others.

    A place of the data that is given here is noted in the run, and used from then on while it exists.

    Raises:
        UserError: for a key that can't change, or data that are missing or not those of the run: a file may have moved
            if it keeps its name or its content is known.
    """
    asked = {key: value for key, value in overrides.get("run", {}).items() if key in PLACES}
    given = {**overrides, "run": {**({} if asked else run.read_place()), **overrides.get("run", {})}}
    settings, then = run.settings.adjusted(given, run.spec.is_image), run.spec
    place = Path(located(settings.run.dataset))
    if place.is_absolute() and not place.exists():
        flag = f"{'--shared-config' if settings.two_step else '--config'} dataset=" if for_training else "--data "
        raise UserError(f"{place}: no such file or folder; give the path of the data of {run.path}: {flag}PATH")
    splits = load_splits(settings.run)
    now = splits.spec
    same = splits.digest() == run.digest if run.digest else Path(now.name).name == Path(then.name).name
    kept = {"name": then.name} if then.labels else {"name": then.name, "labels": ()}  # older runs have no labels
    if not same or now.model_copy(update=kept) != then:
        raise UserError(
            f"{run.path}: {now.name} does not hold the data of this run (other rows, values or order); put them back, "
            "or start a new run"
        )
    if asked:
        run.note_place(asked)
    return Run(run.path, settings, then, run.digest), splits


def _checked(
    settings: Settings, splits: Splits, engine: Engine, test_ood: bool, testing: bool, gae: Model | None = None
) -> tuple[Evaluator, dict[str, Splits]]:
    """Build the models, load other data if they are asked for, and refuse what can't be trained or tested."""
    evaluator = Evaluator(settings, splits, engine, build(settings, splits.spec, gae))
    metrics = [name for one in evaluator.components for name in one.config.test_metrics]
    ood = load_others(settings.run, splits.spec) if test_ood or (testing and asks_for_ood(metrics)) else {}
    preflight(evaluator, ood, testing)
    return evaluator, ood


def _take_pretrained(experiment: Experiment, state: State, max_epochs: Epochs) -> None:
    """Let a pretrained autoencoder be trained further, and save it as the first state of the run."""
    assert isinstance(experiment.trainer, TwoStepTrainer)
    if (gae := experiment.trainer.gae) is not None:
        gae.load_state_dict(state)
        gae.first_epoch = gae.epochs_done
        if gae.name in max_epochs:
            gae.set_max_epochs(max_epochs[gae.name])
        if gae.finished:
            logger.warning(
                "the pretrained autoencoder has had its %d epochs and is not trained further: raise them by "
                "--max-epochs-loaded-gae, or add --freeze-pretrained-gae",
                gae.epochs_done,
            )
        experiment.engine.on_first(experiment.keep_limits)
    if experiment.engine.is_main:
        experiment.run.save("latest", experiment.state())
