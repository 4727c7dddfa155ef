"""A run that is ready: its models are trained, tested and drawn here, and its state is gathered and taken up."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from twostep.checkpoint import CheckpointError, State
from twostep.config import Settings, TwoStepRunConfig
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.data.latents import embed
from twostep.data.rows import Points
from twostep.drawing import draw_pictures, draw_scores
from twostep.metrics import METRICS, Result, evaluate, ood
from twostep.metrics.extractors import gallery_of
from twostep.metrics.gallery import Gallery
from twostep.metrics.scores import Array, score_splits
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, evaluating
from twostep.models.two_step import TwoStep
from twostep.recorder import Recorder
from twostep.runs import Run
from twostep.seeds import derive
from twostep.training.distributed import Engine
from twostep.training.schedules import SCHEDULES
from twostep.training.trainer import Trainer

PICTURES = 64
MOVING = (
    "the two steps take turns, as the paper's code offers: the density is fitted to embeddings that still move, so its "
    "losses of different epochs do not compare; sequential_training=True trains it on settled ones"
)

logger = logging.getLogger("twostep")


class Experiment:
    """Everything of one run: settings, data, engine, models, directory, trainers.

    `twostep.launch` makes one, new or from its directory.

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
                partial(self._validate, part),
                settings.run.seed,
                lower_is_better=stop_metric is None or METRICS[stop_metric].lower_is_better,
            )

    @property
    def module(self) -> Model | TwoStep:
        """The trained model: the one, or the two as one."""
        if self.settings.is_two_step:
            return TwoStep(cast(GeneralizedAutoencoder, self.models["gae"]), cast(DensityEstimator, self.models["de"]))
        return self.models["model"]

    def batches(self, data: Points, size: int) -> Batches:
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
                logger.warning(MOVING)
            embed = self._embed_when_taken if schedule == "by_iteration" else self._embeddings
            SCHEDULES[schedule](gae, self.trainers["de"], embed)
            if gae is not None and schedule != "sequential" and gae.turns > self.trainers["de"].turns:
                self._warn_of_stale_density()

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
            results[part] = self._measure(names, part, self._embed(self.splits.test) if part == "de" else batches)
        if isinstance(self.settings.run, TwoStepRunConfig):
            results["two_step"] = self._measure(self.settings.run.test_metrics, "two_step", batches)
        if self.ood:
            results["two_step" if self.settings.is_two_step else "model"] |= self._detect()
        if self.engine.is_main:
            self.run.write_metrics("test", results, _fingerprint(self.module))
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

    def load(self, state: State) -> None:
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

    def keep_limits(self) -> None:
        """Make the run's stored configs say how long its models are trained."""
        self.run.keep_limits({part: trainer.max_epochs for part, trainer in self.trainers.items()})

    def _measure(self, names: tuple[str, ...], part: str, batches: Batches, testing: bool = True) -> dict[str, Result]:
        seed = derive(self.settings.run.seed, "test" if testing else "valid", self.engine.rank)
        model = self.module if part == "two_step" else self.models[part]
        return evaluate(names, model, batches, self.engine.sum, seed, self._gallery(part, model, batches, testing))

    def _gallery(self, part: str, model: Model | TwoStep, held_out: Batches, testing: bool) -> Gallery | None:
        if not isinstance(model, DensityEstimator | TwoStep):
            return None

        def training() -> Batches:
            if part != "de":
                return self.batches(self.splits.train, held_out.batch_size)
            train = self.trainers["de"].train
            return self._embed(self.splits.train) if testing or train is None else train

        run = self.settings.run
        keys = run.metric_kwargs if isinstance(run, TwoStepRunConfig) and part == "two_step" else None
        keys = keys or cast(Model, model).config.metric_kwargs
        seed = derive(run.seed, "gallery")
        return gallery_of(model, self.splits, training, held_out, keys, self.engine.gather, seed, with_null=testing)

    def score(self, rows: Mapping[str, Points]) -> dict[str, dict[str, Array]]:
        """Return the module's scores, by name and by name of the rows, in the rows' order."""
        size = self.settings.run.test_batch_size
        batches = {name: self.batches(data, size) for name, data in rows.items()}
        return score_splits(
            self.module, batches, self.engine.sum, derive(self.settings.run.seed, "ood", self.engine.rank)
        )

    def _detect(self) -> dict[str, Result]:
        seed = derive(self.settings.run.seed, "ood")
        scores, p_values = ood.judged(self.module, self.score(ood.rows_to_score(self.splits, self.ood)), seed)
        against = ood.comparisons(self.splits, self.ood)
        if self.engine.is_main:
            named = {f"p_value_{name}": values for name, values in p_values.items()}
            draw_scores(scores, against, self.run.write_scores({**scores, **named}))
        results: dict[str, Result] = {}
        for one in against:
            results |= ood.detection(self.module, scores, p_values, one, seed)
        return results

    def _validate(self, part: str, batches: Batches) -> dict[str, float]:
        config = self.models[part].config
        stop = config.early_stopping_metric
        names = (*config.valid_metrics, *([stop] if stop else []))
        return {name: result.value for name, result in self._measure(names, part, batches, testing=False).items()}

    def _valid_batches(self, data: Points | None) -> Batches | None:
        return None if data is None else self.batches(data, self.settings.run.valid_batch_size)

    def _embed(self, data: Points, size: int | None = None) -> Batches:
        gae = cast(GeneralizedAutoencoder, self.models["gae"])
        with evaluating(gae):
            latents = embed(gae.encode, data, self.engine.device)
        return self.batches(latents, size or self.settings.run.test_batch_size)

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
        train = self._embed(self.splits.train, self.settings.run.train_batch_size)
        valid = self.splits.valid
        return train, None if valid is None else self._embed(valid, self.settings.run.valid_batch_size)

    def _tell_of_new_embeddings(self) -> None:
        gae, de = self.trainers.get("gae"), self.trainers["de"]
        in_turns = cast(TwoStepRunConfig, self.settings.run).schedule != "sequential"
        if gae is None or in_turns or not de.steps_done or gae.steps_done == de.data_version:
            return
        if de.epochs_done < de.max_epochs:
            logger.info("de: goes on from its old weights on new embeddings, as the autoencoder was trained further")
        else:
            self._warn_of_stale_density()

    def _warn_of_stale_density(self) -> None:
        logger.warning(
            "de: has had its %d epochs, on embeddings from before the autoencoder was trained further: "
            "raise --max-epochs-loaded-de too",
            self.trainers["de"].epochs_done,
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.engine.device).manual_seed(derive(self.settings.run.seed, "pictures"))


def put_weights(model: Model, state: State, problem: str) -> None:
    """Put the best weights that a trainer's state has into a model."""
    try:
        model.load_state_dict(state.part("best").tensors or state.part("model").tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{problem} ({_short(error)})") from None


def _fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
