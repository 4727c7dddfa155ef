"""Measures of a run's models on its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twostep.core.keys import MetricKeys
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows, embed
from twostep.experiment.components import Component, Whole, components_of
from twostep.metrics import Result, evaluate
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.ood import ood
from twostep.metrics.ood.scores import Array, score_splits
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import Model, Sampler, evaluating
from twostep.models.two_step import TwoStep, spec_seen
from twostep.runs.config import RunConfig, Settings
from twostep.training.engine import Engine

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Detection:
    """How well scores separate the test rows of a run from other data, and the scores themselves.

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


class Evaluator:
    """Measures the models of a run, and the two of them as one.

    Args:
        settings: configs of the run and its models.
        splits: its data.
        engine: device, ranks.
        module: the model, or both as one.
    """

    def __init__(self, settings: Settings, splits: Splits, engine: Engine, module: Model | TwoStep) -> None:
        self.settings, self.splits, self.engine, self.module = settings, splits, engine, module
        self.components = components_of(settings, splits.spec, module)
        self.whole = self.components[-1]

    @property
    def run(self) -> RunConfig:
        """Keys of the run."""
        return self.settings.run

    def batches(self, data: Rows, size: int) -> Batches:
        """Return data in batches, of which this rank sees its share."""
        return Batches(data, size, self.engine.rank, self.engine.world_size, self.engine.device)

    def test_batches(self, component: Component | Whole) -> Batches:
        """Return the test rows that a component sees, in batches: of the data, or of their embeddings."""
        return self._seen(component, self.splits.test)

    def measure(
        self,
        component: Component | Whole,
        names: Sequence[str] | None = None,
        keys: MetricKeys | None = None,
        seed: int | None = None,
    ) -> dict[str, Result]:
        """Measure a component on the test split; results that are not finite are named in a warning.

        Args:
            component: what is measured.
            names: of the metrics; None: its `test_metrics`.
            keys: of metrics that compare samples; None: its `metric_kwargs`.
            seed: of random draws; None: the run's.
        """
        names = component.config.test_metrics if names is None else names
        seed = self.run.seed if seed is None else seed
        held_out = self.test_batches(component)
        gallery = self._gallery(component, None, held_out, keys, seed, testing=True)
        drawn = derive(seed, "test", self.engine.rank)
        results = evaluate(names, component.model, held_out, self.engine.sum, drawn, gallery)
        odd = [f"{name} is {result.shown}" for name, result in results.items() if not math.isfinite(result.value)]
        if odd and self.engine.is_main:
            logger.warning("test %s: %s", component.name, ", ".join(odd))
        return results

    def validate(self, component: Component, train: Batches, valid: Batches) -> dict[str, float]:
        """Return the validation metrics of a component by name.

        Args:
            component: what is measured.
            train: training batches that it sees.
            valid: validation batches that it sees.
        """
        stop = component.config.early_stopping_metric
        names = (*component.config.valid_metrics, *([stop] if stop else []))
        gallery = self._gallery(component, train, valid, None, self.run.seed, testing=False)
        drawn = derive(self.run.seed, "valid", self.engine.rank)
        found = evaluate(names, component.model, valid, self.engine.sum, drawn, gallery)
        return {name: result.value for name, result in found.items()}

    def score(self, rows: Mapping[str, Rows], seed: int | None = None) -> dict[str, dict[str, Array]]:
        """Return the scores of the whole model, by name and by name of the rows, in the rows' order.

        Args:
            rows: by name.
            seed: of random draws; None: the run's.
        """
        batches = {name: self.batches(data, self.run.test_batch_size) for name, data in rows.items()}
        drawn = derive(self.run.seed if seed is None else seed, "ood", self.engine.rank)
        return score_splits(self.module, batches, self.engine.sum, drawn)

    def detect(self, others: Mapping[str, Splits], seed: int | None = None) -> Detection:
        """Measure how well scores separate the test rows from those of other data.

        Args:
            others: the other data, by name.
            seed: of random draws; None: the run's.
        """
        scored = self.score(ood.rows_to_score(self.splits, others), seed)
        seed = derive(self.run.seed if seed is None else seed, "ood")
        scores, p_values = ood.calibrate(self.module, scored, seed)
        against = ood.comparisons(self.splits, others)
        results: dict[str, Result] = {}
        for one in against:
            results |= ood.detection(self.module, scores, p_values, one, seed)
        return Detection(results, scores, p_values, against)

    def _seen(self, component: Component | Whole, data: Rows) -> Batches:
        size = self.run.test_batch_size
        if component.encoder is None:
            return self.batches(data, size)
        with evaluating(component.encoder):
            return self.batches(embed(component.encoder.encode, data, self.engine.device), size)

    def _gallery(
        self,
        component: Component | Whole,
        train: Batches | None,
        held_out: Batches,
        keys: MetricKeys | None,
        seed: int,
        testing: bool,
    ) -> FeatureSets | None:
        """Return what samples are compared with: for embeddings, `train` or, where it is None, all of them."""
        model, keys = component.model, keys or component.config.metric_kwargs
        if not isinstance(model, Sampler):
            return None

        def training() -> Batches:
            if component.encoder is None:
                return self.batches(self.splits.train, held_out.batch_size)
            return self._seen(component, self.splits.train) if train is None else train

        seed = derive(seed, "gallery")
        make = FeatureChoice(spec_seen(model, self.splits.spec), keys, self.splits).extractor
        return FeatureSets(model, training, held_out, keys, make, self.engine.gather, seed, with_reference=testing)
