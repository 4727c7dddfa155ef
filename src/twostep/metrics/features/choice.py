"""The choice of features in which samples of a dataset are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from twostep.core.keys import INCEPTION_VARIABLE, FeatureName, MetricKeys
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows
from twostep.metrics.features.base import Extractor, check_range, pca, pixels, standardised, table_features
from twostep.metrics.features.classifier import cached_classifier
from twostep.metrics.features.efficientnet import efficientnet_lite0, is_installed
from twostep.metrics.features.inception import FILE, inception

COMPONENTS = 64
BATCH = 1000


@dataclass(frozen=True)
class FeatureChoice:
    """The features, by keys of metrics, in which data of `splits`, or embeddings with facts `spec`, are compared."""

    spec: DataSpec
    keys: MetricKeys
    splits: Splits

    @property
    def labelled(self) -> list[tuple[Rows, Tensor]]:
        """Subsets of images and labels on which a classifier may be trained."""
        splits = self.splits
        known = ((splits.train, splits.train_labels), (splits.valid, splits.valid_labels))
        of_data = self.spec.shape == splits.spec.shape
        return [(x, y) for x, y in known if of_data and x is not None and y is not None]

    @property
    def name(self) -> FeatureName:
        """Name of the features: from the keys, or the default for such data."""
        if self.keys.features:
            return self.keys.features
        if not self.spec.is_image:
            return "standardised"
        if self.labelled:
            return "classifier"
        bounded = math.isfinite(self.spec.low) and math.isfinite(self.spec.high) and self.spec.low < self.spec.high
        return "efficientnet-lite0" if is_installed() and bounded and self.spec.shape[0] in (1, 3) else "pca"

    def check(self) -> None:
        """Raise a `UserError` for features that are undefined for these data, before anything is trained."""
        name, spec = self.name, self.spec
        if name in ("standardised", "pca"):
            return
        check_range(name, spec.low, spec.high)
        if name == "classifier" and not self.labelled:
            raise UserError(f"features=classifier: {spec.name} has no labels to train on: use pca or pixels")
        if name != "pixels" and not spec.is_image:
            raise UserError(f"features={name}: {spec.name} has no images: use standardised features")
        if name == "efficientnet-lite0":
            efficientnet_lite0(spec.low, spec.high)
        if name == "inception":
            self._inception()

    def extractor(self, training: Batches) -> Extractor:
        """Return the extractor, given batches of the training data."""
        low, high = self.spec.low, self.spec.high
        in_blocks = Batches(training.data, BATCH, device=training.device, encode=training.encode)
        match self.name:
            case "standardised":
                if self.spec.table is not None:
                    return table_features(in_blocks, self.spec.table)
                return standardised(in_blocks, self.spec.shape)
            case "pixels":
                return pixels(low, high)
            case "pca":
                return pca(in_blocks, COMPONENTS)
            case "classifier":
                return cached_classifier(self.spec.name, self.labelled, low, high)
            case "efficientnet-lite0":
                return efficientnet_lite0(low, high)
            case "inception":
                return self._inception()

    def _inception(self) -> Extractor:
        if self.keys.weights is None:
            raise UserError(
                f"features=inception: its weights are missing: set inception_weights of metric_kwargs, or "
                f"{INCEPTION_VARIABLE}, to the path of {FILE}, or use other features"
            )
        return inception(self.spec.low, self.spec.high, self.keys.weights)
