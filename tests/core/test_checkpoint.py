"""Checkpoints: what goes in comes out, nothing damaged comes out, and no moment leaves less than a whole file."""

import os
import random
import resource
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from twostep.core import checkpoint
from twostep.core.checkpoint import CheckpointError, State
from twostep.core.schema import UserError

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
SMALL = State(
    {"a.weight": torch.tensor([1.5, -2.0]), "flag": torch.tensor(True)},
    {"epoch": 3, "name": "ä", "history": [{"loss": 0.1}], "best": None},
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "latest.safetensors"


def equal(one: State, other: State) -> bool:
    return (
        one.values == other.values
        and one.tensors.keys() == other.tensors.keys()
        and all(
            (tensor.dtype, tensor.shape) == (other.tensors[key].dtype, other.tensors[key].shape)
            and torch.equal(tensor, other.tensors[key])
            for key, tensor in one.tensors.items()
        )
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_tensor_comes_back(path, dtype):
    torch.manual_seed(0)
    shapes = [(), (0,), (2, 0, 3), (1,), (3, 2)]
    state = State({f"t{index}": (9 * torch.randn(shape)).to(dtype) for index, shape in enumerate(shapes)})
    checkpoint.save(path, state)
    assert equal(checkpoint.load(path), state)


def test_tensors_that_share_memory_are_kept_one_by_one(path):
    """Layers of one network can share a mask."""
    mask = torch.arange(6.0)
    state = State({"a.mask": mask, "b.mask": mask, "c.part": mask[2:4], "none": mask[:0], "empty": mask[:0]}, {})
    checkpoint.save(path, state)
    assert equal(checkpoint.load(path), state)


def test_numbers_come_back_to_the_bit(path):
    odd = torch.tensor([-0.0, float("inf"), float("-inf"), 1e-45, 1 / 3])
    values = {"third": 1 / 3, "none": None, "deep": {"list": [1, 2.5, "x"]}, "text": 'a\nb"ü\\'}
    checkpoint.save(path, State({"odd": odd, "nan": torch.tensor(float("nan"))}, values))
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.tensors["odd"].view(torch.int32), odd.view(torch.int32))
    assert loaded.tensors["nan"].isnan()
    assert loaded.values == values


def test_views_and_graphs_are_saved_as_plain_numbers(path):
    weight = torch.arange(6.0, requires_grad=True)
    state = State({"turned": weight.reshape(2, 3).T, "slice": weight[1::2], "spread": weight[:1].expand(4)})
    checkpoint.save(path, state)
    loaded = checkpoint.load(path)
    assert equal(loaded, state)
    assert not any(tensor.requires_grad for tensor in loaded.tensors.values())


def test_an_empty_state_comes_back(path):
    checkpoint.save(path, State())
    assert equal(checkpoint.load(path), State())


def test_parts_are_put_together_and_taken_apart():
    parts = {"gae": State({"model.w": torch.ones(2)}, {"epoch": 1}), "gae2": State({"w": torch.zeros(1)}, {"epoch": 2})}
    joined = State.join(parts)
    assert joined.tensors.keys() == {"gae.model.w", "gae2.w"}
    for name, part in parts.items():
        assert equal(joined.under(name), part), "a prefix ends at its dot"
    assert joined.under("gae").under("model").tensors.keys() == {"w"}
    assert equal(joined.under("none"), State())


def test_a_flipped_bit_in_any_byte_is_refused(path):
    checkpoint.save(path, SMALL)
    good = path.read_bytes()
    assert len(good) < 1000
    for place in range(len(good)):
        for bit in (place % 8, (place + 4) % 8):
            damaged = bytearray(good)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint"):
                checkpoint.load(path)


def test_flipped_bits_in_a_larger_file_are_refused(path):
    checkpoint.save(path, State({f"layer{index}": torch.randn(40, 40) for index in range(5)}, {"epoch": 1}))
    good = path.read_bytes()
    chance = random.Random(0)
    for _ in range(200):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_every_truncation_and_any_tail_is_refused(path):
    checkpoint.save(path, SMALL)
    good = path.read_bytes()
    for damaged in [*(good[:length] for length in range(len(good))), good + b"\0", good + good]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_messages_are_one_line_and_name_the_file(path, tmp_path):
    with pytest.raises(CheckpointError) as missing:
        checkpoint.load(path)
    path.write_text("hello, this is no checkpoint at all")
    with pytest.raises(CheckpointError) as damaged:
        checkpoint.load(path)
    with pytest.raises(CheckpointError) as folder:
        checkpoint.load(tmp_path)
    assert str(missing.value) == f"{path}: no such checkpoint"
    for caught, name in ((damaged, path), (folder, tmp_path)):
        assert str(caught.value).startswith(f"{name}: damaged or not a checkpoint")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [None, {"format": "twostep-checkpoint-0"}, {"format": "pt"}])
def test_another_format_is_refused(path, header):
    save_file({"w": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        checkpoint.load(path)


def test_a_header_without_its_sum_is_refused(path):
    save_file({"w": torch.zeros(2)}, path, metadata={"format": checkpoint.FORMAT, "values": "{}"})
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load(path)


def fail(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "what"),
    [("twostep.core.checkpoint.serialize", fail), ("pathlib.Path.replace", fail), ("os.fsync", fail)],
)
def test_the_old_file_survives_a_failure(path, monkeypatch, where, what):
    checkpoint.save(path, SMALL)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, what)
        with pytest.raises(UserError, match=r"can't be written \(No space left"):
            checkpoint.save(path, State({"other": torch.zeros(9)}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_others_can_read_it_as_the_umask_allows(path):
    before = os.umask(0o022)
    try:
        checkpoint.save(path, SMALL)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_one_line_and_leaves_the_old_file(path):
    checkpoint.save(path, SMALL)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match=r"can't be written \(File too large\)"):
            checkpoint.save(path, State({"large": torch.zeros(10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert equal(checkpoint.load(path), SMALL)
    assert list(path.parent.iterdir()) == [path]


WRITER = """
import sys, torch
from pathlib import Path
from twostep.core import checkpoint
for count in range(10**9):
    state = checkpoint.State({"w": torch.full((20_000,), float(count))}, {"count": count})
    checkpoint.save(Path(sys.argv[1]), state)
"""


@pytest.mark.cmd
def test_kill_leaves_a_whole_file(path):
    chance = random.Random(0)
    counts = []
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        began = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == began:
            time.sleep(0.01)
        time.sleep(0.3 * chance.random())
        writer.kill()
        writer.wait()
        loaded = checkpoint.load(path)
        assert (loaded.tensors["w"] == loaded.values["count"]).all()
        counts.append(loaded.values["count"])
    assert max(counts) > 0
