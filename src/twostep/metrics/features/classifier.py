"""Features of a small classifier that is trained on the labels of the data set itself: the choice for small pictures.

Two convolutions of stride 2, a layer of 128 units, whose activations are the features, and one logit for each label.
The same pictures, labels and seed give the same weights on one machine.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import Rows, subsample
from twostep.data.files import cache
from twostep.metrics.features.base import Extractor, check_range, digest_of

WIDTH = 128
SIDE = 32
"""Pixels of a side at most: larger pictures are made smaller first."""

LAST = 7  # place of the layer of logits

BATCH, EPOCHS, RATE = 128, 6, 3e-3

AT_ONCE = 1000  # pictures in float64

ROWS = 20_000
"""Pictures at most that a classifier is trained on."""

State = dict[str, Tensor]

logger = logging.getLogger("twostep")


def kept_classifier(name: str, labelled: Iterable[tuple[Rows, Tensor]], low: float, high: float) -> Extractor:
    """Return the extractor of a classifier from the cache, or train one and keep it there.

    Args:
        name: of the data, for the file's name.
        labelled: pictures `(n, C, H, W)` and labels `(n,)`, in whichever order and parts.
        low: smallest value that data can have.
        high: largest value that data can have.
    """
    parts = list(labelled)
    images = torch.cat([subsample(points, len(points)) for points, _ in parts])
    labels = torch.cat([labels for _, labels in parts])
    order = _order(images)[:ROWS]
    images, labels = images[order], labels[order]
    content = hashlib.sha256(images.numpy().data)
    content.update(labels.numpy().data)
    key = cache.key(f"classifier-{name}", [content.hexdigest(), low, high])
    state = cache.load(key)
    if state is None:
        logger.info("features: training a classifier on %s labelled pictures", f"{len(images):,}")
        state = train_classifier(images, labels, low, high)
        cache.store(key, state)
    return classifier(state)


@torch.enable_grad()
def train_classifier(images: Tensor, labels: Tensor, low: float, high: float, seed: int = 0) -> State:
    """Train a classifier and return all that its features follow from, as tensors to be kept.

    It takes about 1 ms of one core for a picture of 28 x 28. torch's own generator is left as it was.

    Args:
        images: `(N, C, H, W)`, of any dtype, in data units.
        labels: `(N,)`, whole numbers.
        low: smallest value that data can have.
        high: largest value that data can have.
        seed: of the weights and of the order of the pictures.

    Raises:
        UserError: if these are no pictures with two or more labels.
    """
    check_range("classifier", low, high)
    if images.ndim != 4:
        raise UserError("classifier: its features are those of pictures: use standardised features")
    kinds, targets = labels.unique(return_inverse=True)
    if len(kinds) < 2 or len(labels) != len(images):
        raise UserError("classifier: it needs two or more labels, one for each picture: use pixels or pca features")
    channels, height, width = images.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "classifier"))
        net = _network((channels, min(height, SIDE), min(width, SIDE)), len(kinds)).to(images.device)
        _train(net, images, targets, low, high)
    facts = {"range": torch.tensor([low, high], dtype=torch.float64), "shape": torch.tensor(images.shape[1:])}
    return {**{name: tensor.cpu() for name, tensor in net.state_dict().items()}, **facts}


def classifier(state: State) -> Extractor:
    """Return the extractor of 128 features from what `train_classifier` returned."""
    low, high = state["range"].tolist()
    channels, height, width = state["shape"].tolist()
    weights = {name: tensor for name, tensor in state.items() if name not in ("range", "shape")}
    net = _network((channels, min(height, SIDE), min(width, SIDE)), len(state[f"{LAST}.bias"]))
    net.load_state_dict(weights)
    features = net[:LAST].requires_grad_(False)
    smaller = f", made smaller to {SIDE} pixels a side" if max(height, width) > SIDE else ""
    return Extractor(
        "classifier",
        f"{low:g} to {high:g} scaled to -1 to 1{smaller}",
        digest_of("classifier", (state[name] for name in sorted(state))),
        lambda x: features.to(x.device)(_size(x, low, high)),
        kept=True,
    )


def _size(x: Tensor, low: float, high: float) -> Tensor:
    """Scale pictures to -1 to 1, and make larger ones smaller by means of their pixels."""
    x = (x.float() - low) * (2 / (high - low)) - 1
    return interpolate(x, size=[min(side, SIDE) for side in x.shape[2:]], mode="area") if max(x.shape[2:]) > SIDE else x


def _network(shape: tuple[int, int, int], kinds: int) -> nn.Sequential:
    channels, height, width = shape
    places = -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * places, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, kinds),
    )


def _train(net: nn.Module, images: Tensor, targets: Tensor, low: float, high: float) -> None:
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(net(_size(images[rows], low, high)), targets[rows]).backward()
            optimizer.step()
            schedule.step()


def _order(images: Tensor) -> Tensor:
    """Return an order of pictures that follows from their contents, whatever the order that they come in."""
    flat = images.flatten(1)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
    return torch.cat([rows.double() @ weights for rows in flat.split(AT_ONCE)]).argsort()
