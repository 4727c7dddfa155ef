"""Scores for out-of-distribution detection: log-densities, and the distance to the learned manifold.

For every score, *higher means more in-distribution*:

    log_prob               log-density of the model; of a two-step model, at the projection of a point on its manifold
    log_prob_latent        log-density of the embeddings of a two-step model
    reconstruction_error   -‖x - g(f(x))‖², for models that reconstruct
    two_part               density and distance of a two-step model combined, see `conformal`

An encoder alone has no distance, and without a decoder that can be differentiated there is no `log_prob`: the density
of the embeddings takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twostep.data.batches import Batches
from twostep.metrics.base import SumOverRanks, measure_of
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, evaluating
from twostep.models.two_step import TwoStep

Array = NDArray[np.float64]

MAX_ROWS = 10_000  # to score per split: a density on a manifold needs the decoder's Jacobian at each
FAR = 1e30
DISTANCE = "reconstruction_error"
LATENT = "log_prob_latent"


@dataclass(frozen=True)
class Score:
    """A score of points, with a template of the names of its figures, and kind and reference measure of a density.

    `of` maps points `(B, *S)` to scores `(B,)`; the two-part score, which is computed from other scores, has none.
    """

    name: str
    figure: str
    of: Callable[[Tensor], Tensor] | None
    kind: str = ""
    measure: str = ""


TWO_PART = Score("two_part", "two_part_ood_{}", None)


def scores_of(model: nn.Module) -> list[Score]:
    """Return the scores of a model, without the two-part score."""
    scores: list[Score] = []
    gae = model.gae if isinstance(model, TwoStep) else model
    if isinstance(model, DensityEstimator) or (isinstance(model, TwoStep) and not model.no_volume):
        scores.append(Score("log_prob", "likelihood_ood_{}", model.log_prob, model.likelihood, measure_of(model)))
    if isinstance(model, TwoStep):
        latent, kind = measure_of(model.de), model.likelihood
        scores.append(Score(LATENT, "likelihood_ood_{}_low_dim", model.log_prob_latent, kind, latent))
    if isinstance(gae, GeneralizedAutoencoder) and gae.decodes:
        scores.append(Score(DISTANCE, "distance_ood_{}", lambda x: -gae.reconstruction_error(x)))
    return scores


def score_splits(
    model: nn.Module, splits: Mapping[str, Batches], sum_over_ranks: SumOverRanks, seed: int
) -> dict[str, dict[str, Array]]:
    """Return the scores of the rows of all ranks, in order, by score and split; the same seed gives the same ones."""
    scored: dict[str, dict[str, Array]] = {}
    with evaluating(model):
        for score in scores_of(model):
            assert score.of is not None
            scored[score.name] = {}
            for split, batches in splits.items():
                torch.manual_seed(seed)
                found = torch.cat([torch.empty(0, device=batches.device), *(score.of(x) for x in batches)])
                every = found.new_zeros(len(batches.data))
                blocks = torch.arange(len(every)).split(batches.batch_size)
                every[torch.cat([block[batches.rank :: batches.world_size] for block in blocks])] = found
                scored[score.name][split] = sum_over_ranks(every).cpu().double().numpy()
    return scored


def finite(values: Array) -> Array:
    """Replace infinite scores by ones beyond all others, and NaN by the lowest."""
    return np.nan_to_num(values, nan=-FAR, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)
