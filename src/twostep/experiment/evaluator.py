"""Measures of a run's models on its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import Tensor

from twostep.core.keys import MetricKeys
from twostep.core.seeds import derive
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows, embed, subsample
from twostep.experiment.components import Component, Whole, components_of
from twostep.experiment.normaliser import QUICK, energy_of, is_cheap, normalised_likelihood
from twostep.metrics import Result, evaluate
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.ood import ood
from twostep.metrics.ood.knn import ENTRIES, knn_scores
from twostep.metrics.ood.scores import MAX_ROWS, Array, Score, score_splits
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, Sampler, evaluating
from twostep.models.two_step import TwoStep, spec_seen
from twostep.runs.config import Settings
from twostep.training.engine import Engine

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Detection:
    """How well scores separate the test rows of a run from other data; scores and p-values `(N,)` by name and split."""

    results: dict[str, Result]
    scores: Mapping[str, Mapping[str, Array]]
    p_values: Mapping[str, Mapping[str, Array]]
    against: Sequence[ood.OODComparison]
    held_out: Mapping[str, Array]


class Evaluator:
    """Measures the models of a run on its data, and the two of them as one: its `components`, the last is `whole`."""

    def __init__(self, settings: Settings, splits: Splits, engine: Engine, module: Model | TwoStep) -> None:
        self.settings, self.splits, self.engine, self.module = settings, splits, engine, module
        self.run = settings.run
        self.models = components_of(settings, module)
        self.components: tuple[Component | Whole, ...] = self.models
        if isinstance(module, TwoStep) and settings.two_step is not None:
            self.components += (Whole(module, settings.two_step),)
        self.whole = self.components[-1]

    def batches(self, data: Rows, size: int) -> Batches:
        """Return data in batches, of which this rank sees its share."""
        return Batches(data, size, self.engine.rank, self.engine.world_size, self.engine.device)

    def loaders(self) -> tuple[Batches, Batches | None, Batches]:
        """Return the training, validation and test rows in batches, with labels if a density is conditioned on them."""
        splits, run = self.splits, self.run
        train, test = self.batches(splits.train, run.train_batch_size), self.batches(splits.test, run.test_batch_size)
        valid = None if splits.valid is None else self.batches(splits.valid, run.valid_batch_size)
        component = self.models[-1]
        if not labels_of(component.model):
            return train, valid, test
        train = replace(train, labels=splits.train_labels)
        valid = None if valid is None else replace(valid, labels=splits.valid_labels)
        if component.encoder is None:
            train, valid = train.labelled(), None if valid is None else valid.labelled()
        return train, valid, test

    def seen(self, component: Component | Whole, data: Rows, labels: Tensor | None = None) -> Batches:
        """Return rows of data, or their embeddings, as a component sees them in a test, in batches, with labels."""
        if component.encoder is not None:
            with evaluating(component.encoder):
                data = embed(component.encoder.encode, data, self.engine.device)
        return replace(self.batches(data, self.run.test_batch_size), labels=labels).labelled()

    def measure(
        self,
        component: Component | Whole,
        names: Sequence[str] | None = None,
        keys: MetricKeys | None = None,
        seed: int | None = None,
    ) -> dict[str, Result]:
        """Measure a component on the test split; results that are not finite are named in a warning.

        The log-likelihood of an energy of vectors of up to 64 coordinates is that with an estimated normaliser.

        Its own `test_metrics` and `metric_kwargs`, and the run's seed, are used where others are not given.
        """
        names = component.config.test_metrics if names is None else names
        seed = self.run.seed if seed is None else seed
        labels = self.splits.test_labels if labels_of(component.model) and "loss" in names else None
        held_out = self.seen(component, self.splits.test, labels)
        gallery = self._gallery(component, None, held_out, keys, seed)
        drawn = derive(seed, "test", self.engine.rank)
        results = evaluate(names, component.model, held_out, self.engine.sum, drawn, gallery)
        energy = energy_of(component.model)
        if "log_likelihood" in results and energy is not None and is_cheap(energy):
            model, batches = deepcopy(component.model).cpu(), replace(held_out, device="cpu")  # where its fits are
            results |= normalised_likelihood(model, batches, self.engine.sum, seed, **QUICK)
        odd = [f"{name} is {result.shown}" for name, result in results.items() if not math.isfinite(result.value)]
        if odd and self.engine.is_main:
            logger.warning("test %s: %s", component.name, ", ".join(odd))
        return results

    def validate(self, component: Component, train: Batches, valid: Batches) -> dict[str, float]:
        """Return the validation metrics of a component by name, on training and validation batches that it sees."""
        stop = component.config.early_stopping_metric
        names = (*component.config.valid_metrics, *([stop] if stop else []))
        gallery = self._gallery(component, train, valid, None, self.run.seed)
        drawn = derive(self.run.seed, "valid", self.engine.rank)
        found = evaluate(names, component.model, valid, self.engine.sum, drawn, gallery)
        return {name: result.value for name, result in found.items()}

    def score(
        self, rows: Mapping[str, Rows], seed: int | None = None, more: Sequence[Score] = ()
    ) -> dict[str, dict[str, Array]]:
        """Return the scores of named rows by the whole model, by name of the score and of the rows, in their order.

        They are those that the model has, and `more`.
        """
        batches = {name: self.batches(data, self.run.test_batch_size) for name, data in rows.items()}
        drawn = derive(self.run.seed if seed is None else seed, "ood", self.engine.rank)
        return score_splits(self.module, batches, self.engine.sum, drawn, self.known, more)

    @property
    def known(self) -> Tensor | None:
        """Training rows that new vectors are compared with, `(n, D)`, on the model's device."""
        if self.splits.spec.is_image or not len(self.splits.train):
            return None
        return subsample(self.splits.train, MAX_ROWS).float().to(self.engine.device)

    def detect(self, others: Mapping[str, Splits], seed: int | None = None) -> Detection:
        """Measure how well scores separate the test rows from those of other data, given by name."""
        splits = self.splits
        rows = subsample(splits.train, min(MAX_ROWS, max(1, ENTRIES // splits.spec.dim)))
        with evaluating(self.module):
            neighbours = knn_scores(self.module, rows.float().to(self.engine.device))
        scored = self.score(ood.rows_to_score(splits, others), seed, neighbours)
        seed = derive(self.run.seed if seed is None else seed, "ood")
        scores, p_values = ood.calibrate(self.module, scored, seed)
        against = ood.comparisons(splits, others)
        results: dict[str, Result] = {}
        for one in against:
            results |= ood.detection(self.module, scores, p_values, one, seed)
        held_out = {name: rows["in_valid"] for name, rows in scored.items() if "in_valid" in rows}
        return Detection(results, scores, p_values, against, held_out)

    def _gallery(
        self, component: Component | Whole, train: Batches | None, held_out: Batches, keys: MetricKeys | None, seed: int
    ) -> FeatureSets | None:
        """Return what samples are compared with: in validation, the batches `train`; in a test, all training rows."""
        if not isinstance(component.model, Sampler | GeneralizedAutoencoder):
            return None
        keys, d = keys or component.config.metric_kwargs, component.model.dim
        if labels_of(component.model):  # samples have none
            held_out = replace(held_out, data=held_out.data[:][:, :d])
            train = None if train is None else replace(train, data=train.data[:][:, :d])
        choice = FeatureChoice(spec_seen(component.model, self.splits.spec), keys, self.splits)
        return FeatureSets(
            component.model,
            lambda: self.seen(component, self.splits.train) if train is None else train,
            held_out,
            keys,
            choice.extractor,
            self.engine.gather,
            derive(seed, "gallery"),
            with_reference=train is None,
        )


def labels_of(model: Model | TwoStep) -> int:
    """Return the number of labels on which a model is conditioned that is trained itself, as no two-step model is."""
    return model.labels if isinstance(model, DensityEstimator) else 0
