"""Quadrics that the data lie on: equations q(x) = 0 of degree 2 that the rows satisfy.

For rows with mean 0 and covariance I, and q(x) = xᵀHx + bᵀx - c,

    E ‖∇q‖² = 4 tr H² + ‖b‖²,      thickness² = Var q / E ‖∇q‖²

and the thickness is about the distance of the rows to the surface q = 0, in units of a std of the data. In the features
x_i, x_i²/2, x_i x_j/√2 the denominator is the sum of squared coefficients, so the thinnest quadrics are the last
principal components of these features. The thickness is 0 on spheres, ellipsoids, cones and products of them, also in
dimensions where neighbours are too far away to show it, and at least 1/2 (squared) for a Gaussian and 1/5 for a cube.

Source: Distributional and L^q norm inequalities for polynomials over convex bodies in R^n (Carbery & Wright, 2001).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

KEPT = 4
ROWS = 2  # for each coefficient


class Quadrics(NamedTuple):
    """Quadrics xᵀHx + bᵀx - c: `squares` H `(K, D, D)`, `linear` b `(K, D)`, `constants` c `(K,)`; E ‖∇q‖² = 1."""

    squares: Tensor
    linear: Tensor
    constants: Tensor

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return q and its gradient at `x: (B, D)`, `(B, K)` and `(B, K, D)`."""
        half = torch.einsum("kde,be->bkd", self.squares, x)
        values = (half * x[:, None]).sum(2) + x @ self.linear.T - self.constants
        return values, 2 * half + self.linear

    def thickness(self, x: Tensor) -> Tensor:
        """Return the root mean square of each q over rows `(n, D)`, `(K,)`."""
        return self.values(x)[0].square().mean(0).sqrt()


def enough_rows(n: int, dim: int) -> bool:
    """Whether n rows of this many coordinates are enough to fit quadrics."""
    return n >= ROWS * (dim + dim * (dim + 1) // 2)


def thinnest_quadrics(x: Tensor) -> Quadrics:
    """Fit the thinnest quadrics to whitened rows `(n, D)`."""
    dim = x.shape[1]
    rows, columns = torch.triu_indices(dim, dim)
    size = torch.where(rows == columns, 2.0, math.sqrt(2)).to(x)
    features = torch.cat([x, x[:, rows] * x[:, columns] / size], 1)
    mean = features.mean(0)
    vectors = torch.linalg.eigh((features - mean).T @ (features - mean) / len(x)).eigenvectors[:, :KEPT].T
    squares = x.new_zeros(len(vectors), dim, dim)
    squares[:, rows, columns] = vectors[:, dim:] / size
    return Quadrics((squares + squares.mT) / 2, vectors[:, :dim].contiguous(), vectors @ mean)
