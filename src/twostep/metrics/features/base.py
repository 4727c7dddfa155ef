"""Features that samples are measured in: what maps points `(B, *S)` in data units to vectors `(B, D)`.

An extractor says its name, what it does to points first, and a digest of all that its features follow from, so that
figures of two extractors are not taken for one another. Networks stand in `classifier`, `efficientnet` and `inception`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from twostep.core.moments import Moments, principal_axes
from twostep.core.schema import UserError
from twostep.nn.transforms import Whiten


@dataclass(frozen=True)
class Extractor:
    """A map to features that says what it is.

    Args:
        name: as it is asked for.
        preprocessing: what becomes of points before the features are taken, in words.
        digest: SHA-256 of name, settings and weights.
        of: the map; it takes points `(B, *S)` on any device.
        kept: whether features of data are worth keeping between runs.
        weights: which ones, in words, where they are the user's.
    """

    name: str
    preprocessing: str
    digest: str
    of: Callable[[Tensor], Tensor]
    kept: bool = False
    weights: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """Map points `(B, *S)` in data units to features `(B, D)`, without graphs."""
        with torch.no_grad():
            return self.of(x if x.is_floating_point() else x.float()).flatten(1)


def digest_of(text: str, tensors: Iterable[Tensor] = ()) -> str:
    """Return the SHA-256 of settings in words and of the values of tensors."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pixels(low: float, high: float) -> Extractor:
    """Return the points themselves, scaled to the unit interval by the data's range.

    Raises:
        UserError: if the data have no range.
    """
    check_range("pixels", low, high)
    words = f"flattened, {low:g} to {high:g} scaled to 0 to 1"
    return Extractor("pixels", words, digest_of(f"pixels {words}"), lambda x: (x - low) / (high - low))


def standardised(train: Iterable[Tensor]) -> Extractor:
    """Return the points with every coordinate at mean 0 and variance 1 of the training data: for tables and planes.

    Args:
        train: batches `(b, *S)` of training data.
    """
    batches = iter(train)
    first = next(batches)
    scale = Whiten(first.shape[1:])
    scale.fit(_chained(first, batches))
    return Extractor(
        "standardised",
        "every coordinate to mean 0 and variance 1 of the training data",
        digest_of("standardised", (scale.mean, scale.std)),
        lambda x: cast(Tensor, scale.to(x.device)(x)),
    )


def pca(train: Iterable[Tensor], dim: int) -> Extractor:
    """Return the first principal components of the training data, in data units, not whitened.

    Args:
        train: batches `(b, *S)` of training data.
        dim: components; no more than a point has coordinates are given.
    """
    moments = Moments.of_blocks(batch.flatten(1) for batch in train)
    axes = principal_axes(moments.covariance)[1][:, :dim]
    mean = moments.mean
    return Extractor(
        "pca",
        f"flattened, first {axes.shape[1]} principal components of the training data, in data units",
        digest_of("pca", (mean, axes)),
        lambda x: (x.flatten(1) - mean.to(x)) @ axes.to(x),
    )


def own(name: str, of: Callable[[Tensor], Tensor], preprocessing: str = "unknown: the user's own") -> Extractor:
    """Return the user's own map; its digest is that of its weights if it is a module, else of its name alone.

    Args:
        name: that results call it by.
        of: maps points `(B, *S)` in data units to features, `(B, D)` or what can be flattened to it.
        preprocessing: in words.
    """
    weights = of.state_dict().values() if isinstance(of, torch.nn.Module) else ()
    return Extractor(name, preprocessing, digest_of(f"own {name} {preprocessing}", weights), of)


def check_range(name: str, low: float, high: float) -> None:
    """Check that data have a range that they can be scaled by.

    Raises:
        UserError: naming the extractor.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"{name}: these data have no range to scale by ({low:g} to {high:g}): use standardised features"
        )


def _chained(first: Tensor, rest: Iterable[Tensor]) -> Iterable[Tensor]:
    yield first
    yield from rest
