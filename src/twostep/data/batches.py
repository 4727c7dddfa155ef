"""Batches of data: slices, never items one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.data.rows import Points


@dataclass(frozen=True)
class Batches:
    """A data set in batches, of which each rank sees its share.

    Iterating gives this rank's rows of every batch in the data set's order, as floats on `device`; batches of which
    the rank has no row are left out. All ranks' rows together are the data set, each row once.

    Args:
        data: all points, `(N, *S)`, of any dtype.
        batch_size: rows of a batch, over all ranks.
        rank: of this process.
        world_size: number of processes.
        device: where batches go.
        encode: applied to every batch; None: batches are the data themselves.
    """

    data: Points
    batch_size: int
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"
    encode: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.data), self.batch_size):
            rows = self.data[start : start + self.batch_size][self.rank :: self.world_size]
            if len(rows):
                yield self._move(rows)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the permutation of an epoch, a function of the two numbers alone, `(N,)`."""
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        return torch.randperm(len(self.data), generator=generator)

    def rows_of(self, order: Tensor, index: int) -> Tensor:
        """Return the row numbers of one batch in the given order, those of all ranks."""
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def take(self, rows: Tensor) -> Tensor:
        """Return this rank's share of the named rows; it can be empty when there are fewer rows than ranks."""
        return self._move(self.data.index_select(0, rows[self.rank :: self.world_size]))

    def _move(self, rows: Tensor) -> Tensor:
        dtype = rows.dtype if rows.is_floating_point() else torch.get_default_dtype()
        moved = rows.to(self.device, dtype)
        return moved if self.encode is None else self.encode(moved)
