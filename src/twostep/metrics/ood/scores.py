"""What tells whether a model knows a point: log-densities, and the distance to the manifold.

Every score is turned so that *higher = more in-distribution*:

    log_prob               the model's log-density; of a two-step model, that of the point's projection on its manifold
    log_prob_latent        log-density of a two-step model's embeddings
    reconstruction_error   -‖x - g(f(x))‖², for models that reconstruct

A density alone has no manifold, an autoencoder alone no density; a two-step model has all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twostep.data.batches import Batches
from twostep.metrics.base import SumOverRanks
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, evaluating
from twostep.models.two_step import TwoStep

Array = NDArray[np.float64]

MAX_ROWS = 10_000
"""Rows of each split that are scored at most: a density on a manifold needs the decoder's Jacobian at each."""

FAR = 1e30


@dataclass(frozen=True)
class Score:
    """Something that points are told apart by; higher means more in-distribution.

    Args:
        name: of the arrays it leaves.
        figure: how the names of its figures begin and end, with {} between.
        of: maps points `(B, *S)` to scores `(B,)`; None: it is made from the others (the two-part score).
        kind: of a density: exact, bound or unnormalised.
        measure: what a density refers to.
    """

    name: str
    figure: str
    of: Callable[[Tensor], Tensor] | None
    kind: str = ""
    measure: str = ""


def scores_of(model: nn.Module) -> tuple[Score, ...]:
    """Return the scores that a model has, its two-part score not among them."""
    scores: list[Score] = []
    if isinstance(model, TwoStep):
        latent = f"Lebesgue on R^{model.de.dim}"
        manifold = "volume of the learned manifold"
        scores += [
            Score("log_prob", "likelihood_ood_{}", model.log_prob, model.likelihood, manifold),
            Score("log_prob_latent", "likelihood_ood_{}_low_dim", model.log_prob_latent, model.likelihood, latent),
        ]
    elif isinstance(model, DensityEstimator):
        measure = f"Lebesgue on R^{model.dim}"
        scores.append(Score("log_prob", "likelihood_ood_{}", model.log_prob, model.likelihood, measure))
    if isinstance(model, TwoStep | GeneralizedAutoencoder):
        name = "reconstruction_error"
        scores.append(Score(name, "distance_ood_{}", lambda x: -model.reconstruction_error(x)))
    return tuple(scores)


def score_splits(
    model: nn.Module, splits: Mapping[str, Batches], sum_over_ranks: SumOverRanks, seed: int
) -> dict[str, dict[str, Array]]:
    """Score the rows of every split, in eval mode, with the same random numbers for the same seed.

    Returns:
        by score and split, the scores of all ranks' rows in the order of the split's rows.
    """
    scored: dict[str, dict[str, Array]] = {}
    with evaluating(model):
        for score in scores_of(model):
            scored[score.name] = {}
            for split, batches in splits.items():
                torch.manual_seed(seed)
                scored[score.name][split] = _score(score, batches, sum_over_ranks)
    return scored


def ranked(values: Array) -> Array:
    """Put infinite scores above or below all others, and those that are no numbers below."""
    return np.nan_to_num(values, nan=-FAR, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)


def _score(score: Score, batches: Batches, sum_over_ranks: SumOverRanks) -> Array:
    assert score.of is not None
    parts = [score.of(x) for x in batches]
    order = torch.arange(len(batches.data))
    mine = [batches.rows_of(order, index)[batches.rank :: batches.world_size] for index in range(len(batches))]
    every = torch.zeros(len(order), device=batches.device)
    if parts:
        scores = torch.cat(parts)
        every = every.to(scores.dtype)
        every[torch.cat(mine).to(every.device)] = scores
    return sum_over_ranks(every).cpu().double().numpy()
