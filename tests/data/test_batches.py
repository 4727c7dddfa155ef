"""Batches: each row once, whoever sees it, in an order that two numbers decide."""

import pytest
import torch

from twostep.data.batches import Batches

ROWS = torch.arange(23)[:, None]


@pytest.mark.parametrize("size", [1, 5, 22, 23, 40])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_all_ranks_together_see_each_row_once(size, ranks):
    seen = [torch.cat(list(Batches(ROWS, size, rank, ranks))) for rank in range(ranks) if rank < size]
    assert sorted(torch.cat(seen).flatten().tolist()) == list(range(23))


@pytest.mark.parametrize(("size", "count"), [(1, 23), (5, 5), (22, 2), (23, 1), (40, 1)])
def test_the_length_is_the_number_of_batches(size, count):
    batches = Batches(ROWS, size)
    assert len(batches) == count == len(list(batches))
    assert torch.equal(torch.cat(list(batches)), ROWS.float()), "in the data's order"


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("size", [4, 22])
def test_an_epoch_takes_each_row_once(size, ranks):
    shares = [Batches(ROWS, size, rank, ranks) for rank in range(ranks)]
    order = shares[0].order(7, 0)
    taken = []
    for index in range(len(shares[0])):
        rows = shares[0].rows_of(order, index)
        parts = [share.take(rows) for share in shares]
        assert sorted(torch.cat(parts).flatten().int().tolist()) == sorted(rows.tolist())
        taken.extend(rows.tolist())
    assert sorted(taken) == list(range(23))


def test_a_rank_without_a_row_takes_an_empty_batch_of_the_right_shape():
    batches = Batches(torch.zeros(5, 2, 3, dtype=torch.uint8), 4, rank=1, world_size=2)
    share = batches.take(torch.tensor([4]))
    assert (share.shape, share.dtype) == ((0, 2, 3), torch.float32)


def test_the_order_is_a_function_of_seed_and_epoch():
    batches = Batches(ROWS, 5)
    before = torch.get_rng_state()
    first = batches.order(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(batches.order(0, 0), first)
    assert torch.equal(Batches(ROWS, 7, 1, 2).order(0, 0), first), "the same on every rank, for any batch size"
    others = [batches.order(seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(other) for other in others}) == 9


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.uint8, torch.float32),
        (torch.int64, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_integers_become_floats_and_floats_stay(given, expected):
    batches = Batches(ROWS.to(given), 5)
    assert next(iter(batches)).dtype == batches.take(torch.tensor([0, 3])).dtype == expected
    assert batches.take(torch.tensor([22, 3])).flatten().tolist() == [22, 3]


def test_data_are_not_changed_by_what_is_done_to_a_batch():
    data = torch.ones(4, 1)
    Batches(data, 2).take(torch.tensor([0, 1])).zero_()
    assert (data == 1).all()
