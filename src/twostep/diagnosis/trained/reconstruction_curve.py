"""How much of the data autoencoders leave over their latent size, each trained for itself, measured on held-out rows.

    E(k) = E ‖x - g_k(f_k(x))‖² / E ‖x - m‖²,    m the mean of the training rows,

over the leading principal coordinates of the training rows, of which there are at most 100: networks of more inputs
would take minutes. What these coordinates hold of the variance of held-out rows is told beside the curve. The interval
is that of a ratio of means over independent rows, from the residuals e - E v of each row's error e and square distance
v; the network is taken as given.

Principal components of the same sizes stand beside it. Where an autoencoder leaves less than a twentieth of what they
leave, it has found the curved manifold as far as so small a network can, and what further coordinates take away is its
training, until all of them leave nothing; the knee is told with such errors as unresolved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.diagnosis.dimension.knee import knee_of
from twostep.diagnosis.trained.stacked_autoencoders import trained

COORDINATES = 100
HELD_OUT = 0.125  # of the rows, once for validation and once for the test
LEAST = 50  # rows
WHOLE = 0.995  # share of the variance that is taken for all
RESOLVED = 0.05  # of what principal components leave
Z95 = 1.96


@dataclass(frozen=True)
class Left:
    """What an autoencoder leaves of the data.

    Args:
        size: its latent dimension.
        value: share of variance left on held-out rows.
        low: the lower end of its 95 % interval.
        high: the higher end.
        linear: share that as many principal components leave.
    """

    size: int
    value: float
    low: float
    high: float
    linear: float


@dataclass(frozen=True)
class ReconstructionCurve:
    """Reconstruction error over latent size.

    Args:
        points: by ascending size.
        coordinates: principal coordinates that the autoencoders were given.
        held: share of the variance of held-out rows that these hold.
        n: held-out rows that the errors are of.
    """

    points: tuple[Left, ...]
    coordinates: int
    held: float
    n: int

    @property
    def knee(self) -> int | None:
        """The smallest size after which more coordinates hardly help; None if there is none."""
        points = self.points
        unresolved = [RESOLVED * point.linear for point in points]
        return knee_of([point.size for point in points], [point.value for point in points], unresolved)

    def line(self) -> str:
        """Return the curve and its knee in a sentence."""
        told = ", ".join(f"{point.size}: {point.value:.2%}" for point in self.points)
        end = "no knee" if self.knee is None else f"knee at {self.knee}"
        within = f" within {self.coordinates} principal coordinates, which hold {self.held:.0%},"
        where = "" if self.held > WHOLE else within
        return f"variance left{where} by a small autoencoder of so many latent coordinates: {told}; {end}"


def coordinates_of(n: int, dim: int) -> int:
    """Return how many principal coordinates n rows of `dim` coordinates are given as: the largest latent size."""
    return min(COORDINATES, dim, n - 2 * round(HELD_OUT * n) - 1)


def sizes_around(d: int, most: int) -> list[int]:
    """Return the sizes to train for data of about d dimensions: at least 4 where `most` allows, ascending.

    Args:
        d: an estimate of the dimension, at least 1.
        most: the largest size; a knee at this size can't be seen.
    """
    most = min(most, COORDINATES)
    d = min(d, most)
    asked = {1, d // 2, d - 1, d, d + 1, d + 2, 2 * d, max(3 * d, 4)}
    return sorted(size for size in asked if 1 <= size <= most)


def reconstruction_curve(points: Tensor, sizes: Sequence[int], seed: int = 0) -> ReconstructionCurve:
    """Train an autoencoder of each size on three quarters of the points, and measure it on an eighth of them.

    Args:
        points: rows `(n, D)`.
        sizes: latent dimensions, from 1 to `coordinates_of` the points.
        seed: of split, weights and batches; the same seed gives the same figures.

    Raises:
        UserError: for fewer than 50 rows, rows without variance, or sizes out of range.
    """
    if len(points) < LEAST:
        raise UserError(f"{len(points)} rows are too few to train on: give {LEAST} or more")
    sizes, largest = sorted(set(sizes)), coordinates_of(*points.shape)
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= largest:
        raise UserError(f"latent sizes must be from 1 to {largest} for these rows, not {sizes}")
    train, valid, test, held = _coordinates(_split(points.double(), seed), largest, seed)
    model = trained(train.float(), valid.float(), sizes, seed)
    with torch.no_grad():
        errors = model.errors(test.float()).double()
    variance, squares = test.square().sum(1), test.square().mean(0)
    linear = [float(squares[size:].sum() / squares.sum()) for size in sizes]
    left = [_left(size, error, variance, line) for size, error, line in zip(sizes, errors, linear, strict=True)]
    return ReconstructionCurve(tuple(left), test.shape[1], held, len(test))


def _split(points: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(derive(seed, "held out"))
    rows = points[torch.randperm(len(points), generator=generator)]
    held = round(HELD_OUT * len(rows))
    train, valid, test = rows.split([len(rows) - 2 * held, held, held])
    return train, valid, test


def _coordinates(parts: tuple[Tensor, Tensor, Tensor], count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the parts in the training rows' leading principal coordinates, the first of std 1; and what they hold."""
    from sklearn.decomposition import PCA  # here because it takes a second

    train = parts[0]
    if bool((train == train[0]).all()):
        raise UserError("all rows are the same: give rows that differ")
    model = PCA(count, random_state=derive(seed, "principal") % 2**32).fit(train.numpy())
    scale = math.sqrt(model.explained_variance_[0])
    first, second, third = (torch.from_numpy(model.transform(part.numpy())) / scale for part in parts)
    whole = (parts[2] - train.mean(0)).square().sum() / scale**2
    return first, second, third, float(third.square().sum() / whole)


def _left(size: int, errors: Tensor, variance: Tensor, linear: float) -> Left:
    value = float(errors.sum() / variance.sum())
    margin = Z95 * float((errors - value * variance).std() / variance.mean()) / math.sqrt(len(errors))
    return Left(size, value, max(0.0, value - margin), value + margin, linear)
