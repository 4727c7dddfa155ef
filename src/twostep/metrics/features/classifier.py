"""Features of a small classifier trained on the labels of the dataset itself: the choice for small labelled images.

Two convolutions of stride 2, a layer of 128 units, whose activations are the features, and one logit per label. The
same images, labels and seed give the same weights on one machine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import Rows, subsample
from twostep.data.files import cache
from twostep.metrics.features.base import Extractor, check_range, digest_of

WIDTH = 128
SIDE = 32  # larger images are downsampled to it
LAST = 7  # index of the layer of logits
MAX_IMAGES = 20_000  # to train on
BATCH, EPOCHS, RATE = 128, 6, 3e-3
BLOCK = 1000  # images converted to float64 at once

State = dict[str, Tensor]

logger = logging.getLogger("twostep")


def cached_classifier(name: str, labelled: Sequence[tuple[Rows, Tensor]], low: float, high: float) -> Extractor:
    """Return the extractor of a classifier of data in [low, high] from the cache, or train and cache one.

    It is trained on subsets of images `(n, C, H, W)` and labels `(n,)`, whose order does not matter.
    """
    images = torch.cat([subsample(rows, len(rows)) for rows, _ in labelled])
    labels = torch.cat([labels for _, labels in labelled])
    # in the order of a random projection of the images, which depends on their content alone
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(images[0].numel(), generator=generator, dtype=torch.float64)
    order = torch.cat([block.flatten(1).double() @ weights for block in images.split(BLOCK)]).argsort()[:MAX_IMAGES]
    images, labels = images[order], labels[order]
    key = cache.key(f"classifier-{name}", [digest_of("images and labels", (images, labels)), low, high])
    state = cache.load(key)
    if state is None:
        logger.info("features: training a classifier on %s labelled images", f"{len(images):,}")
        state = train_classifier(images, labels, low, high)
        cache.store(key, state)
    return classifier(state)


@torch.enable_grad()
def train_classifier(images: Tensor, labels: Tensor, low: float, high: float, seed: int = 0) -> State:
    """Train a classifier and return all that determines its features, as tensors.

    It takes about 1 ms of one core per image of 28 x 28. The state of torch's global generator is preserved.

    The images `(N, C, H, W)`, of any dtype, have values in [low, high] and integer labels `(N,)`. The seed is that of
    the weights and of the order of the images. Other data, or fewer than two labels, raise a `UserError`.
    """
    check_range("classifier", low, high)
    if images.ndim != 4:
        raise UserError("classifier: these features need images: use standardised features")
    kinds, targets = labels.unique(return_inverse=True)
    if len(kinds) < 2 or len(labels) != len(images):
        raise UserError("classifier: two or more labels are needed, one per image: use pixels or pca features")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "classifier"))
        net = _network(images.shape[1:], len(kinds)).to(images.device)
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(images) // BATCH))
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                cross_entropy(net(_normalise(images[rows], low, high)), targets[rows]).backward()
                optimizer.step()
                schedule.step()
    facts = {"range": torch.tensor([low, high], dtype=torch.float64), "shape": torch.tensor(images.shape[1:])}
    return {**{name: tensor.cpu() for name, tensor in net.state_dict().items()}, **facts}


def classifier(state: State) -> Extractor:
    """Return the extractor of 128 features for a result of `train_classifier`."""
    low, high = state["range"].tolist()
    shape = state["shape"].tolist()
    net = _network(shape, len(state[f"{LAST}.bias"]))
    net.load_state_dict({name: tensor for name, tensor in state.items() if name not in ("range", "shape")})
    features = net[:LAST].requires_grad_(False)
    smaller = f", made smaller to {SIDE} pixels a side" if max(shape[1:]) > SIDE else ""
    return Extractor(
        "classifier",
        f"{low:g} to {high:g} scaled to -1 to 1{smaller}",
        digest_of("classifier", (state[name] for name in sorted(state))),
        lambda x: features.to(x.device)(_normalise(x, low, high)),
        cached=True,
    )


def _normalise(x: Tensor, low: float, high: float) -> Tensor:
    """Scale images to [-1, 1], and average pixels of larger ones."""
    x = (x.float() - low) * (2 / (high - low)) - 1
    return interpolate(x, size=[min(side, SIDE) for side in x.shape[2:]], mode="area") if max(x.shape[2:]) > SIDE else x


def _network(shape: Sequence[int], kinds: int) -> nn.Sequential:
    channels, height, width = (shape[0], min(shape[1], SIDE), min(shape[2], SIDE))
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
