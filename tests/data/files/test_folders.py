"""Folders of images: what is read in which order, how odd images are brought to one form, what is refused."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_files import random_images, save, save_all
from twostep.core.schema import UserError
from twostep.data.files import images as decode
from twostep.data.load import load_data


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine [1]"


def loaded(folder, **keys):
    return load_data(str(folder), make_valid=False, kwargs=keys)


def one(folder, image):
    """Return what an image of 6 x 6 is decoded to, `C x 6 x 6`."""
    for place in ("train/a.png", "train/c.png", "test/a.png"):
        save(folder / place, np.zeros((6, 6), np.uint8))
    save(folder / "train" / "b.png", image)
    return loaded(folder).train[1]


def refused(folder, **keys):
    with pytest.raises(UserError) as caught:
        loaded(folder, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- order, splits, labels


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_flat_folder_is_split_like_an_array_of_its_images(folder, tmp_path, shape, ending):
    array = save_all(folder, random_images(30, shape), ending)
    np.save(tmp_path / "array.npy", array)
    mine, other = load_data(str(folder), seed=3), load_data(str(tmp_path / "array.npy"), seed=3)
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(mine, split), getattr(other, split))
    assert mine.spec == other.spec.model_copy(update={"name": str(folder)})
    assert mine.train_labels is mine.test_labels is None
    assert mine.digest() == other.digest()


def test_a_folder_per_label_gives_labels(folder):
    for number, name in enumerate(("10", "2", "cat")):
        for shade in range(4):
            save(folder / name / f"{shade}.png", np.full((4, 4), 10 * number + shade, np.uint8))
    splits = load_data(str(folder))
    for points, labels in (
        (splits.train, splits.train_labels),
        (splits.valid, splits.valid_labels),
        (splits.test, splits.test_labels),
    ):
        assert (points[:, 0, 0, 0] // 10).tolist() == labels.tolist()


def test_train_and_test_are_taken_as_they_are(folder):
    train = save_all(folder / "train", random_images(5, (4, 4)))
    test = save_all(folder / "test", random_images(3, (4, 4), 1))
    (folder / "elsewhere").mkdir()
    splits = loaded(folder)
    assert torch.equal(splits.train, torch.as_tensor(train))
    assert torch.equal(splits.test, torch.as_tensor(test))


def test_labels_of_both_splits_mean_the_same(folder):
    for split, names in (("train", "ac"), ("test", "bc")):
        for name in names:
            save_all(folder / split / name, np.full((2, 4, 4), ord(name), np.uint8))
    splits = loaded(folder)
    assert splits.train_labels.tolist() == [0, 0, 2, 2]
    assert splits.test_labels.tolist() == [1, 1, 2, 2]
    assert (splits.test[:, 0, 0, 0] - ord("a")).tolist() == splits.test_labels.tolist()


def test_train_alone_is_split(folder):
    save_all(folder / "train", random_images(10, (4, 4)))
    assert [len(part) for part in (loaded(folder).train, loaded(folder).test)] == [8, 2]


def test_other_and_hidden_files_are_passed_over(folder):
    array = save_all(folder / "train", random_images(4, (4, 4)))
    save_all(folder / "test", random_images(1, (4, 4)))
    save_all(folder / "train" / ".thumbnails", random_images(2, (4, 4)))
    for name in ("notes.txt", "._000.png", ".DS_Store"):
        (folder / "train" / name).write_bytes(b"not an image")
    assert torch.equal(loaded(folder).train, torch.as_tensor(array))


def test_every_ending_is_read_whatever_its_case(folder):
    pixels = np.full((8, 8, 3), [200, 100, 50], np.uint8)
    for name in ("a.png", "b.jpg", "c.JPEG", "d.webp", "e.bmp", "f.PNG"):
        save(folder / "train" / name, pixels)
    save(folder / "test" / "a.png", pixels)
    train = loaded(folder).train
    assert len(train) == 6
    assert (train.float() - torch.tensor([200.0, 100.0, 50.0])[:, None, None]).abs().max() <= 4


# ---- one form


def test_one_image_in_colour_makes_all_of_them_colour(folder):
    grey = random_images(3, (4, 4))
    save_all(folder / "train", grey)
    save_all(folder / "test", random_images(2, (4, 4)))
    assert loaded(folder).spec.shape == (1, 4, 4)
    save(folder / "test" / "000.png", random_images(1, (4, 4, 3))[0])
    splits = loaded(folder)
    assert splits.spec.shape == (3, 4, 4)
    assert torch.equal(splits.train, torch.as_tensor(grey)[:, None].expand(-1, 3, -1, -1))


def test_images_of_two_sizes_are_refused_with_the_key_that_helps(folder):
    save_all(folder, random_images(3, (4, 6)))
    odd = save(folder / "odd.png", random_images(1, (5, 6))[0])
    assert refused(folder) == (
        f"{odd}: the image is 6 x 5, that of {folder / '000.png'} is 6 x 4: resize all to one size by the key "
        "image_size, like --dataset-kwargs image_size=64"
    )
    assert loaded(folder, image_size=3).spec.shape == (1, 3, 3)
    assert loaded(folder, image_size=[2, 5]).spec.shape == (1, 2, 5)


def test_the_middle_is_kept(folder):
    wide = np.zeros((6, 10), np.uint8)
    wide[:, 2:8] = 255
    for number, image in enumerate((wide, wide.T)):
        save(folder / "train" / f"{number}.png", image)
    save(folder / "test" / "0.png", wide)
    for side in (3, 6):
        assert (loaded(folder, image_size=side).train == 255).all()
    assert torch.equal(loaded(folder, image_size=[6, 10]).train[0, 0], torch.as_tensor(wide))


def test_scaling_averages_rather_than_picks(folder):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    save_all(folder, np.stack([board] * 5))
    assert (loaded(folder, image_size=8).train.float() - 127.5).abs().max() < 8


def coloured(mode):
    image = Image.fromarray(random_images(1, (6, 6, 3))[0])
    return image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)


def test_palettes_become_the_colours_that_they_stand_for(folder):
    palette = coloured("P")
    assert torch.equal(one(folder, palette), torch.as_tensor(np.array(palette.convert("RGB"))).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "LA", "L"])
def test_black_and_white_and_opaque_grey_are_grey(folder, mode):
    grey = coloured("L").convert(mode)
    expected = torch.as_tensor(np.array(grey.convert("L")))
    assert torch.equal(one(folder, grey), expected[None])
    assert mode != "1" or set(expected.unique().tolist()) == {0, 255}


def test_transparency_is_white_and_opacity_is_nothing(folder):
    pixels = random_images(1, (6, 6, 4))[0]
    pixels[..., 3] = [[255, 0, 51, 255, 0, 51]]
    alpha = pixels[..., 3:].astype(float) / 255
    expected = torch.as_tensor(pixels[..., :3] * alpha + 255 * (1 - alpha)).permute(2, 0, 1)
    found = one(folder, Image.fromarray(pixels)).double()
    assert (found - expected).abs().max() <= 1
    assert (found[:, :, [1, 4]] == 255).all()


def test_a_transparent_palette_is_white_there_too(folder):
    palette = Image.new("P", (6, 6), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (0, 0, 3, 6))
    palette.info["transparency"] = 0
    found = one(folder, palette)
    assert found[:, 0, 0].tolist() == [255, 0, 0]
    assert found[:, 0, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("ending", "options"), [("jpg", {"quality": 100}), ("webp", {"lossless": True})])
def test_photographs_are_turned_upright(folder, ending, options):
    pixels = np.zeros((16, 8), np.uint8)
    pixels[:8] = 255
    save(folder / "train" / "a.png", pixels)
    save(folder / "test" / "a.png", pixels)
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    save(folder / "train" / f"b.{ending}", np.rot90(pixels).copy(), exif=exif, **options)
    train = loaded(folder).train
    assert train.shape[2:] == (16, 8)
    assert (train[0].float() - train[1].float()).abs().max() <= 2


def test_more_than_8_bits_are_refused(folder):
    save_all(folder, random_images(3, (4, 4)))
    deep = save(folder / "deep.png", Image.fromarray(np.full((4, 4), 300, np.uint16)))
    assert refused(folder).startswith(f"{deep}: has more than 8 bits per channel (mode I;16): save it with 8")


# ---- what is refused


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "middle"])
def test_a_damaged_image_is_named(folder, damage):
    save_all(folder, random_images(6, (40, 40)))
    path = folder / "003.png"
    whole = path.read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "text": b"a text",
        "empty": b"",
        "middle": whole[:300] + bytes(200) + whole[500:],
    }
    path.write_bytes(broken[damage])
    line = refused(folder)
    assert line.startswith(f"{path}: ")
    assert line.endswith(": save it again, or remove it")
    path.write_bytes(whole)
    assert len(loaded(folder).train) == 5


def test_too_few_images_are_refused(folder):
    folder.mkdir()
    assert refused(folder).startswith(f"{folder}: no images found: put .png, .jpg, .webp or .bmp files ")
    (folder / "a" / "b").mkdir(parents=True)
    save_all(folder / "a" / "b", random_images(3, (4, 4)))
    assert "no images found" in refused(folder), "two folders deep"
    save(folder / "a" / "a.png", random_images(1, (4, 4))[0])
    assert "too few rows: 0 for training, 1 for test" in refused(folder).replace("0 for validation, ", "")


def test_an_empty_test_folder_is_named(folder):
    save_all(folder / "train", random_images(3, (4, 4)))
    (folder / "test").mkdir()
    assert refused(folder).startswith(f"{folder / 'test'}: no images found")


def test_unclear_folders_are_refused(folder):
    save_all(folder / "test", random_images(3, (4, 4)))
    assert refused(folder) == f"{folder}: has a folder test but none called train: put training images there"
    (folder / "test").rename(folder / "label")
    save(folder / "a.png", random_images(1, (4, 4))[0])
    assert refused(folder).startswith(f"{folder}: a.png lies beside the folder label: put every image into")


def test_what_cannot_be_read_is_refused(folder, monkeypatch):
    save_all(folder, random_images(3, (4, 4)))
    (folder / "gone.png").symlink_to("nowhere.png")
    assert refused(folder) == f"{folder / 'gone.png'}: can't be read (No such file or directory)"

    def closed(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    assert refused(folder) == f"{folder}: can't be read (Permission denied)"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"imag_size": 3}, "imag_size: no such key of .*; did you mean image_size?"),
        ({"image_size": "3"}, "image_size = '3': write an integer, or [height, width] (key of "),
        ({"image_size": 0}, "image_size.0 = 0: input should be greater than 0"),
        ({"image_size": [3, 0]}, "image_size.1 = 0: input should be greater than 0"),
        ({"image_size": [3]}, "image_size.1: missing"),
        ({"image_size": [3, 3, 3]}, "image_size = [3, 3, 3]: "),
    ],
)
def test_keys_are_checked(folder, keys, says):
    save_all(folder, random_images(5, (4, 4)))
    first, _, last = says.partition(".*")
    line = refused(folder, **keys)
    assert line.startswith(first)
    assert line.endswith(last) or not last


# ---- the cache


def test_a_second_load_opens_no_image_and_a_changed_one_does(folder, monkeypatch):
    save_all(folder, random_images(10, (4, 4)))
    first = loaded(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", None)
        assert loaded(folder).digest() == first.digest()
        with pytest.raises(UserError):
            loaded(folder, image_size=3)
    path = folder / "000.png"
    status = path.stat()
    other = np.array(Image.open(path))
    other[0, 0] ^= 1
    save(path, other)
    changed = path.read_bytes()
    path.write_bytes(changed + bytes(status.st_size - len(changed)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert loaded(folder).digest() != first.digest()


def test_an_image_that_comes_or_goes_is_noticed(folder):
    save_all(folder, random_images(10, (4, 4)))
    assert len(loaded(folder).train) == 8
    save(folder / "more.png", random_images(1, (4, 4))[0])
    assert len(loaded(folder).train) == 9
    (folder / "more.png").unlink()
    (folder / "000.png").rename(folder / "999.png")
    assert len(loaded(folder).train) == 8


def test_progress_of_long_decoding_is_reported(folder, monkeypatch, caplog):
    monkeypatch.setattr(decode, "SECONDS_BETWEEN_REPORTS", -1)
    save_all(folder, random_images(3, (4, 4)))
    with caplog.at_level("INFO", "twostep"):
        loaded(folder)
    assert f"{folder}: 2 of 3 train images decoded" in caplog.messages
