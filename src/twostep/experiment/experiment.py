"""A run that is ready: its models are trained and tested here, and its state is saved and loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress

import torch

from twostep.core.checkpoint import CheckpointError, State, fingerprint
from twostep.core.schema import UserError, reason
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.experiment import report_data
from twostep.experiment.artifacts import draw_images, write_detection
from twostep.experiment.calibration import held_out_scores, write_calibration
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.length import comment_lengths
from twostep.experiment.loggers import LOGGERS, ResultLogger
from twostep.experiment.mixture_floor import comment_densities
from twostep.experiment.progress import Checkpoints, Curves, Lines, StopOnSignal
from twostep.experiment.reconstructions import comment_reconstructions
from twostep.experiment.trainers import build_trainer, trainers_of
from twostep.metrics import Result
from twostep.models.base import evaluating
from twostep.runs.directory import Run
from twostep.training.callbacks import Callback

logger = logging.getLogger("twostep")


class Experiment:
    """Everything of one run: its evaluator (which has settings, data, engine and models), directory and trainers.

    `twostep.experiment.prepare` makes one, of a new run or from a run's directory. Its test compares the run's data
    with those of `ood`, by name.
    """

    def __init__(self, evaluator: Evaluator, run: Run, ood: Mapping[str, Splits]) -> None:
        self.evaluator, self.run, self.ood = evaluator, run, ood
        self.settings, self.splits = evaluator.settings, evaluator.splits
        self.engine, self.module = evaluator.engine, evaluator.module
        self.trainer = build_trainer(evaluator)
        self.trainers = trainers_of(self.trainer)
        self.signals = StopOnSignal(self.engine)
        self.callbacks: list[Callback] = [self.signals]
        self.loggers: list[ResultLogger] = []
        if self.engine.is_main:
            checkpoints = Checkpoints(run, self.state, self.trainers)
            self.callbacks += [Curves(run, self.trainers), Lines(len(self.trainers) > 1), checkpoints]
            self.loggers = [LOGGERS[name](run, self.trainers) for name in self.settings.run.loggers]
            self.callbacks += self.loggers

    def fit(self) -> None:
        """Train what is not trained yet.

        Raises:
            NonFiniteLossError: at the first step whose loss is not finite.
            InterruptedTraining: after a signal; the checkpoint is written.
        """
        train, valid, _ = self.evaluator.loaders()
        if self.engine.is_main:
            self.keep_limits()
        began = time.monotonic()
        try:
            with self.signals.listening():
                self.trainer.fit(train, valid, self.callbacks)
        except BaseException:
            for one in self.loggers:
                one.conclude()
            raise
        finally:
            for callback in self.callbacks:
                callback.close()
            if self.engine.is_main:
                with suppress(UserError):  # of a full disk, which the checkpoint reports
                    self.run.add_training_time(time.monotonic() - began)

    def test(self) -> dict[str, dict[str, Result]]:
        """Measure every model on the test split, write the results and return them by component."""
        for trainer in self.trainers:
            trainer.use_best()
            if not trainer.finished:
                done, all_epochs = trainer.epochs_done, trainer.max_epochs
                logger.warning("%s: tested after %d of %d epochs", trainer.name, done, all_epochs)
        results = {one.name: self.evaluator.measure(one) for one in self.evaluator.components}
        detection = self.evaluator.detect(self.ood) if self.ood else None
        if detection is not None:
            results[self.evaluator.whole.name] |= detection.results
        if self.engine.is_main:
            comment_densities(results, self.evaluator)
        sequential = self.settings.two_step is None or self.settings.two_step.schedule == "sequential"
        comment_lengths(results, self.trainers if sequential else self.trainers[:1])  # else the embeddings changed
        comment_reconstructions(results, self.splits, getattr(self.settings.first, "latent_dim", None))
        every = [(name, metric, result) for name, found in results.items() for metric, result in found.items()]
        for name, metric, result in every:
            logger.info("test %s: %s", name, result.line(metric))
        held_out = held_out_scores(self.evaluator) if detection is None else detection.held_out
        if self.engine.is_main:
            if detection is not None:
                write_detection(detection, self.run.path / "ood")
            weights = fingerprint(self.module)
            self.run.write_metrics("test", results, weights)
            write_calibration(self.run, held_out, weights)
            self.run.write_history({trainer.name: trainer.history for trainer in self.trainers})
            with self.run.curves() as curves:
                for name, metric, result in every:
                    curves.add_scalar(f"{name}/test/{metric}", result.value, self._steps_done)
            for one in self.loggers:
                one.test(results)
        return results

    def draw(self) -> None:
        """Draw samples and reconstructions into the run's `samples` folder, and keep what its page shows."""
        if not self.engine.is_main:
            return
        generator = torch.Generator(self.engine.device).manual_seed(derive(self.settings.run.seed, "pictures"))
        with evaluating(self.module):
            drawn = draw_images(self.module, self.splits, self.run.path / "samples", generator)
            report_data.write(self.run.path, report_data.collect(self.module, self.splits, generator))
        with self.run.curves() as curves:
            for name, canvas in drawn.items():
                curves.add_image(name, canvas, self._steps_done)

    def state(self) -> State:
        """Return the state of the whole run: of its trainers, and the weights of a frozen autoencoder."""
        frozen = [one for one in self.evaluator.models if not one.trained]
        weights = {one.name: State.join({"model": State(one.model.state_dict())}) for one in frozen}
        return State.join({**weights, **{trainer.name: trainer.state_dict() for trainer in self.trainers}})

    def load(self, state: State) -> None:
        """Load a state of this run.

        Raises:
            CheckpointError: if it is that of another model.
        """
        try:
            for one in self.evaluator.models:
                one.model.load_state_dict(state.under(f"{one.name}.model").tensors)
            for trainer in self.trainers:
                trainer.load_state_dict(state.under(trainer.name))
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.run.path}: the checkpoint is of other models than the configs describe ({reason(error)})"
            ) from None

    def keep_limits(self) -> None:
        """Store in the run's configs how many epochs its models are trained for."""
        self.run.keep_limits({trainer.name: trainer.max_epochs for trainer in self.trainers})

    @property
    def _steps_done(self) -> int:
        return sum(trainer.steps_done for trainer in self.trainers)
