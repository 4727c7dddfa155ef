"""Mean and covariance of rows in blocks, principal axes, Gaussian mixtures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

BLOCK = 4096  # rows
STRIPE = 512  # columns


class Moments(NamedTuple):
    """Mean `(D,)` and scatter `(D, D)`, the sum of the outer products of the centred rows, of n rows, in float64."""

    n: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(rows: Tensor) -> Moments:
        """Return the moments of rows `(n, D)`."""
        return Moments.of_blocks(rows.split(BLOCK))

    @staticmethod
    def of_blocks(blocks: Iterable[Tensor]) -> Moments:
        """Return the moments of rows that come in blocks `(b, D)`; only one block is held at a time."""
        return functools.reduce(Moments._merge, map(Moments._of_block, blocks))

    @staticmethod
    def _of_block(block: Tensor) -> Moments:
        x = block.double()
        mean = x.mean(0)
        return Moments(len(x), mean, _gram(x - mean))

    def _merge(self, other: Moments) -> Moments:
        n = self.n + other.n
        gap = other.mean - self.mean
        scatter = (self.scatter + other.scatter).addr_(gap, gap, alpha=self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), scatter)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, `(D, D)`; needs two rows or more."""
        return self.scatter / (self.n - 1)


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances, descending, `(D,)`, and the principal axes in the columns of `(D, D)`.

    The sign of each axis is such that its largest entry is positive.
    """
    variances, axes = torch.linalg.eigh(covariance)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return variances.flip(0), (axes * largest.sign()).flip(1)


def leading_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean `(D,)` of rows `(n, D)` and their first principal axes, `(D, count)` or fewer columns.

    The singular value decomposition takes no D x D matrix, so it suits few rows of many coordinates.
    """
    mean = rows.mean(0)
    return mean, torch.linalg.svd(rows - mean, full_matrices=False).Vh[:count].T


def gaussian_mixture(
    points: Tensor,
    counts: Sequence[int],
    seed: int,
    kind: Literal["full", "diag", "tied"] = "full",
    score: Callable[[Any], float] | None = None,
    **keys: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit Gaussian mixtures with several numbers of components to points `(n, D)` and return the best one.

    `kind` and `keys` are arguments of scikit-learn's `GaussianMixture`; of the fitted mixtures that with the largest
    `score` is the best, or without any that with the least Bayesian information criterion.

    Returns:
        weights `(K,)`, means `(K, D)` and covariances in scikit-learn's shape for this kind.
    """
    from sklearn.mixture import GaussianMixture  # imported here because it takes a second

    x = points.double().cpu().numpy()
    fitted: list[Any] = [
        GaussianMixture(count, covariance_type=kind, random_state=seed % 2**32, **keys).fit(x) for count in counts
    ]
    best = max(fitted, key=score or (lambda mixture: -mixture.bic(x)))
    weights, means, covariances = (
        torch.from_numpy(array).to(points) for array in (best.weights_, best.means_, best.covariances_)
    )
    return weights, means, covariances


def _gram(x: Tensor) -> Tensor:
    """Return `xᵀ x`; each of its mirrored blocks is computed once."""
    gram = x.new_empty(x.shape[1], x.shape[1])
    for start in range(0, x.shape[1], STRIPE):
        columns, rest = slice(start, start + STRIPE), slice(start, None)
        stripe = x[:, columns].T @ x[:, rest]
        gram[columns, rest], gram[rest, columns] = stripe, stripe.T
    return gram
