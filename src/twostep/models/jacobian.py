"""Log-volumes of decoders.

A decoder g: R^d -> R^D with Jacobian J (D x d) stretches d-dimensional volume by `sqrt(det JᵀJ)`. With the thin QR
decomposition `J = QR` this is `|det R|`, so `½ log det JᵀJ = Σ log |r_ii|`: J is never squared, which would halve
the digits that survive.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap

BLOCK_ENTRIES = 2**20


def jacobian(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the Jacobian of a decoder at each point, one forward-mode pass for each latent coordinate.

    Shapes: `z: (B, d)`, result `(B, D, d)`.
    """

    def column(direction: Tensor) -> Tensor:
        return jvp(decode, (z,), (direction.expand_as(z),))[1].flatten(1)

    return vmap(column, out_dims=2)(torch.eye(z.shape[1], dtype=z.dtype, device=z.device))


def log_volume(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return `½ log det JᵀJ` of a decoder at each point, in nats; `-inf` exactly where J has not full rank.

    The rank is judged as `numpy.linalg.matrix_rank` does, by machine precision times the longer side of J, on the
    diagonal of R. Points go through in blocks, so that memory does not grow with their number. For evaluation only:
    the result can't be differentiated.

    Shapes: `z: (B, d)`, result `(B,)`.
    """
    with torch.no_grad():
        point = decode(z[:1])
    block = max(4, BLOCK_ENTRIES // max(1, point.numel() * z.shape[1]))
    return torch.cat([_log_abs_det(jacobian(decode, part)) for part in z.split(block)])


def _log_abs_det(J: Tensor) -> Tensor:
    if J.shape[1] < J.shape[2]:
        return J.new_full((len(J),), -torch.inf)
    r = torch.linalg.qr(J, mode="r").R.diagonal(dim1=-2, dim2=-1).abs()
    full_rank = r.amin(1) > torch.finfo(J.dtype).eps * J.shape[1] * r.amax(1)
    return torch.where(full_rank, r.log().sum(1), -torch.inf)
