"""Rows of a tensor that are taken when they are asked for, so that a split of large data is no copy of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twostep.data.files import cache

CHUNK = 2**24  # bytes


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor, in the tensor's own manner: `len`, `shape`, `dtype`, `[...]`, `split`, `index_select`.

    Args:
        data: all rows, `(N, *S)`, most likely in a mapped file.
        index: numbers of the rows meant, `(n,)`, int64.
    """

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
        """Copy the rows of a slice, or those of the numbers given, into memory."""
        return self.data.index_select(0, self.index[rows])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Copy rows by their numbers, `(b,)` to `(b, *S)`; `dim` is 0."""
        assert dim == 0
        return self[index]

    def split(self, size: int) -> Iterator[Tensor]:
        """Give all rows in order, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


Points = Tensor | Rows


def chunks(data: Points) -> Iterator[Tensor]:
    """Give all rows in order, as many at a time as `CHUNK` bytes hold."""
    yield from data.split(max(1, CHUNK // max(1, data[:1].nbytes)))


def part(data: Points, rows: Tensor) -> Points:
    """Return rows by their numbers: a copy, or `Rows` where the data take more than `cache.LARGE` bytes."""
    if isinstance(data, Rows):
        return Rows(data.data, data.index[rows])
    return Rows(data, rows) if data.nbytes > cache.LARGE else data[rows]


def spread(data: Points, most: int) -> Tensor:
    """Return at most so many rows, evenly spaced in the data's order."""
    rows = min(len(data), most)
    return data[torch.arange(rows) * len(data) // rows]
