"""Embeddings: all of them, in order, the encoder's own."""

import pytest
import torch

from twostep.data import batches
from twostep.data.batches import embed


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_embeddings_are_complete_and_in_order(monkeypatch, count):
    monkeypatch.setattr(batches, "EMBED_ROWS", 4)
    data = torch.arange(count, dtype=torch.uint8)[:, None]
    sizes = []

    def encode(x):
        sizes.append(len(x))
        assert x.dtype == torch.float32
        return torch.cat([x, -2 * x], 1)

    embedded = embed(encode, data)
    assert embedded.tolist() == [[row, -2 * row] for row in range(count)]
    assert sum(sizes) == count
    assert max(sizes) <= 4


def test_embeddings_keep_double_precision_and_have_no_graph():
    weight = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    embedded = embed(lambda x: x @ weight, torch.rand(5, 2, dtype=torch.float64))
    assert embedded.dtype == torch.float64
    assert not embedded.requires_grad
