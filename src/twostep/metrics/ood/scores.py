"""Scores for out-of-distribution detection: log-densities, and the distance to the learned manifold.

For every score, *higher means more in-distribution*:

    log_prob               log-density of the model; of a two-step model, at the projection of a point on its manifold
    log_prob_latent        log-density of the embeddings of a two-step model
    reconstruction_error   -‖x - g(f(x))‖², for models that reconstruct
    relative_distance      of images, the same relative to how much the image varies (below)
    nearest_distance       of vectors, minus the distance to the nearest training row, if these are given
    knn, knn_latent        minus the distance to the fifth nearest training row, see `knn`
    two_part               density and distances of a two-step model combined, see `conformal`

*Units.* Distances of images are in units of the data. Those of vectors are in the units that the model sees where it
standardises its columns: one wide column would decide otherwise.

*Relative distance.* A simple image (a thin digit, a flat area) is near any manifold: it has little that can be
reconstructed wrongly. With y what the network sees of an image of D values, ȳ their mean and r the reconstruction,

    -‖y - r‖² / (‖y - ȳ‖² + 0.004 D),

in which the second term keeps noise in flat images from counting; it is 5 % of what images of a range of 1 vary.

*Labels.* Of a density that is conditioned on labels, the log-density of a point is the highest of all labels: it is
unusual where it is so for each.

An encoder alone has no distance, and without a decoder that can be differentiated there is no `log_prob`: the density
of the embeddings takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twostep.core.neighbours import k_nearest
from twostep.data.batches import Batches
from twostep.metrics.base import SumOverRanks, measure_of
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, evaluating
from twostep.models.two_step import TwoStep, of_best_label
from twostep.nn.transforms import Chain, Whiten

Array = NDArray[np.float64]

MAX_ROWS = 10_000  # to score per split: a density on a manifold needs the decoder's Jacobian at each
FAR = 1e30
DISTANCE = "reconstruction_error"
RELATIVE = "relative_distance"
NEAREST = "nearest_distance"
LATENT = "log_prob_latent"
FLAT = 0.004  # squared unit of the network's input, by value of an image


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
NEAREST_SCORE = Score(NEAREST, "nearest_distance_ood_{}", None)


def scores_of(model: nn.Module, training: Tensor | None = None) -> list[Score]:
    """Return the scores of a model, without the two-part one; of vectors by training rows, too, if given."""
    scores: list[Score] = []
    by_density: Any = of_best_label(model)
    gae = model.gae if isinstance(model, TwoStep) else model
    if isinstance(model, DensityEstimator) or (isinstance(model, TwoStep) and not model.no_volume):
        scores.append(Score("log_prob", "likelihood_ood_{}", by_density.log_prob, model.likelihood, measure_of(model)))
    if isinstance(model, TwoStep):
        latent, kind = measure_of(model.de), model.likelihood
        scores.append(Score(LATENT, "likelihood_ood_{}_low_dim", by_density.log_prob_latent, kind, latent))
    if isinstance(gae, GeneralizedAutoencoder) and gae.decodes:
        scores.append(Score(DISTANCE, "distance_ood_{}", lambda x: -_error(gae, x)))
        if len(gae.event_shape) > 1:
            scores.append(Score(RELATIVE, "relative_distance_ood_{}", lambda x: -_relative(gae, x)))
    if training is not None and isinstance(gae, GeneralizedAutoencoder) and gae.decodes and len(gae.event_shape) == 1:
        known = in_units(gae, training)

        def nearest(x: Tensor) -> Tensor:
            return -nearest_distance(in_units(gae, x), known)

        scores.append(replace(NEAREST_SCORE, of=nearest))
    return scores


def in_units(model: Model, x: Tensor) -> Tensor:
    """Return points `(B, *S)` in the units of distances: those of the network where a model standardises vectors."""
    transform = model.transform
    standardises = not isinstance(transform, Chain) or any(isinstance(part, Whiten) for part in transform)
    return transform(x) if standardises and len(model.event_shape) == 1 else x


def nearest_distance(x: Tensor, known: Tensor) -> Tensor:
    """Return the distance `(B,)` of rows `(B, D)` to the nearest of those that are known, `(n, D)`.

    Of a row that is one of them, that to the nearest other one.
    """
    squares = k_nearest(x, min(2, len(known)), known)[0]
    rounding = (32 * torch.finfo(x.dtype).eps) ** 2 * x.double().square().sum(1)
    return torch.where(squares[:, 0] > rounding, squares[:, 0], squares[:, -1]).sqrt().to(x)


def _error(gae: GeneralizedAutoencoder, x: Tensor) -> Tensor:
    if gae.columns is not None:  # of a table, whose levels have probabilities: in standardised units already
        return gae.reconstruction_error(x)
    return _squares(in_units(gae, x), in_units(gae, gae.decode(gae.encode(x))))


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)


def _relative(gae: GeneralizedAutoencoder, x: Tensor) -> Tensor:
    seen, again = gae.transform(x).flatten(1), gae.transform(gae.decode(gae.encode(x))).flatten(1)
    return _squares(seen, again) / (_squares(seen, seen.mean(1, keepdim=True)) + FLAT * seen.shape[1])


def score_splits(
    model: nn.Module,
    splits: Mapping[str, Batches],
    sum_over_ranks: SumOverRanks,
    seed: int,
    training: Tensor | None = None,
    more: Sequence[Score] = (),
) -> dict[str, dict[str, Array]]:
    """Return the scores of the rows of all ranks, in order, by score and split; the same seed gives the same ones.

    Distances of vectors to the nearest of the `training` rows `(n, D)` are among them if these are given, and `more`
    scores.
    """
    scored: dict[str, dict[str, Array]] = {}
    with evaluating(model):
        for score in (*scores_of(model, training), *more):
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
