"""The cache: what is kept comes back, damage is seen, two writers do no harm, nothing else is removed."""

import logging
import subprocess
import sys

import pytest
import torch

from twostep.data import cache


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


def test_loaded_arrays_can_be_changed_without_harm_to_the_cache():
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
    assert "cannot keep decoded data there" in caplog.text


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


WRITER = """
import logging, sys, torch
from twostep.data import cache
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
arrays = {"pixels": torch.arange(200_000) % 251}
for _ in range(50):
    cache.store("same", arrays)
    assert torch.equal(cache.load("same")["pixels"], arrays["pixels"])
"""


def test_two_processes_write_at_once(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    assert [(writer.communicate(timeout=60)[0], writer.returncode) for writer in writers] == [("", 0), ("", 0)]
    assert [path.name for path in folder.iterdir()] == ["same.safetensors"]
