"""Which features a data set's samples are compared in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from twostep.data import cache
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.data.rows import Points, spread
from twostep.metrics.classifier import classifier, train_classifier
from twostep.metrics.efficientnet import efficientnet_lite0
from twostep.metrics.features import Extractor, check_range, pca, pixels, standardised
from twostep.metrics.gallery import Gallery
from twostep.models.base import DensityEstimator
from twostep.models.metric_keys import MetricKeys
from twostep.models.two_step import TwoStep
from twostep.schema import DataSpec, UserError

COMPONENTS = 64
ROWS = 20_000  # pictures that a classifier is trained on at most
BATCH = 1000

logger = logging.getLogger("twostep")


def gallery_of(
    model: DensityEstimator | TwoStep,
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
    known = ((splits.train, splits.train_labels), (splits.valid, splits.valid_labels))
    of_data = model.spec.shape == splits.spec.shape
    labelled = [(x, y) for x, y in known if of_data and x is not None and y is not None]
    name = keys.features or default_features(model.spec, bool(labelled))
    make = partial(make_extractor, name, model.spec, labelled=labelled)
    return Gallery(model, training, held_out, keys, make, gather, seed, with_null)


def default_features(spec: DataSpec, labelled: bool) -> str:
    """Return the features of a data set if no others are asked for."""
    if not spec.is_image:
        return "standardised"
    return "classifier" if labelled else "pca"


def check_features_of(name: str, spec: DataSpec, labelled: bool) -> None:
    """Refuse features that data can't have, before anything is trained.

    Raises:
        UserError: saying which ones they have.
    """
    if name in ("pixels", "classifier", "efficientnet-lite0"):
        check_range(name, spec.low, spec.high)
    if name == "classifier" and not labelled:
        raise UserError(f"features=classifier: {spec.name} has no labels to train one on: use pca or pixels")
    if name in ("classifier", "efficientnet-lite0") and not spec.is_image:
        raise UserError(f"features={name}: {spec.name} has no pictures: use standardised features")
    if name == "efficientnet-lite0":
        efficientnet_lite0(spec.low, spec.high)


def make_extractor(
    name: str, spec: DataSpec, training: Batches, labelled: Sequence[tuple[Points, Tensor]] = ()
) -> Extractor:
    """Return an extractor by name.

    Args:
        name: as the key `features` has it.
        spec: facts of the data.
        training: batches of the training data.
        labelled: pictures and labels that a classifier may be trained on, in whichever order and parts.
    """
    low, high = spec.low, spec.high
    if name == "pixels":
        return pixels(low, high)
    if name == "efficientnet-lite0":
        return efficientnet_lite0(low, high)
    whole = Batches(training.data, BATCH, device=training.device, encode=training.encode)
    if name == "pca":
        return pca(whole, COMPONENTS)
    if name == "standardised":
        return standardised(whole)
    assert name == "classifier"
    return classifier(_classifier(spec, labelled))


def _classifier(spec: DataSpec, labelled: Sequence[tuple[Points, Tensor]]) -> dict[str, Tensor]:
    """Return a trained classifier, from the cache if there is one for these pictures and labels."""
    images = torch.cat([spread(points, len(points)) for points, _ in labelled])
    labels = torch.cat([labels for _, labels in labelled])
    order = _order(images)[:ROWS]
    images, labels = images[order], labels[order]
    content = hashlib.sha256(images.numpy().data)
    content.update(labels.numpy().data)
    key = cache.key(f"classifier-{spec.name}", [content.hexdigest(), spec.low, spec.high])
    state = cache.load(key)
    if state is None:
        logger.info("features: training a classifier on %s labelled pictures", f"{len(images):,}")
        state = train_classifier(images, labels, spec.low, spec.high)
        cache.store(key, state)
    return state


def _order(images: Tensor) -> Tensor:
    """Return an order of pictures that follows from their contents, whatever the order that they come in."""
    flat = images.flatten(1)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
    return torch.cat([rows.double() @ weights for rows in flat.split(BATCH)]).argsort()
