"""A ring of the newest negatives, which chains go on from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ring(nn.Module):
    """The last rows that were appended, at most `size` of them; all of it lies in buffers, so it is saved.

    Args:
        size: number of rows.
        shape: of a row.
    """

    rows: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, *shape))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def append(self, rows: Tensor) -> None:
        """Write rows `(n, *shape)` over the oldest ones."""
        size = len(self.rows)
        rows = rows[-size:]
        places = (self.position + torch.arange(len(rows), device=rows.device)) % size
        self.rows[places] = rows
        self.position.copy_((self.position + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))

    def mix(self, fresh: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
        """Return fresh points `(n, *shape)`, all but a share of them replaced by rows drawn from the ring."""
        filled = int(self.filled)
        if not filled:
            return fresh
        at = torch.randint(filled, (len(fresh),), generator=generator, device=fresh.device)
        new = torch.rand(len(fresh), generator=generator, device=fresh.device) < share
        return torch.where(new.view(-1, *(1 for _ in fresh.shape[1:])), fresh, self.rows[at])
