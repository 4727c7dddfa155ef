"""Which features a data set's samples are compared in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from twostep.data import cache
from twostep.data.batches import Batches
from twostep.data.rows import Points, spread
from twostep.metrics.classifier import classifier, train_classifier
from twostep.metrics.efficientnet import efficientnet_lite0
from twostep.metrics.features import Extractor, pca, pixels, standardised
from twostep.schema import DataSpec, UserError

COMPONENTS = 64
ROWS = 20_000  # pictures that a classifier is trained on at most
BATCH = 1000

logger = logging.getLogger("twostep")


def default_features(spec: DataSpec, labelled: bool) -> str:
    """Return the features of a data set if no others are asked for."""
    if not spec.is_image:
        return "standardised"
    return "classifier" if labelled else "pca"


def make_extractor(
    name: str, spec: DataSpec, training: Batches, labelled: Sequence[tuple[Points, Tensor]] = ()
) -> Extractor:
    """Return an extractor by name.

    Args:
        name: as the key `features` has it.
        spec: facts of the data.
        training: batches of the training data.
        labelled: pictures and labels that a classifier may be trained on, in whichever order and parts.

    Raises:
        UserError: if these data have no such features.
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
    if not labelled:
        raise UserError(f"features=classifier: {spec.name} has no labels to train one on: use pca or pixels")
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
