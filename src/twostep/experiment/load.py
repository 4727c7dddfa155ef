"""A finished run in Python: its module alone, with its data and measures, or with its trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twostep.core.checkpoint import CheckpointError, load_weights
from twostep.core.factories import given
from twostep.core.schema import DataSpec, UserError, reason
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.experiment.calibration import NAME as CALIBRATION
from twostep.experiment.components import build, components_of
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.preflight import check_ranks
from twostep.experiment.prepare import resume, with_data
from twostep.experiment.resolve import moved
from twostep.models.base import Model
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run
from twostep.training.engine import Device, Engine
from twostep.training.progress import Progress
from twostep.training.schedules import TwoStepTrainer
from twostep.training.trainer import Trainer

logger = logging.getLogger("twostep")


def load_module(path: str | Path, best_first: bool = False, gae: Any = None) -> Model | TwoStep:
    """Return a run's trained model on the CPU, in eval mode, without its data: the best weights it has.

    Args:
        path: directory of a run.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        gae: encoder and decoder of a run that was trained with one's own, as `models.external.external` takes them.

    Raises:
        UserError: for a directory that is no run, has no checkpoint, a damaged one, or one with an untrained model.
    """
    run = Run.open(Path(path))
    with given(gae):
        return _load(run, run.spec, best_first)[0]


class FinishedRun(NamedTuple):
    """A run that is evaluated: its directory, its measures, and the progress of each model that it trains, by name."""

    run: Run
    evaluator: Evaluator
    progress: Mapping[str, Progress]


def load_finished(
    path: Path,
    best_first: bool = False,
    device: Device | None = None,
    data: Path | None = None,
    may_lack_data: bool = False,
) -> FinishedRun:
    """Open a run to evaluate its models, which have their best weights, by arguments and with errors as `load_run`.

    A run that `may_lack_data`, which are not where they were, has splits without rows if it holds calibration scores.
    """
    stored = Run.open(path)
    require_checkpoint(stored)
    overrides = {"run": moved(stored.settings.run, device, data)}
    try:
        run, splits = with_data(stored, overrides, for_training=False)
    except UserError as error:
        if not may_lack_data or data is not None or not (path / CALIBRATION).is_file():
            raise
        logger.info("without the run's data, by its %s (%s)", CALIBRATION, error)
        none, spec = torch.empty(0, *stored.spec.shape), stored.spec
        run = Run(path, stored.settings.adjusted(overrides, spec.is_image), spec, stored.digest)
        splits = Splits(spec, none, None, none)
    config = run.settings.run
    engine = Engine(config.device, config.precision)
    if len(splits.test):
        check_ranks(config, splits, engine.world_size)
    module, progress = _load(run, splits.spec, best_first)
    return FinishedRun(run, Evaluator(run.settings, splits, engine, module.to(engine.device)), progress)


class LoadedRun(NamedTuple):
    """A run in Python: `module, trainer, (train, valid, test) = load_run(path)`."""

    module: Model | TwoStep
    trainer: Trainer | TwoStepTrainer
    loaders: tuple[Batches, Batches | None, Batches]

    def __getitem__(self, key: Any) -> Any:
        """Return an entry by its name too, as `load_run(path)["module"]`."""
        return self._asdict()[key] if isinstance(key, str) else tuple.__getitem__(self, key)


def load_run(
    run_dir: str | Path,
    best_first: bool = False,
    device: Device | None = None,
    data: str | Path | None = None,
    gae: Any = None,
) -> LoadedRun:
    """Load a run: its module in eval mode with its best weights, its trainer, and its data in batches.

    Args:
        run_dir: directory of a run, of one model or two.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        device: where to compute; None: where it was trained.
        data: where its data are now: their file or folder, or the folder of datasets; None: where they were.
        gae: encoder and decoder of a run that was trained with one's own, as `models.external.external` takes them.

    Raises:
        UserError: for a directory that is no run, one whose data or checkpoint are missing, damaged or those of
            another run, or a model that is not trained yet.
    """
    stored = Run.open(Path(run_dir))
    require_checkpoint(stored)
    place = moved(stored.settings.run, device, None if data is None else Path(data))
    with given(gae):
        experiment = resume(stored.path, {"run": place}, best_first)
    _refuse_untrained(stored.path, {one.name: one.steps_done for one in experiment.trainers}, best_first)
    for trainer in experiment.trainers:
        trainer.use_best()
    return LoadedRun(experiment.module.eval(), experiment.trainer, experiment.evaluator.loaders())


def require_checkpoint(run: Run) -> None:
    """Refuse a run whose training has saved nothing yet."""
    if not run.has_checkpoint():
        raise CheckpointError(
            f"{run.path}: no checkpoint, so nothing is trained yet: resume it by --load-dir {run.path}"
        )


def _load(run: Run, spec: DataSpec, best_first: bool) -> tuple[Model | TwoStep, dict[str, Progress]]:
    """Return a run's model with its best weights, in eval mode, and how far each of its models is trained."""
    state = run.load(best_first)
    with torch.random.fork_rng([]):
        module = build(run.settings, spec)
    models = components_of(run.settings, module)
    try:
        progress = {one.name: Progress.model_validate(state.under(one.name).values) for one in models if one.trained}
    except ValueError as error:
        raise CheckpointError(
            f"{run.path}: the checkpoint is of other models than the configs say ({reason(error)})"
        ) from None
    _refuse_untrained(run.path, {name: one.steps_done for name, one in progress.items()}, best_first)
    for one in models:
        problem = f"{run.path}: the checkpoint is of another {one.name} than the config describes"
        load_weights(one.model, state.under(one.name), problem)
    return module.eval(), progress


def _refuse_untrained(path: Path, steps: Mapping[str, int], best_first: bool) -> None:
    """Refuse a state in which a model has had no step, like the density while its autoencoder is trained."""
    untrained = [name for name, had in steps.items() if not had]
    if untrained:
        advice = "leave out --load-best-valid-first, or resume the run" if best_first else "resume the run"
        raise UserError(f"{path}: {', '.join(untrained)} is not trained yet in this checkpoint: {advice} by --load-dir")
