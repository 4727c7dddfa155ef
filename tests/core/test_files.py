"""Files are there whole or not at all, whatever breaks while they are written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostep.core import figures
from twostep.core.files import atomic_write, move_into_place, temporary_folder
from twostep.core.schema import DataSpec, UserError
from twostep.experiment import artifacts

SPEC = DataSpec(name="images", shape=(1, 6, 6), size=4, low=0, high=255)
SAMPLES = torch.zeros(4, 1, 6, 6)


@pytest.mark.parametrize("mistake", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_breaks_leaves_the_old_file_and_nothing_beside_it(tmp_path, mistake):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic_write(path) as beside:
            beside.write_text("ne")
            raise mistake

    with pytest.raises((UserError, KeyboardInterrupt)) as error:
        write_half()
    if isinstance(mistake, OSError):
        assert str(error.value) == f"{path}: can't be written (No space left on device)"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_folders_are_made_and_a_file_in_their_place_is_reported(tmp_path):
    with atomic_write(tmp_path / "new" / "file.txt") as beside:
        beside.write_text("text")
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    path = tmp_path / "new" / "file.txt" / "x"
    with pytest.raises(UserError, match=r"x: can't be written"), atomic_write(path) as beside:
        beside.write_text("text")


def test_a_file_is_on_the_disk_before_it_takes_its_place_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    flush, replace = os.fsync, Path.replace
    place = {tmp_path.stat().st_ino: "folder"}
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(place[os.fstat(handle).st_ino]), flush(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("replace"), replace(self, target)))
    with atomic_write(tmp_path / "file.txt") as beside:
        beside.write_text("text")
        place[beside.stat().st_ino] = "file"
    assert done == ["file", "replace", "folder"]


def test_everything_in_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), flush(handle)))
    with temporary_folder(tmp_path) as folder:
        (folder / "below").mkdir()
        files = [folder / "one.txt", folder / "below" / "two.txt"]
        for path in files:
            path.write_text("text")
        before = {path.stat().st_ino for path in (*files, folder, folder / "below")}
        placed = move_into_place(folder, [tmp_path / "place"])
    assert set(done[:-1]) == before
    assert done[-1] == tmp_path.stat().st_ino
    assert (placed / "below" / "two.txt").read_text() == "text"


def test_a_new_file_or_folder_replaces_none(tmp_path):
    for name in ("file", "folder/inside"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "file", new=True) as beside:
        beside.write_text("new")
    with temporary_folder(tmp_path) as folder:
        (folder / "inside").write_text("new")
        assert move_into_place(folder, [tmp_path / name for name in ("file", "folder", "free")]) == tmp_path / "free"
    assert [(tmp_path / name).read_text() for name in ("file", "folder/inside", "free/inside")] == ["old", "old", "new"]
    assert not list(tmp_path.glob(".*"))


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    with atomic_write(path) as beside:
        beside.write_text("text")
    assert path.read_text() == "text"


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.npz"])
def test_a_full_disk_halves_no_samples(tmp_path, monkeypatch, name):
    figures.write_samples(SAMPLES, SPEC, tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def write_half(self, *arguments, **options):
        target = next(one for one in (self, *arguments) if hasattr(one, "write") or hasattr(one, "write_bytes"))
        (target.write if hasattr(target, "write") else target.write_bytes)(before[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", write_half)
    monkeypatch.setattr(np, "save", write_half)
    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(UserError, match="can't be written"):
        figures.write_samples(SAMPLES + 1, SPEC, tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_scores_that_break_off_leave_no_list_of_those_before(tmp_path, monkeypatch):
    artifacts.write_scores(tmp_path, {"log_prob": {"in_test": np.zeros(3)}})
    assert np.load(tmp_path / "log_prob_in_test.npy").tolist() == [0, 0, 0]

    def write_half(file, rows):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", write_half)
    with pytest.raises(UserError, match="can't be written"):
        artifacts.write_scores(tmp_path, {"log_prob": {"in_test": np.ones(3)}})
    assert list(tmp_path.iterdir()) == []
