"""Which features a data set's samples are compared in: a table of kinds, with what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from twostep.core.metric_keys import VARIABLE, MetricKeys
from twostep.core.registry import Registry
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.data.rows import Points
from twostep.metrics.features.base import Extractor, check_range, pca, pixels, standardised
from twostep.metrics.features.classifier import kept_classifier
from twostep.metrics.features.efficientnet import efficientnet_lite0
from twostep.metrics.features.inception import FILE, inception
from twostep.metrics.samples.feature_sets import Gallery
from twostep.models.base import Sampler
from twostep.models.two_step import latent_spec

COMPONENTS = 64
BATCH = 1000


@dataclass(frozen=True)
class Choice:
    """The features that some data are compared in.

    Args:
        spec: facts of the data.
        keys: of the metrics.
        labelled: pictures and labels that a classifier may be trained on, in whichever order and parts.
    """

    spec: DataSpec
    keys: MetricKeys
    labelled: tuple[tuple[Points, Tensor], ...] = ()

    @classmethod
    def of(cls, spec: DataSpec, keys: MetricKeys, splits: Splits) -> Choice:
        """Return the choice for data of these facts, which are those of `splits` or their embeddings."""
        known = ((splits.train, splits.train_labels), (splits.valid, splits.valid_labels))
        of_data = spec.shape == splits.spec.shape
        return cls(spec, keys, tuple((x, y) for x, y in known if of_data and x is not None and y is not None))

    @property
    def name(self) -> str:
        """Name of the features: the one asked for, or the default of such data."""
        return self.keys.features or self._default

    @property
    def _default(self) -> str:
        if not self.spec.is_image:
            return "standardised"
        return "classifier" if self.labelled else "pca"

    def check(self) -> None:
        """Refuse features that these data can't have, before anything is trained.

        Raises:
            UserError: saying which ones they have, or what is missing.
        """
        for need in FEATURES[self.name].needs:
            need(self)

    def extractor(self, training: Batches) -> Extractor:
        """Return the extractor.

        Args:
            training: batches of the training data.
        """
        return FEATURES[self.name].make(self, training)


@dataclass(frozen=True)
class Features:
    """A kind of features.

    Args:
        make: the extractor, given batches of the training data.
        needs: each raises a `UserError` if something is missing that the features need.
    """

    make: Callable[[Choice, Batches], Extractor]
    needs: tuple[Callable[[Choice], object], ...] = ()


def gallery_of(
    model: Sampler,
    splits: Splits,
    training: Callable[[], Batches],
    held_out: Batches,
    keys: MetricKeys,
    gather: Callable[[Tensor], Tensor],
    seed: int,
    with_null: bool,
) -> Gallery:
    """Return what a model's samples are compared with, in the features that its keys name; nothing is computed yet.

    Args:
        model: is sampled from.
        splits: the data, whose labels a classifier may be trained on, if they are what the model samples.
        training: gives batches of what the model was trained on: of `splits.train`, or of its embeddings.
        held_out: batches of data of the same law that it was not trained on.
        keys: of the metrics.
        gather: gathers the rows of all ranks.
        seed: of the samples, the same on all ranks.
        with_null: whether metrics tell, too, what held-out data have in the samples' place.
    """
    data = splits.spec
    spec = data if model.event_shape == data.shape else latent_spec(data, model.event_shape[0])
    make = Choice.of(spec, keys, splits).extractor
    return Gallery(model, training, held_out, keys, make, gather, seed, with_null)


def _range(choice: Choice) -> None:
    check_range(choice.name, choice.spec.low, choice.spec.high)


def _labels(choice: Choice) -> None:
    if not choice.labelled:
        raise UserError(f"features=classifier: {choice.spec.name} has no labels to train one on: use pca or pixels")


def _pictures(choice: Choice) -> None:
    if not choice.spec.is_image:
        raise UserError(f"features={choice.name}: {choice.spec.name} has no pictures: use standardised features")


def _in_blocks(training: Batches) -> Batches:
    return Batches(training.data, BATCH, device=training.device, encode=training.encode)


def _classifier(choice: Choice) -> Extractor:
    return kept_classifier(choice.spec.name, choice.labelled, choice.spec.low, choice.spec.high)


def _efficientnet(choice: Choice) -> Extractor:
    return efficientnet_lite0(choice.spec.low, choice.spec.high)


def _inception(choice: Choice) -> Extractor:
    weights = choice.keys.weights
    if weights is None:
        raise UserError(
            f"features=inception: its weights are not here: set inception_weights of metric_kwargs, or {VARIABLE}, to "
            f"the path of {FILE}, or use other features"
        )
    return inception(choice.spec.low, choice.spec.high, weights)


FEATURES: Registry[Features] = Registry("feature set")
for _name, _kind in {
    "standardised": Features(lambda _, training: standardised(_in_blocks(training))),
    "pixels": Features(lambda choice, _: pixels(choice.spec.low, choice.spec.high), (_range,)),
    "pca": Features(lambda _, training: pca(_in_blocks(training), COMPONENTS)),
    "classifier": Features(lambda choice, _: _classifier(choice), (_range, _labels, _pictures)),
    "efficientnet-lite0": Features(lambda choice, _: _efficientnet(choice), (_range, _pictures, _efficientnet)),
    "inception": Features(lambda choice, _: _inception(choice), (_range, _pictures, _inception)),
}.items():
    FEATURES.register(_name)(_kind)
