"""The trainers of a run's models, and the schedule that they follow."""

from __future__ import annotations

from functools import partial

from twostep.experiment.components import Component
from twostep.experiment.evaluator import Evaluator
from twostep.metrics import METRICS
from twostep.models.two_step import TwoStep
from twostep.training.schedules import TwoStepTrainer
from twostep.training.trainer import Trainer


def build_trainer(evaluator: Evaluator) -> Trainer | TwoStepTrainer:
    """Return what trains the models of an evaluator: the trainer of a single one, or of both by the run's schedule."""
    evaluator.module.to(evaluator.engine.device)
    trainers = [_trainer_of(evaluator, one) for one in evaluator.models if one.trained]
    module, two_step = evaluator.module, evaluator.settings.two_step
    minutes = evaluator.settings.run.max_minutes
    seconds = None if minutes is None else 60 * minutes
    if not isinstance(module, TwoStep) or two_step is None:
        trainers[-1].max_seconds = seconds
        return trainers[-1]
    gae = trainers[0] if len(trainers) > 1 else None
    return TwoStepTrainer(module, gae, trainers[-1], two_step.schedule, seconds)


def trainers_of(trainer: Trainer | TwoStepTrainer) -> tuple[Trainer, ...]:
    """Return the trainers of the models that are trained."""
    return trainer.trainers if isinstance(trainer, TwoStepTrainer) else (trainer,)


def _trainer_of(evaluator: Evaluator, component: Component) -> Trainer:
    config, stop = component.config, component.config.early_stopping_metric
    return Trainer(
        component.name,
        component.model,
        config,
        config.optimizers(),
        evaluator.engine,
        partial(evaluator.validate, component),
        evaluator.run.seed,
        lower_is_better=stop is None or METRICS[stop].lower_is_better,
        kind=config.name,
    )
