"""Feature extractors, which map data points `(B, *S)` in data units to vectors `(B, D)`.

An extractor has a name, a description of its preprocessing, and a digest of all that determines its features, so that
values from different extractors are not compared. Networks are in `classifier`, `efficientnet` and `inception`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from twostep.core.moments import Moments, principal_axes
from twostep.core.schema import UserError
from twostep.core.table import TableSchema
from twostep.nn.table import TableFeatures
from twostep.nn.transforms import Whiten


@dataclass(frozen=True)
class Extractor:
    """A feature extractor: a map `of` points `(B, *S)` on any device.

    `preprocessing` describes also weights that the user provided; `digest` is the SHA-256 of name, settings and
    weights. Features of data may be `cached` between runs. Those of a `table` are mapped back to its rows by it.
    """

    name: str
    preprocessing: str
    digest: str
    of: Callable[[Tensor], Tensor]
    cached: bool = False
    table: TableFeatures | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map points `(B, *S)` in data units to features `(B, D)`, without gradients."""
        with torch.no_grad():
            return self.of(x if x.is_floating_point() else x.float()).flatten(1)


def digest_of(text: str, tensors: Iterable[Tensor] = ()) -> str:
    """Return the SHA-256 of a description of settings and of the values of tensors."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pixels(low: float, high: float) -> Extractor:
    """Return the coordinates of the points, scaled from the range of the data to [0, 1]."""
    check_range("pixels", low, high)
    words = f"flattened, {low:g} to {high:g} scaled to 0 to 1"
    return Extractor("pixels", words, digest_of(f"pixels {words}"), lambda x: (x - low) / (high - low))


def standardised(train: Iterable[Tensor], shape: Sequence[int]) -> Extractor:
    """Return the coordinates of points, standardised by batches `(b, *shape)` of training data: for vectors."""
    scale = Whiten(torch.Size(shape))
    scale.fit(train)
    words = "every coordinate to mean 0 and variance 1 of the training data"
    digest = digest_of("standardised", (scale.mean, scale.std))
    return Extractor("standardised", words, digest, lambda x: cast(Tensor, scale.to(x.device)(x)))


def table_features(train: Iterable[Tensor], columns: TableSchema) -> Extractor:
    """Return the features of coded rows, by batches `(b, C)` of training data: normal scores and one-hot levels."""
    features = TableFeatures(columns)
    features.fit(train)
    words = "normal scores of numbers, by the quantiles of the training data, and one-hot levels"
    digest = digest_of("table", features.state_dict().values())
    return Extractor("standardised", words, digest, lambda x: cast(Tensor, features.to(x.device)(x)), table=features)


def pca(train: Iterable[Tensor], dim: int) -> Extractor:
    """Return the first `dim` principal components of batches `(b, *S)` of training data, of mean variance 1.

    All have one scale, so that distances keep their proportions: samples at the mean of the data have a Fréchet
    distance of about `dim`, whatever the units of the data.
    """
    moments = Moments.of_blocks(batch.flatten(1) for batch in train)
    variances, axes = principal_axes(moments.covariance)
    mean, axes = moments.mean, axes[:, :dim]
    scale = variances[: axes.shape[1]].mean().clamp_min(1e-30).sqrt()
    words = f"flattened, first {axes.shape[1]} principal components of the training data, one scale: mean variance 1"
    digest = digest_of("scaled pca", (mean, axes, scale))
    return Extractor("pca", words, digest, lambda x: (x.flatten(1) - mean.to(x)) @ (axes / scale).to(x))


def check_range(name: str, low: float, high: float) -> None:
    """Raise a `UserError` that names the extractor for data without a finite range by which to scale them."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"{name}: the data have no finite range to scale by ({low:g} to {high:g}): use standardised features"
        )
