"""Measures of a run's models on its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import cast

from twostep.core.keys import MetricKeys
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows, embed
from twostep.metrics import Result, evaluate
from twostep.metrics.features.choice import feature_sets_of
from twostep.metrics.ood.scores import Array, score_splits
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, ModelConfig, Sampler, evaluating
from twostep.models.two_step import TwoStep
from twostep.runs.config import Settings, TwoStepRunConfig
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer

logger = logging.getLogger("twostep")


class Examiner:
    """Measures the models of a run, and the two of them as one.

    Args:
        settings: configs of the run and its models.
        splits: its data.
        engine: device, ranks.
        models: by part: `model`, or `gae` and `de`.
        trainers: by part; that of a density knows which embeddings it was given.
    """

    def __init__(
        self,
        settings: Settings,
        splits: Splits,
        engine: Engine,
        models: Mapping[str, Model],
        trainers: Mapping[str, Trainer],
    ) -> None:
        self.settings, self.splits, self.engine = settings, splits, engine
        self.models, self.trainers = models, trainers

    @property
    def whole(self) -> str:
        """Name of the part that is all models together."""
        return "two_step" if self.settings.is_two_step else "model"

    def part(self, name: str) -> Model | TwoStep:
        """Return a part by name: `model`; or `gae`, `de` or `two_step`."""
        if name != "two_step":
            return self.models[name]
        return TwoStep(cast(GeneralizedAutoencoder, self.models["gae"]), cast(DensityEstimator, self.models["de"]))

    def batches(self, data: Rows, size: int) -> Batches:
        """Return data in batches, of which this rank sees its share."""
        return Batches(data, size, self.engine.rank, self.engine.world_size, self.engine.device)

    def embed(self, data: Rows, size: int | None = None) -> Batches:
        """Return the embeddings of data, in batches of a size, or of that of test batches."""
        gae = cast(GeneralizedAutoencoder, self.models["gae"])
        with evaluating(gae):
            latents = embed(gae.encode, data, self.engine.device)
        return self.batches(latents, size or self.settings.run.test_batch_size)

    def test_batches(self, part: str) -> Batches:
        """Return the test rows that a part sees, in batches: those of the data, or their embeddings."""
        test = self.splits.test
        return self.embed(test) if part == "de" else self.batches(test, self.settings.run.test_batch_size)

    def measure(
        self, names: Sequence[str], part: str, keys: MetricKeys | None = None, seed: int | None = None
    ) -> dict[str, Result]:
        """Measure one part on the test split; figures that are not finite are named in a warning.

        Args:
            names: of the metrics.
            part: `model`; or `gae`, `de` or `two_step`.
            keys: of metrics that compare samples; None: those of the part's config.
            seed: of what is drawn; None: the run's.
        """
        seed = self.settings.run.seed if seed is None else seed
        results = self._evaluate(names, part, self.test_batches(part), keys, seed, True)
        odd = [f"{name} is {result.shown}" for name, result in results.items() if not math.isfinite(result.value)]
        if odd and self.engine.is_main:
            logger.warning("test %s: %s", part, ", ".join(odd))
        return results

    def _evaluate(
        self, names: Sequence[str], part: str, batches: Batches, keys: MetricKeys | None, seed: int, testing: bool
    ) -> dict[str, Result]:
        sets = self._feature_sets(part, batches, keys, derive(seed, "gallery"), testing)
        seed = derive(seed, "test" if testing else "valid", self.engine.rank)
        return evaluate(names, self.part(part), batches, self.engine.sum, seed, sets)

    def _feature_sets(
        self, part: str, held_out: Batches, keys: MetricKeys | None, seed: int, testing: bool
    ) -> FeatureSets | None:
        model, run = self.part(part), self.settings.run
        if not isinstance(model, Sampler):
            return None

        def training() -> Batches:
            if part != "de":
                return self.batches(self.splits.train, held_out.batch_size)
            train = self.trainers["de"].train
            return self.embed(self.splits.train) if testing or train is None else train

        config = run if part == "two_step" else self.models[part].config
        keys = keys or cast(TwoStepRunConfig | ModelConfig, config).metric_kwargs
        return feature_sets_of(
            model, self.splits, training, held_out, keys, self.engine.gather, seed, with_reference=testing
        )

    def validate(self, part: str, batches: Batches) -> dict[str, float]:
        """Return the metrics of a part on validation batches, by name."""
        config = self.models[part].config
        stop = config.early_stopping_metric
        names = (*config.valid_metrics, *([stop] if stop else []))
        found = self._evaluate(names, part, batches, None, self.settings.run.seed, testing=False)
        return {name: result.value for name, result in found.items()}

    def score(self, rows: Mapping[str, Rows], seed: int | None = None) -> dict[str, dict[str, Array]]:
        """Return the scores of all models together, by name and by name of the rows, in the rows' order.

        Args:
            rows: by name.
            seed: of what is drawn; None: the run's.
        """
        size = self.settings.run.test_batch_size
        batches = {name: self.batches(data, size) for name, data in rows.items()}
        drawn = derive(self.settings.run.seed if seed is None else seed, "ood", self.engine.rank)
        return score_splits(self.part(self.whole), batches, self.engine.sum, drawn)
