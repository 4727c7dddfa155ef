"""A run that is ready: its models are trained, tested and drawn here, and its state is gathered and taken up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from twostep.core.checkpoint import CheckpointError, State
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows
from twostep.experiment.artifacts import draw_pictures, draw_scores
from twostep.experiment.evaluator import Examiner
from twostep.experiment.progress import Recorder
from twostep.experiment.score_files import write_scores
from twostep.experiment.weights import fingerprint, short
from twostep.metrics import METRICS, Result
from twostep.metrics.ood import ood
from twostep.metrics.ood.scores import Array
from twostep.models.base import GeneralizedAutoencoder, Model, evaluating
from twostep.models.two_step import TwoStep
from twostep.runs.config import Settings, TwoStepRunConfig
from twostep.runs.directory import Run
from twostep.training.engine import Engine
from twostep.training.schedules import SCHEDULES
from twostep.training.trainer import Trainer

PICTURES = 64
ALTERNATING = (
    "the two steps are trained %s in turn (alternate_by_epoch=False, the default of the paper's code: on a batch): the "
    "density is fitted to non-stationary embeddings, so its losses of different epochs do not compare; "
    "sequential_training=True trains it on the final ones"
)

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Detection:
    """How well scores tell the test rows of a run from other data, and the scores themselves.

    Args:
        results: by name.
        scores: by name and split, `(N,)`.
        p_values: of the test rows, by name and split, `(N,)`.
        against: the other data.
    """

    results: dict[str, Result]
    scores: Mapping[str, Mapping[str, Array]]
    p_values: Mapping[str, Mapping[str, Array]]
    against: Sequence[ood.OODComparison]

    def write(self, folder: Path) -> None:
        """Write the scores into a folder, and draw their histograms there.

        Raises:
            UserError: if they can't be written.
        """
        named = {f"p_value_{name}": values for name, values in self.p_values.items()}
        draw_scores(self.scores, self.against, write_scores(folder, {**self.scores, **named}))


class Experiment:
    """Everything of one run: settings, data, engine, models, directory, trainers.

    `twostep.experiment.prepare` makes one, new or from its directory.

    Args:
        settings: configs of the run and its models.
        splits: its data.
        engine: device, precision, ranks.
        models: by part: `model`, or `gae` and `de`.
        run: its directory.
        ood: other data by name, which `test` tells its data from.
    """

    def __init__(
        self,
        settings: Settings,
        splits: Splits,
        engine: Engine,
        models: dict[str, Model],
        run: Run,
        ood: Mapping[str, Splits] | None = None,
    ) -> None:
        self.settings, self.splits, self.engine, self.models, self.run = settings, splits, engine, models, run
        self.ood = ood or {}
        self.trainers: dict[str, Trainer] = {}
        self.examiner = Examiner(settings, splits, engine, models, self.trainers)
        self.recorder = Recorder(run, engine, self.trainers, self.state)
        for part, model in models.items():
            if not settings.trains(part):
                engine.place(model)
                continue
            stop_metric = model.config.early_stopping_metric
            self.trainers[part] = Trainer(
                part,
                model,
                engine,
                self.recorder,
                partial(self.examiner.validate, part),
                settings.run.seed,
                lower_is_better=stop_metric is None or METRICS[stop_metric].lower_is_better,
            )

    @property
    def module(self) -> Model | TwoStep:
        """The trained model: the one, or the two as one."""
        return self.examiner.part(self.examiner.whole)

    def batches(self, data: Rows, size: int) -> Batches:
        """Return data in batches, of which this rank sees its share."""
        return self.examiner.batches(data, size)

    def fit(self) -> None:
        """Train what is not trained yet.

        Raises:
            NonFiniteLossError: at the first step whose loss is not finite.
            InterruptedTraining: after a signal; the checkpoint is written.
        """
        train = self.batches(self.splits.train, self.settings.run.train_batch_size)
        valid = self._valid_batches(self.splits.valid)
        if self.engine.is_main:
            self.keep_limits()
        with self.recorder.listening():
            if not self.settings.is_two_step:
                self.trainers["model"].use(train, valid)
                self.trainers["model"].fit()
                return
            gae = self.trainers.get("gae")
            if gae is not None:
                gae.use(train, valid)
            schedule = cast(TwoStepRunConfig, self.settings.run).schedule
            if schedule != "sequential" and gae is not None:
                logger.warning(ALTERNATING, "for an epoch" if schedule == "by_epoch" else "on a batch")
                if not gae.finished and self.trainers["de"].had_all_epochs:
                    self._warn_of_stale_density()
            embed = self._embed_when_taken if schedule == "by_iteration" else self._embeddings
            SCHEDULES[schedule](gae, self.trainers["de"], embed)

    def test(self) -> dict[str, dict[str, Result]]:
        """Measure every model on the test split, write the results and return them by part."""
        for trainer in self.trainers.values():
            trainer.use_best()
            if not trainer.finished:
                logger.warning(
                    "%s: tested after %d of %d epochs", trainer.name, trainer.epochs_done, trainer.max_epochs
                )
        results: dict[str, dict[str, Result]] = {}
        for part, model in self.models.items():
            results[part] = self.examiner.measure(model.config.test_metrics, part)
        if isinstance(self.settings.run, TwoStepRunConfig):
            results["two_step"] = self.examiner.measure(self.settings.run.test_metrics, "two_step")
        detection = self.detect() if self.ood else None
        if detection is not None:
            results[self.examiner.whole] |= detection.results
        for part, measured in results.items():
            for name, result in measured.items():
                logger.info("test %s: %s", part, result.line(name))
        if self.engine.is_main:
            if detection is not None:
                detection.write(self.run.path / "ood")
            self.run.write_metrics("test", results, fingerprint(self.module))
            self.run.write_history({part: trainer.history for part, trainer in self.trainers.items()})
            self.run.log_results(results, sum(trainer.steps_done for trainer in self.trainers.values()))
        return results

    def draw(self) -> None:
        """Draw samples and reconstructions into the run's `samples` folder."""
        if not self.engine.is_main:
            return
        generator = torch.Generator(self.engine.device).manual_seed(derive(self.settings.run.seed, "pictures"))
        with evaluating(self.module):
            drawn = draw_pictures(self.module, self.splits.test[:PICTURES], self.run.path / "samples", generator)
        for name, canvas in drawn.items():
            self.run.log_pictures(name, canvas, sum(trainer.steps_done for trainer in self.trainers.values()))

    def state(self) -> State:
        """Return the state of the whole run."""
        parts = {part: trainer.state_dict() for part, trainer in self.trainers.items()}
        for part, model in self.models.items():
            if part not in parts:
                parts[part] = State({f"model.{key}": value for key, value in model.state_dict().items()})
        return State.join(parts)

    def load(self, state: State) -> None:
        """Take up a state of this run.

        Raises:
            CheckpointError: if it is that of another model.
        """
        for part, model in self.models.items():
            try:
                if part in self.trainers:
                    self.trainers[part].load_state_dict(state.under(part))
                else:
                    model.load_state_dict(state.under(f"{part}.model").tensors)
            except (RuntimeError, KeyError, ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{self.run.path}: the checkpoint is of another {part} than the config describes ({short(error)})"
                ) from None

    def keep_limits(self) -> None:
        """Make the run's stored configs say how long its models are trained."""
        self.run.keep_limits({part: trainer.max_epochs for part, trainer in self.trainers.items()})

    def detect(self, seed: int | None = None) -> Detection:
        """Measure how well scores tell test rows from those of `ood`; the draws follow `seed`, or the run's seed."""
        scored = self.examiner.score(ood.rows_to_score(self.splits, self.ood), seed)
        seed = derive(self.settings.run.seed if seed is None else seed, "ood")
        scores, p_values = ood.calibrate(self.module, scored, seed)
        against = ood.comparisons(self.splits, self.ood)
        results: dict[str, Result] = {}
        for one in against:
            results |= ood.detection(self.module, scores, p_values, one, seed)
        return Detection(results, scores, p_values, against)

    def _valid_batches(self, data: Rows | None) -> Batches | None:
        return None if data is None else self.batches(data, self.settings.run.valid_batch_size)

    def _embed_when_taken(self) -> tuple[Batches, Batches | None]:
        train = replace(self.batches(self.splits.train, self.settings.run.train_batch_size), encode=self._encode)
        valid = self._valid_batches(self.splits.valid)
        return train, None if valid is None else replace(valid, encode=self._encode)

    def _encode(self, x: Tensor) -> Tensor:
        gae = cast(GeneralizedAutoencoder, self.models["gae"])
        with evaluating(gae):
            return gae.encode(x)

    def _embeddings(self) -> tuple[Batches, Batches | None]:
        self._tell_of_new_embeddings()
        train = self.examiner.embed(self.splits.train, self.settings.run.train_batch_size)
        valid = self.splits.valid
        return train, None if valid is None else self.examiner.embed(valid, self.settings.run.valid_batch_size)

    def _tell_of_new_embeddings(self) -> None:
        gae, de = self.trainers.get("gae"), self.trainers["de"]
        in_turns = cast(TwoStepRunConfig, self.settings.run).schedule != "sequential"
        if gae is None or in_turns or not de.steps_done or gae.steps_done == de.data_version:
            return
        if not de.had_all_epochs:
            logger.info("de: goes on from its old weights on new embeddings, as the autoencoder was trained further")
        else:
            self._warn_of_stale_density()

    def _warn_of_stale_density(self) -> None:
        logger.warning(
            "de: has had its %d epochs, on embeddings from before the autoencoder was trained further: "
            "raise --max-epochs-loaded-de too",
            self.trainers["de"].epochs_done,
        )
