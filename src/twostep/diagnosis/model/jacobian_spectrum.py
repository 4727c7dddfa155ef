"""Dimension of the data that a trained decoder's Jacobian shows.

With J = dg/dz at an embedding and Σ = S Sᵀ the covariance of the embeddings of the data, the singular values of

    J S,   one for each principal direction of the decoder, in units of the data for one std of the embeddings,

do not change when embeddings are mapped linearly and the decoder inverts it. A direction counts if its singular value
is at least `COUNTS` of the largest at the same point. The number that count, its median over points, is the dimension
that the decoder shows; only an estimate of the intrinsic dimension of embeddings shows that they lie on a surface.

log det JᵀJ is lost to rounding where the smallest singular value of J is at most machine precision times D of the
largest, the rule of `numpy.linalg.matrix_rank`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.models.base import GeneralizedAutoencoder, evaluating
from twostep.nn.jacobian import BLOCK_ENTRIES, composed, tangents

COUNTS = 0.01


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a decoder's Jacobian at n points, descending, `(n, d)`, and 0 beyond the D-th.

    `values` are those of J S, in units of the data for one std of the embeddings, `plain` those of J. `metric` `(d, d)`
    is the mean of JᵀJ, and `singular` `(n,)` says where log det JᵀJ is lost to rounding.
    """

    values: Tensor
    plain: Tensor
    metric: Tensor
    singular: Tensor

    @property
    def ranks(self) -> Tensor:
        """Directions that count at each point, `(n,)`."""
        return (self.values >= COUNTS * self.values[:, :1]).sum(1) * (self.values[:, 0] > 0)

    @property
    def dimension(self) -> int:
        """The median number of directions that count."""
        return int(self.ranks.median())

    @property
    def conditions(self) -> Tensor:
        """Condition number of J S at each point, `(n,)`."""
        smallest = self.values[:, -1]
        return torch.where(smallest > 0, self.values[:, 0] / smallest, torch.inf)


def decoder_spectrum(gae: GeneralizedAutoencoder, z: Tensor) -> Spectrum:
    """Return the spectrum of a decoder's Jacobian at embeddings `(n, d)`, n >= 2, scaled by their covariance."""
    factor = square_root(z.double().T.cov().view(z.shape[1], z.shape[1]))
    found: list[Tensor] = []
    metric = factor.new_zeros(factor.shape)
    decode = composed(*gae.decoder_parts())
    with evaluating(gae):
        for block in z.split(max(4, BLOCK_ENTRIES // (gae.dim * z.shape[1]))):
            J = tangents(decode, block).movedim(0, 2).double()
            found.append(torch.linalg.svdvals(torch.stack([J @ factor, J])))
            metric += (J.mT @ J).sum(0) / len(z)
    both = torch.cat(found, 1)
    values, plain = torch.nn.functional.pad(both, (0, z.shape[1] - both.shape[2]))
    singular = plain[:, -1] <= torch.finfo(z.dtype).eps * max(gae.dim, z.shape[1]) * plain[:, 0]
    return Spectrum(values, plain, metric, singular)


def square_root(matrix: Tensor) -> Tensor:
    """Return S with S Sᵀ = A of a symmetric matrix A `(d, d)` without negative eigenvalues."""
    values, directions = torch.linalg.eigh(matrix)
    return directions * values.clamp(min=0).sqrt()
