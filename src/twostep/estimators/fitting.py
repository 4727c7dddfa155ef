"""From an array to a trained model: the configs, components, trainers and schedule of a run, without its directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostep.core.files import atomic_write
from twostep.core.schema import DataSpec, UserError
from twostep.core.table import TableSchema
from twostep.data.base import Splits
from twostep.estimators.objects import ModelObject
from twostep.experiment.components import build
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.experiment import Experiment
from twostep.experiment.preflight import preflight
from twostep.experiment.progress import Lines
from twostep.experiment.resolve import resolve
from twostep.experiment.trainers import build_trainer, trainers_of
from twostep.models.base import Model
from twostep.models.two_step import TwoStep
from twostep.runs.config import Settings
from twostep.runs.directory import Run
from twostep.runs.overrides import Request
from twostep.training.engine import Engine
from twostep.training.schedules import TwoStepTrainer
from twostep.training.trainer import Trainer

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Fitted:
    """A trained model in eval mode, its configs, the facts of its data, and its losses by epoch."""

    model: Model | TwoStep
    settings: Settings
    spec: DataSpec
    history: list[dict[str, Any]]


def splits_of(
    rows: Tensor,
    held_out: Tensor,
    columns: TableSchema | None = None,
    y: Tensor | None = None,
    names: Sequence[str] = (),
) -> Splits:
    """Return rows, of a table with `columns`, in splits with `held_out` ones, by number, for validation.

    `y` are numbers of labels, `(N,)`, with these names.

    Bytes are pixels. All rows of an array are known, so the validation rows are the test rows, too; without any, these
    are all rows.
    """
    discrete = rows.dtype == torch.uint8
    low, high = (0.0, 255.0) if discrete else torch.stack(rows[~rows.isnan()].aminmax()).tolist()
    kept = torch.ones(len(rows), dtype=torch.bool)
    kept[held_out] = False
    train, valid = rows[kept], rows[held_out]
    shape = tuple(rows.shape[1:])
    spec = DataSpec(
        name="X",
        shape=shape,
        size=len(train),
        low=low,
        high=high,
        discrete=discrete,
        columns=columns,
        labels=tuple(names),
    )
    labels = (None, None, None) if y is None else (y[kept], y[held_out], y[held_out] if len(valid) else y)
    return Splits(spec, train, valid if len(valid) else None, valid if len(valid) else rows, *labels)


def fit_splits(request: Request, rows: Tensor, splits: Splits, verbose: int, folder: Path | None = None) -> Fitted:
    """Train the models of a request on splits of rows, as a run of the same keys does; `folder`: also write that run.

    Raises:
        UserError: for keys that contradict each other or the data, or a folder that exists already.
    """
    with logging_lines(verbose), torch.random.fork_rng([]):
        run = request.run_config()
        engine = Engine(run.device, run.precision)
        settings, size, gae = resolve(request, run, splits, engine)
        evaluator = Evaluator(settings, splits, engine, build(settings, splits.spec, gae))
        preflight(evaluator, {}, testing=False)
        if folder is None:
            trainer = build_trainer(evaluator)
            train, valid, _ = evaluator.loaders()
            lines = Lines(len(evaluator.models) > 1)
            try:
                trainer.fit(train, valid, [lines] if verbose else [])
            finally:
                lines.close()
        else:
            more = {} if size is None else {"dimension": asdict(size)}
            trainer = _written(evaluator, rows, folder, more)
    return Fitted(evaluator.module.eval(), settings, splits.spec, history_of(trainers_of(trainer)))


def _written(evaluator: Evaluator, rows: Tensor, folder: Path, more: dict[str, Any]) -> Trainer | TwoStepTrainer:
    """Train in a run's directory, which holds its rows in `data.npz`."""
    settings, splits = evaluator.settings, evaluator.splits
    if any(isinstance(config, ModelObject) for config in settings.models.values()):
        raise UserError("run_dir: a run is opened by its configs, and a model object has none: leave out run_dir")
    run = Run.create(settings, splits.spec, splits.digest(), to=folder, **more)
    with atomic_write(Path(settings.run.dataset)) as temporary, temporary.open("wb") as file:
        np.savez(file, train=rows.numpy(), test=splits.test[:].numpy())
    run.claim()
    try:
        experiment = Experiment(evaluator, run, {})
        experiment.fit()
        run.write_history({trainer.name: trainer.history for trainer in experiment.trainers})
        experiment.draw()
    finally:
        run.close()
    return experiment.trainer


def history_of(trainers: Sequence[Trainer]) -> list[dict[str, Any]]:
    """Return a dictionary for each epoch of each model: losses, and metrics of the validation rows."""
    return [
        {
            "model": trainer.name,
            "epoch": number,
            **epoch["losses"],
            **{f"valid_{name}": value for name, value in epoch["valid"].items()},
        }
        for trainer in trainers
        for number, epoch in enumerate(trainer.history, 1)
    ]


@contextmanager
def logging_lines(verbose: int) -> Generator[None]:
    """Write log lines to stdout if `verbose`, and otherwise nothing, not even warnings."""
    before = logger.level, logger.propagate, logger.disabled
    handler = logging.StreamHandler(sys.stdout)
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    else:
        logger.disabled = True
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate, logger.disabled = before[1:]
