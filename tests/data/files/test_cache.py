"""The cache: what is kept comes back, damage is seen, two writers do no harm, nothing else is removed."""

import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from twostep.data.files import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "decoded"


def arrays():
    return {"pixels": torch.arange(60, dtype=torch.uint8).reshape(5, 3, 2, 2), "labels": torch.arange(5)}


def test_what_is_stored_comes_back(folder):
    path = cache.store("a", arrays())
    assert list(folder.iterdir()) == [path]
    loaded = cache.load("a")
    assert loaded.keys() == arrays().keys()
    assert all(torch.equal(loaded[name], array) for name, array in arrays().items())
    assert cache.load("b") is None


@pytest.mark.parametrize("large", [0, 10**9])
def test_loaded_arrays_can_be_changed_without_harm_to_the_cache(monkeypatch, large):
    monkeypatch.setattr(cache, "LARGE", large)
    cache.store("a", arrays())
    cache.load("a")["pixels"].zero_()
    assert torch.equal(cache.load("a")["pixels"], arrays()["pixels"])


def test_keys_change_with_the_source(tmp_path):
    file = tmp_path / "source"
    file.write_bytes(b"12")
    first = cache.key("set", [cache.file_facts(file)])
    assert cache.key("set", [cache.file_facts(file)]) == first
    assert cache.key("other", [cache.file_facts(file)]) != first
    file.write_bytes(b"123")
    assert cache.key("set", [cache.file_facts(file)]) != first


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "pixel", "foreign"])
def test_damage_is_seen_and_mended(damage, caplog):
    path = cache.store("a", arrays())
    whole = path.read_bytes()
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file(arrays(), path)
    else:
        flipped = bytearray(whole)
        flipped[-1] ^= 1
        path.write_bytes(
            {"cut": whole[:-7], "empty": b"", "header": b"\xff" * 16 + whole[16:], "pixel": bytes(flipped)}[damage]
        )
    with caplog.at_level(logging.WARNING, "twostep"):
        assert cache.load("a") is None
    assert f"{path} is damaged" in caplog.text
    cache.store("a", arrays())
    assert torch.equal(cache.load("a")["pixels"], arrays()["pixels"])


def test_a_folder_that_cannot_be_written_is_warned_of_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "twostep"):
        assert cache.store("a", arrays()) is None
        assert cache.store("b", arrays()) is None
        assert cache.load("a") is None
    assert len(caplog.records) == 1
    assert "decoded data can't be stored there" in caplog.text


def test_a_failed_write_leaves_nothing_behind(folder, monkeypatch):
    cache.store("a", arrays())
    monkeypatch.setattr(cache, "save_file", lambda tensors, path, metadata: (path.write_text("half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cache.store("a", arrays())
    assert len(list(folder.iterdir())) == 1
    assert torch.equal(cache.load("a")["pixels"], arrays()["pixels"])


def test_every_write_has_a_place_of_its_own_in_the_same_folder(folder, monkeypatch):
    places = []
    monkeypatch.setattr(cache, "save_file", lambda tensors, path, metadata: (places.append(path), path.touch()))
    cache.store("a", arrays())
    cache.store("a", arrays())
    assert len({*places, folder / "a.safetensors"}) == 3
    assert {place.parent for place in places} == {folder}


def test_clear_removes_what_is_kept_and_nothing_else(folder):
    assert cache.clear() == (0, 0)
    size = cache.store("a", arrays()).stat().st_size
    (folder / "left.tmp").write_bytes(b"1234")
    beside = folder.parent / "model.safetensors"
    beside.write_bytes(b"not ours")
    assert cache.clear() == (2, size + 4)
    assert list(folder.iterdir()) == []
    assert beside.exists()
    assert cache.clear() == (0, 0)


def test_a_large_array_lies_in_a_file_that_ends_with_it(folder, monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 12)
    small, large = cache.empty((12,)), cache.empty((13, 2))
    assert (small.shape, large.shape) == ((12,), (13, 2))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 7
    assert torch.equal(torch.as_tensor(large), torch.full((13, 2), 7, dtype=torch.uint8))
    assert list(folder.iterdir()) == []


def test_a_large_array_is_kept_and_mapped(monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 50)
    filled = cache.empty((6, 10))
    filled[:] = np.arange(60).reshape(6, 10)
    cache.store("a", {"pixels": torch.as_tensor(filled), "labels": torch.arange(6)})
    loaded = cache.load("a")
    assert torch.equal(loaded["pixels"], torch.arange(60, dtype=torch.uint8).view(6, 10))
    size = {name: array.untyped_storage().nbytes() for name, array in loaded.items()}
    assert size["labels"] == 48, "in memory, alone"
    cache.clear()
    assert loaded["pixels"][5, 9] == 59, "a mapped file that is removed stays until it is let go"


@pytest.mark.parametrize("problem", ["disk", "folder"])
def test_without_a_place_for_it_a_large_array_is_in_memory_with_a_warning(tmp_path, monkeypatch, caplog, problem):
    monkeypatch.setattr(cache, "LARGE", 0)
    if problem == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=19))
    else:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "twostep"):
        array = cache.empty((10,))
    assert not isinstance(array, np.memmap)
    assert "decoded data can't be stored there" in caplog.text


def test_a_key_is_the_name_of_a_file_whatever_the_set_is_called():
    for name in ("fashion-mnist", "/data/mine [1]/a b", "owner/name.v2", "x" * 400):
        path = cache.store(cache.key(name, []), arrays())
        assert path.parent == cache.directory()
        assert cache.load(cache.key(name, [])) is not None
    assert cache.key("a/b", []) != cache.key("a-b", [])


WRITER = """
import logging, sys, torch
from twostep.data.files import cache
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
arrays = {"pixels": torch.arange(200_000) % 251}
for _ in range(50):
    cache.store("same", arrays)
    assert torch.equal(cache.load("same")["pixels"], arrays["pixels"])
"""


@pytest.mark.cmd
def test_two_processes_write_at_once(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    assert [(writer.communicate(timeout=60)[0], writer.returncode) for writer in writers] == [("", 0), ("", 0)]
    assert [path.name for path in folder.iterdir()] == ["same.safetensors"]
