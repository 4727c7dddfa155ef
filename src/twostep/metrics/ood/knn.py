"""Distance to the k-th nearest training row, in data space or among embeddings: a strong score that needs no density.

    -‖x - x_(k)‖,   k = 5

Coordinates are those of the data, or the standardised ones of vectors that a model standardises; embeddings are divided
by the stds of those of the training rows. A training row is not its own neighbour.

Source: Out-of-Distribution Detection with Deep Nearest Neighbors (Sun et al., 2022, arXiv 2204.06507).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from twostep.metrics.ood.scores import Score, in_units
from twostep.models.base import GeneralizedAutoencoder, Model
from twostep.models.two_step import TwoStep

K = 5
BLOCK = 1000  # rows that are mapped at once
ENTRIES = 2**26  # of the training rows at most
EQUAL = 1e-10  # squared distance relative to squared norms, from which on rows are others

KNN = Score("knn", "knn_ood_{}", None)
KNN_LATENT = Score("knn_latent", "knn_ood_{}_low_dim", None)


def knn_scores(model: nn.Module, training: Tensor) -> list[Score]:
    """Return the scores of a model, in evaluation mode, by its distance to training rows `(n, *S)`."""
    gae = model.gae if isinstance(model, TwoStep) else model
    assert isinstance(gae, Model)
    if gae.columns is not None and not isinstance(gae, GeneralizedAutoencoder):
        return []  # of a table with words or gaps, whose rows have no distance

    def distance(of: Callable[[Tensor], Tensor], standardised: bool = False) -> Callable[[Tensor], Tensor]:
        known = torch.cat([of(block).flatten(1) for block in training.split(BLOCK)])
        scale = known.std(0).clamp(min=torch.finfo(known.dtype).tiny) if standardised else known.new_ones(())
        find = NearestRows(known / scale)
        return lambda x: -find(of(x).flatten(1) / scale)

    with torch.no_grad():
        scores = [replace(KNN, of=distance(lambda x: in_units(gae, x)))]
        if isinstance(gae, GeneralizedAutoencoder):
            scores.append(replace(KNN_LATENT, of=distance(gae.encode, standardised=True)))
    return scores


class NearestRows:
    """Rows `(n, D)` that are known, among which neighbours are sought."""

    def __init__(self, known: Tensor) -> None:
        self.centre = known.mean(0)
        self.known = known - self.centre
        self.norms = self.known.square().sum(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the distance `(B,)` of rows `(B, D)` to the k-th nearest, or farthest of fewer; not to themselves."""
        x = x - self.centre
        count = min(K + 1, len(self.known))
        near = (self.norms - 2 * x @ self.known.T).topk(count, largest=False).indices
        squares = torch.stack([(x - self.known[column]).square().sum(1) for column in near.T], 1).sort(1).values
        itself = squares[:, 0] <= EQUAL * x.square().sum(1)
        return torch.where(itself, squares[:, -1], squares[:, min(K, count) - 1]).sqrt()
