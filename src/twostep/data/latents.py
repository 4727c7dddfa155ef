"""Embeddings of a data set: complete, in its order, in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twostep.data.rows import Points

ENCODE_ROWS = 1000


def embed(encode: Callable[[Tensor], Tensor], data: Points, device: torch.device | str = "cpu") -> Tensor:
    """Return the embeddings `(N, d)` of `data` `(N, *S)`, on the CPU; `encode` must be in eval mode."""
    with torch.no_grad():
        parts = [
            encode(rows.to(device, rows.dtype if rows.is_floating_point() else torch.get_default_dtype())).cpu()
            for rows in data.split(ENCODE_ROWS)
        ]
    return torch.cat(parts)
