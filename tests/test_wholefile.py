"""Files are there whole or not at all, whatever breaks while they are written."""

import errno

import numpy as np
import pytest
import torch
from PIL import Image

from twostep import pictures, score_files
from twostep.schema import DataSpec, UserError
from twostep.wholefile import whole

SPEC = DataSpec(name="pictures", shape=(1, 6, 6), size=4, low=0, high=255)
SAMPLES = torch.zeros(4, 1, 6, 6)


@pytest.mark.parametrize("mistake", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_breaks_leaves_the_old_file_and_nothing_beside_it(tmp_path, mistake):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with whole(path) as beside:
            beside.write_text("ne")
            raise mistake

    with pytest.raises((UserError, KeyboardInterrupt)) as error:
        write_half()
    if isinstance(mistake, OSError):
        assert str(error.value) == f"{path}: can't be written (No space left on device)"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_folders_are_made_and_a_file_in_their_place_is_told(tmp_path):
    with whole(tmp_path / "new" / "file.txt") as beside:
        beside.write_text("text")
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    with pytest.raises(UserError, match=r"x: can't be written"), whole(tmp_path / "new" / "file.txt" / "x") as beside:
        beside.write_text("text")


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.npz"])
def test_a_full_disk_halves_no_samples(tmp_path, monkeypatch, name):
    pictures.write_samples(SAMPLES, SPEC, tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def write_half(self, *arguments, **options):
        target = next(one for one in (self, *arguments) if hasattr(one, "write") or hasattr(one, "write_bytes"))
        (target.write if hasattr(target, "write") else target.write_bytes)(before[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", write_half)
    monkeypatch.setattr(np, "save", write_half)
    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(UserError, match="can't be written"):
        pictures.write_samples(SAMPLES + 1, SPEC, tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_scores_that_break_off_leave_no_list_of_those_before(tmp_path, monkeypatch):
    score_files.write_scores(tmp_path, {"log_prob": {"in_test": np.zeros(3)}})
    assert np.load(tmp_path / "log_prob_in_test.npy").tolist() == [0, 0, 0]

    def write_half(file, rows):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", write_half)
    with pytest.raises(UserError, match="can't be written"):
        score_files.write_scores(tmp_path, {"log_prob": {"in_test": np.ones(3)}})
    assert list(tmp_path.iterdir()) == []
