"""From an array to a trained model: the configs, components, trainers and schedule of a run, without its directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twostep.core.schema import DataSpec
from twostep.data.base import Source, Splits, hold_out
from twostep.data.load import split_source
from twostep.experiment.components import build
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.preflight import preflight
from twostep.experiment.progress import Lines
from twostep.experiment.resolve import resolve
from twostep.experiment.trainers import build_trainer, trainers_of
from twostep.models.base import Model
from twostep.models.two_step import TwoStep
from twostep.runs.config import Settings
from twostep.runs.overrides import Request
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer

FEWEST = 10  # rows of which some are held out for validation

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Fitted:
    """A trained model in eval mode, its configs, the facts of its data, held-out rows, and losses by epoch."""

    model: Model | TwoStep
    settings: Settings
    spec: DataSpec
    valid: Tensor | None
    history: list[dict[str, Any]]


def source_of(rows: Tensor, discrete: bool, seed: int, fraction: float) -> Source:
    """Return rows as a loader would: the test rows are the validation rows, for the rows of an array are all known."""
    test = rows[hold_out(len(rows), fraction, torch.Generator().manual_seed(seed))[1]] if fraction else rows
    return Source(rows, test, discrete=discrete, low=0.0 if discrete else None, high=255.0 if discrete else None)


def fit_request(request: Request, source: Source, fraction: float, verbose: int) -> Fitted:
    """Train the models of a request on the rows of a source, as a run of the same keys and seed would."""
    with logging_lines(verbose), torch.random.fork_rng([]):
        splits = split_source(source, "X", request.run_config().seed, fraction)
        return _fit_splits(request, splits, verbose)


def _fit_splits(request: Request, splits: Splits, verbose: int) -> Fitted:
    run = request.run_config()
    engine = Engine(run.device, run.precision)
    settings, _ = resolve(request, run, splits, engine)
    evaluator = Evaluator(settings, splits, engine, build(settings, splits.spec))
    preflight(evaluator, {}, testing=False)
    trainer = build_trainer(evaluator)
    train, valid, _ = evaluator.loaders()
    lines = Lines(len(evaluator.models) > 1)
    try:
        trainer.fit(train, valid, [lines] if verbose else [])
    finally:
        lines.close()
    held_out = None if splits.valid is None else splits.valid[:]
    return Fitted(evaluator.module.eval(), settings, splits.spec, held_out, history_of(trainers_of(trainer)))


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
