"""Rows of a dataset in batches and blocks: slices of one tensor, never items one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.data.files import cache

BLOCK_BYTES = 2**24
EMBED_ROWS = 1000


@dataclass(frozen=True)
class LazyRows:
    """The rows `index` `(n,)` of a tensor `(N, *S)`, usually of a memory-mapped file, copied only when indexed."""

    data: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together, `(n, *S)`."""
        return (len(self.index), *self.data.shape[1:])

    @property
    def dtype(self) -> object:
        """Type of the values."""
        return self.data.dtype

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.data.index_select(0, self.index[rows])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Copy rows by index, `(b,)` to `(b, *S)`; `dim` must be 0."""
        assert dim == 0
        return self[index]

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all rows in order, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


Rows = Tensor | LazyRows


def blocks(data: Rows) -> Iterator[Tensor]:
    """Yield all rows in order, as many at a time as fit into `BLOCK_BYTES`."""
    yield from data.split(max(1, BLOCK_BYTES // max(1, data[:1].nbytes)))


def take(data: Rows, rows: Tensor) -> Rows:
    """Return rows by index: a copy, or `LazyRows` if the data exceed `cache.LARGE` bytes."""
    if isinstance(data, LazyRows):
        return LazyRows(data.data, data.index[rows])
    return LazyRows(data, rows) if data.nbytes > cache.LARGE else data[rows]


def subsample(data: Rows, size: int) -> Tensor:
    """Return at most `size` rows, evenly spaced in the order of the data."""
    rows = min(len(data), size)
    return data[torch.arange(rows) * len(data) // rows]


def embed(encode: Callable[[Tensor], Tensor], data: Rows, device: torch.device | str = "cpu") -> Tensor:
    """Return the embeddings `(N, d)` of `data` `(N, *S)`, on the CPU; `encode` must be in evaluation mode."""
    with torch.no_grad():
        return torch.cat([rows.cpu() for rows in Batches(data, EMBED_ROWS, device=device, encode=encode)])


@dataclass(frozen=True)
class Batches:
    """A dataset `(N, *S)` in batches, of which each rank sees its share.

    Iterating yields this rank's rows of every batch in the order of the data, as floats on `device`; batches in which
    the rank has no rows are skipped. Together, the ranks see each row once. `batch_size` counts rows over all ranks;
    `encode` is applied to every batch. `labels`, `(N,)`, are only carried along, for `labelled`.
    """

    data: Rows
    batch_size: int
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"
    encode: Callable[[Tensor], Tensor] | None = None
    labels: Tensor | None = None

    def labelled(self) -> Batches:
        """Return batches of these rows `(N, D)` with their labels as the last coordinate, if there are any."""
        if self.labels is None:
            return self
        rows = self.data[:]
        rows = rows.to(rows.dtype if rows.is_floating_point() else torch.get_default_dtype())
        return replace(self, data=torch.cat([rows, self.labels[:, None].to(rows)], 1), labels=None)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.data), self.batch_size):
            rows = self.data[start : start + self.batch_size][self.rank :: self.world_size]
            if len(rows):
                yield self._prepare(rows)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the row order of an epoch, `(N,)`; it depends on `seed` and `epoch` only."""
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        return torch.randperm(len(self.data), generator=generator)

    def rows_of(self, order: Tensor, index: int) -> Tensor:
        """Return the row numbers of one batch, over all ranks, in the given order."""
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def weight(self, index: int) -> float:
        """Return the rows of one batch as a share of those of a full one; the last batch can have fewer."""
        rows, size = len(self.data), self.batch_size
        return min(size, rows - index * size) / min(size, rows)

    def take(self, rows: Tensor) -> Tensor:
        """Return this rank's share of the given rows, which is empty if there are fewer rows than ranks."""
        return self._prepare(self.data.index_select(0, rows[self.rank :: self.world_size]))

    def _prepare(self, rows: Tensor) -> Tensor:
        batch = rows.to(self.device, rows.dtype if rows.is_floating_point() else torch.get_default_dtype())
        return batch if self.encode is None else self.encode(batch)
