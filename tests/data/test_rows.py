"""Rows of a tensor: they are what indexing gives, they are no copy, and a large set is trained on from its file."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.image_files import random_images, save_all
from twostep.data.batches import Batches, LazyRows, embed, subsample, take
from twostep.data.files import cache
from twostep.data.load import load_data

DATA = torch.arange(60, dtype=torch.uint8).view(20, 1, 3)
INDEX = torch.tensor([1, 4, 5, 9, 13, 17, 19])
ROWS, COPY = LazyRows(DATA, INDEX), DATA[INDEX]


@pytest.fixture
def small(monkeypatch):
    """Take everything for large."""
    monkeypatch.setattr(cache, "LARGE", 0)


def test_they_are_what_indexing_gives():
    assert (len(ROWS), ROWS.shape, ROWS.dtype) == (len(COPY), tuple(COPY.shape), COPY.dtype)
    for rows in (slice(None), slice(2, 4), slice(5, 99), slice(0, 0), torch.tensor([6, 0, 3])):
        assert torch.equal(ROWS[rows], COPY[rows])
    assert torch.equal(ROWS.index_select(0, torch.tensor([3, 3, 1])), COPY[[3, 3, 1]])
    for size in (1, 3, 7, 8):
        for mine, other in zip(ROWS.split(size), COPY.split(size), strict=True):
            assert torch.equal(mine, other)


def test_a_part_of_a_part_is_one_too(small):
    once = take(DATA, INDEX)
    twice = take(once, torch.tensor([0, 2, 6]))
    assert isinstance(once, LazyRows)
    assert isinstance(twice, LazyRows)
    assert twice.data is DATA
    assert torch.equal(twice[:], COPY[[0, 2, 6]])


def test_parts_of_small_data_are_copies():
    assert torch.equal(take(DATA, INDEX), COPY)
    assert take(DATA, INDEX).untyped_storage().nbytes() == COPY.nbytes


@pytest.mark.parametrize("ranks", [1, 3])
def test_batches_and_embeddings_do_not_know_the_difference(ranks):
    for rank in range(ranks):
        mine, other = (Batches(data, 3, rank, ranks) for data in (ROWS, COPY))
        for one, two in zip(mine, other, strict=True):
            assert torch.equal(one, two)
        order = mine.order(0, 0)
        assert torch.equal(order, other.order(0, 0))
        for index in range(len(mine)):
            rows = mine.rows_of(order, index)
            assert torch.equal(mine.take(rows), other.take(rows))
    assert torch.equal(embed(lambda x: x.flatten(1), ROWS), COPY.flatten(1).float())
    assert torch.equal(subsample(ROWS, 1000), COPY)


def test_large_sets_have_the_rows_and_the_digest_of_small_ones(tmp_path, monkeypatch):
    array = save_all(tmp_path / "images", random_images(40, (4, 4, 3)))
    np.save(tmp_path / "array.npy", array)
    np.save(tmp_path / "floats.npy", array.astype(np.float32))
    names = [str(tmp_path / name) for name in ("images", "array.npy", "floats.npy")]
    before = [load_data(name, seed=2) for name in names]
    cache.clear()
    monkeypatch.setattr(cache, "LARGE", 0)
    for _ in range(2):
        for name, other in zip(names, before, strict=True):
            splits = load_data(name, seed=2)
            for split in ("train", "valid", "test"):
                rows = getattr(splits, split)
                assert isinstance(rows, LazyRows)
                assert torch.equal(rows[:], getattr(other, split))
            assert splits.spec == other.spec
            assert splits.digest() == other.digest()


CHILD = """
import resource, sys
from pathlib import Path
import torch
from twostep.data import batches
from twostep.data.files import cache
from twostep.data.load import load_data
from twostep.data.batches import Batches

folder, size = sys.argv[1], int(sys.argv[2])
cache.LARGE, batches.BLOCK_BYTES = size // 2, 2**20
torch.zeros(2).sum()
taken = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
# the one private mapping of the kept file counts whole: there is room for it and for half as much again
resource.setrlimit(resource.RLIMIT_DATA, (taken + size * 3 // 2, -1))
for _ in range(2):
    splits = load_data(folder)
    digest = splits.digest()
    every = Batches(splits.train, 2)
    every.take(every.rows_of(every.order(0, 0), 0))
    print(len(splits.train), sum(float(batch.sum()) for batch in every), digest)
    del splits, every
cache.LARGE = 2 * size
try:
    load_data(folder).digest()
except RuntimeError as error:
    print("a copy:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts other things elsewhere")
def test_a_large_set_is_never_whole_in_memory(tmp_path):
    shades = np.arange(256, dtype=np.uint8)
    every = np.broadcast_to(shades[:, None, None, None], (256, 350, 350, 3))
    save_all(tmp_path / "images", every, "bmp")
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "images"), str(every.size)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    decoded, mapped, copied = run.stdout.splitlines()
    assert decoded == mapped
    assert decoded.split()[0] == "185"
    assert copied.startswith("a copy: "), "the limit is low enough to notice one"
    assert "can't allocate memory" in copied


def test_many_rows_are_thinned_evenly():
    assert subsample(torch.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert subsample(torch.arange(4), 4).tolist() == [0, 1, 2, 3]
    assert subsample(torch.arange(3), 4).tolist() == [0, 1, 2]
