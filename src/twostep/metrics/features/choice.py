"""The choice of features in which samples of a dataset are compared: a table of kinds, with what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from twostep.core.keys import INCEPTION_VARIABLE, MetricKeys
from twostep.core.registry import Registry
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import Batches, Rows
from twostep.metrics.features.base import Extractor, check_range, pca, pixels, standardised
from twostep.metrics.features.classifier import cached_classifier
from twostep.metrics.features.efficientnet import efficientnet_lite0
from twostep.metrics.features.inception import FILE, inception
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import Sampler
from twostep.models.two_step import latent_spec

COMPONENTS = 64
BATCH = 1000


@dataclass(frozen=True)
class FeatureChoice:
    """The features in which some data are compared.

    Args:
        spec: facts about the data.
        keys: keys of the metrics.
        labelled: subsets of images and labels on which a classifier may be trained.
    """

    spec: DataSpec
    keys: MetricKeys
    labelled: tuple[tuple[Rows, Tensor], ...] = ()

    @classmethod
    def of(cls, spec: DataSpec, keys: MetricKeys, splits: Splits) -> FeatureChoice:
        """Return the choice for `splits`, or for their embeddings, with facts `spec`."""
        known = ((splits.train, splits.train_labels), (splits.valid, splits.valid_labels))
        of_data = spec.shape == splits.spec.shape
        return cls(spec, keys, tuple((x, y) for x, y in known if of_data and x is not None and y is not None))

    @property
    def name(self) -> str:
        """Name of the features: from the keys, or the default for such data."""
        if self.keys.features:
            return self.keys.features
        return "standardised" if not self.spec.is_image else "classifier" if self.labelled else "pca"

    def check(self) -> None:
        """Refuse features that are undefined for these data, before anything is trained.

        Raises:
            UserError: saying what is missing.
        """
        for need in FEATURES[self.name].needs:
            need(self)

    def extractor(self, training: Batches) -> Extractor:
        """Return the extractor, given batches of the training data."""
        return FEATURES[self.name].make(self, training)


@dataclass(frozen=True)
class Features:
    """A kind of features.

    Args:
        make: returns the extractor, given batches of the training data.
        needs: each raises a `UserError` if a requirement is not met.
    """

    make: Callable[[FeatureChoice, Batches], Extractor]
    needs: tuple[Callable[[FeatureChoice], object], ...] = ()


def feature_sets_of(
    model: Sampler,
    splits: Splits,
    training: Callable[[], Batches],
    held_out: Batches,
    keys: MetricKeys,
    gather: Callable[[Tensor], Tensor],
    seed: int,
    with_reference: bool,
) -> FeatureSets:
    """Return `FeatureSets` of these arguments, in the features that the keys name for `splits` or their embeddings."""
    data = splits.spec
    spec = data if model.event_shape == data.shape else latent_spec(data, model.event_shape[0])
    make = FeatureChoice.of(spec, keys, splits).extractor
    return FeatureSets(model, training, held_out, keys, make, gather, seed, with_reference)


def _range(choice: FeatureChoice) -> None:
    check_range(choice.name, choice.spec.low, choice.spec.high)


def _labels(choice: FeatureChoice) -> None:
    if not choice.labelled:
        raise UserError(f"features=classifier: {choice.spec.name} has no labels to train on: use pca or pixels")


def _images(choice: FeatureChoice) -> None:
    if not choice.spec.is_image:
        raise UserError(f"features={choice.name}: {choice.spec.name} has no images: use standardised features")


def _in_blocks(training: Batches) -> Batches:
    return Batches(training.data, BATCH, device=training.device, encode=training.encode)


def _classifier(choice: FeatureChoice) -> Extractor:
    return cached_classifier(choice.spec.name, choice.labelled, choice.spec.low, choice.spec.high)


def _efficientnet(choice: FeatureChoice) -> Extractor:
    return efficientnet_lite0(choice.spec.low, choice.spec.high)


def _inception(choice: FeatureChoice) -> Extractor:
    weights = choice.keys.weights
    if weights is None:
        raise UserError(
            f"features=inception: its weights are missing: set inception_weights of metric_kwargs, or "
            f"{INCEPTION_VARIABLE}, to the path of {FILE}, or use other features"
        )
    return inception(choice.spec.low, choice.spec.high, weights)


FEATURES: Registry[Features] = Registry("feature set")
for _name, _kind in {
    "standardised": Features(lambda _, training: standardised(_in_blocks(training))),
    "pixels": Features(lambda choice, _: pixels(choice.spec.low, choice.spec.high), (_range,)),
    "pca": Features(lambda _, training: pca(_in_blocks(training), COMPONENTS)),
    "classifier": Features(lambda choice, _: _classifier(choice), (_range, _labels, _images)),
    "efficientnet-lite0": Features(lambda choice, _: _efficientnet(choice), (_range, _images, _efficientnet)),
    "inception": Features(lambda choice, _: _inception(choice), (_range, _images, _inception)),
}.items():
    FEATURES.register(_name)(_kind)
