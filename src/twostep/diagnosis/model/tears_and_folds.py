"""Where an autoencoder is discontinuous (tears) or not injective (folds), from neighbours in data and embeddings.

A pair of points is suspect if one is among the k nearest neighbours of the other in one of the two spaces and not among
the nearest tenth of all in the other space. The path of the decoder g between the two then decides:

    w_ij = length of g along the straight line from z_i to z_j

    torn     w_ij > DETOUR ‖x_i - x_j‖     near in data space, far apart in the chart
    folded   ‖x_i - x_j‖ > DETOUR w_ij     near in the chart, far apart in data space: their difference is lost

One chart can't cover a circle or a sphere: the encoder is discontinuous somewhere, and points on both sides are torn.
With r_X(i, j) the rank of j among the nearest neighbours of i in data space,

    trustworthiness = 1 - 2 / (n k (2 n - 3 k - 1)) Σ_i Σ_j max(0, r_X(i, j) - k),  j of the k nearest embeddings of i

and continuity the same with data and embeddings exchanged; 1 where neighbours are kept, about 1/2 where they are
random. Embeddings are compared by the mean of JᵀJ, the decoder's metric.

Source: Neighborhood Preservation in Nonlinear Projection Methods (Venna & Kaski, 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.neighbours import k_nearest
from twostep.diagnosis.model.jacobian_spectrum import square_root
from twostep.models.base import GeneralizedAutoencoder, evaluating

NEIGHBOURS = 5
FAR = 0.1  # of all points
DETOUR = 5.0
STEPS = 8  # of a path
ROWS = 512  # whose distances to all are held at once


@dataclass(frozen=True)
class TearsAndFolds:
    """Which points are torn or folded, `(n,)`, and how neighbours in data space and among embeddings agree.

    `detours` are the decoder's path over the distance, largest over the suspect neighbours, `(n,)`, or 1 without any;
    `widest` are the rows of the two points with the longest one, where any is torn.
    """

    torn: Tensor
    folded: Tensor
    detours: Tensor
    widest: tuple[int, int] | None
    continuity: float
    trustworthiness: float


def tears_and_folds(gae: GeneralizedAutoencoder, x: Tensor, z: Tensor, metric: Tensor) -> TearsAndFolds:
    """Compare neighbours of data `(n, *S)`, n of 16 or more, and of their embeddings `(n, d)` by a metric `(d, d)`."""
    points, latents = x.double().flatten(1), z.double() @ square_root(metric)
    near_data, near_latents = k_nearest(points, NEIGHBOURS)[1], k_nearest(latents, NEIGHBOURS)[1]
    among_latents, among_data = _ranks(latents, near_data), _ranks(points, near_latents)
    far = max(NEIGHBOURS, int(FAR * len(x)))
    lengths, distances = _paths(gae, points, z, near_data, among_latents > far)
    detours = torch.where(among_latents > far, lengths / distances.clamp(min=torch.finfo(distances.dtype).tiny), 1.0)
    short, apart = _paths(gae, points, z, near_latents, among_data > far)
    longest, which = detours.max(1)
    torn = longest > DETOUR
    worst = int(longest.argmax())
    widest = (worst, int(near_data[worst, which[worst]])) if bool(torn.any()) else None
    folded = (apart > DETOUR * short).any(1)
    return TearsAndFolds(torn, folded, longest, widest, _kept(among_latents), _kept(among_data))


def _paths(gae: GeneralizedAutoencoder, points: Tensor, z: Tensor, others: Tensor, pairs: Tensor) -> Tensor:
    """Return the lengths of the decoder's paths and the distances to marked others, `(2, n, k)`; 0 where not marked."""
    rows, columns = pairs.nonzero(as_tuple=True)
    lengths, distances = found = points.new_zeros(2, *pairs.shape)
    share = torch.linspace(0, 1, STEPS + 1, dtype=z.dtype)[:, None]
    with evaluating(gae):
        for row, column in zip(rows.split(ROWS), columns.split(ROWS), strict=True):
            start, end = z[row, None], z[others[row, column], None]
            line = gae.decode((start + share * (end - start)).flatten(0, 1)).double().flatten(1)
            line = line.unflatten(0, (len(row), STEPS + 1))
            lengths[row, column] = line.diff(dim=1).norm(dim=2).sum(1)
            distances[row, column] = (points[row] - points[others[row, column]]).norm(dim=1)
    return found


def _ranks(points: Tensor, others: Tensor) -> Tensor:
    """Return the rank, from 1 for the nearest, of the given others `(n, k)` among all others of each point."""
    ranks: list[Tensor] = []
    for block, given in zip(points.split(ROWS), others.split(ROWS), strict=True):
        distances = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
        reach = distances.gather(1, given)
        ranks.append(torch.searchsorted(distances.sort(1).values, reach).clamp(min=1))
    return torch.cat(ranks)


def _kept(ranks: Tensor) -> float:
    n, k = ranks.shape
    return 1 - 2 * float((ranks - k).clamp(min=0).sum()) / (n * k * (2 * n - 3 * k - 1))
