"""Image datasets from small generated files: what is read, what is refused, and the cache."""

import logging
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import torch
from huggingface_hub import HfApi

from helpers.image_files import png, random_images, write
from twostep.core.schema import UserError
from twostep.data.files import cache
from twostep.data.load import load_data

SHAPES = {"svhn": (32, 32, 3), "cifar10": (32, 32, 3), "mnist": (28, 28)}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Keep tests off the network and off the user's cache."""

    def unreachable(api, hub_id, timeout):
        raise OSError("no network")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data [of mine]"


def make_set(root, name="svhn", column="image"):
    """Write a set of two training files of 12 and 8 rows and a test file of 5; return its images."""
    every = random_images(25, SHAPES[name])
    parts = {
        "train-00000-of-00002": every[:12],
        "train-00001-of-00002": every[12:20],
        "test-00000-of-00001": every[20:],
    }
    for part, rows in parts.items():
        write(root / name / f"{part}.parquet", [png(row) for row in rows], column=column)
    return torch.as_tensor(every.reshape(25, *SHAPES[name][:2], -1).transpose(0, 3, 1, 2))


def whole(splits):
    return torch.cat([splits.train, splits.test])


def refused(root, name="svhn"):
    with pytest.raises(UserError) as caught:
        load_data(name, data_root=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "column"), [("svhn", "image"), ("cifar10", "img"), ("mnist", "image")])
def test_parquet_files_are_read_in_order(root, name, column):
    expected = make_set(root, name, column)
    splits = load_data(name, data_root=root, make_valid=False)
    assert torch.equal(whole(splits), expected)
    assert splits.train_labels.tolist() == [*range(12), *range(8)]
    assert splits.test_labels.tolist() == [*range(5)]
    spec = splits.spec
    assert (spec.name, spec.size, spec.low, spec.high, spec.discrete) == (name, 20, 0.0, 255.0, True)
    assert spec.shape == tuple(expected.shape[1:])


def test_folders_of_images_are_read_with_labels_by_name(root):
    every = random_images(12, SHAPES["mnist"])
    for i, pixels in enumerate(every):
        folder = root / "mnist" / ("train" if i < 8 else "test") / str(i % 8 // 4)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(png(pixels))
    splits = load_data("mnist", data_root=root, make_valid=False)
    assert torch.equal(whole(splits), torch.as_tensor(every)[:, None])
    assert splits.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert splits.test_labels.tolist() == [0, 0, 0, 0]
    wrong = root / "mnist" / "test" / "0" / "08.png"
    wrong.write_bytes(png(random_images(1, (9, 9))[0]))
    assert f"{wrong}: the image is 9 x 9 L, it should be 28 x 28 L" in refused(root, "mnist")


def test_the_folder_of_the_data_is_left_as_it_was(root):
    make_set(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for path in (*before, root):
        path.chmod(0o555 if path.is_dir() else 0o444)
    load_data("svhn", data_root=root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_second_load_is_from_the_cache_and_a_run_starts_light(root, tmp_path):
    expected = make_set(root)
    first = load_data("svhn", data_root=root)
    code = (
        "import sys, twostep.experiment.prepare; from pathlib import Path; from twostep.data.load import load_data\n"
        "slow = {'datasets', 'pandas', 'pyarrow', 'lightning_fabric', 'scipy.stats', 'sklearn', 'matplotlib'}\n"
        f"splits = load_data('svhn', data_root=Path({str(root)!r}))\n"
        "print(int(splits.train.long().sum()), slow & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == [str(int(first.train.long().sum())), "set()"]
    assert torch.equal(whole(load_data("svhn", data_root=root, make_valid=False)), expected)


def test_a_changed_source_is_decoded_again(root, caplog):
    make_set(root)
    load_data("svhn", data_root=root)
    changed = random_images(6, SHAPES["svhn"], seed=1)
    write(root / "svhn" / "test-00000-of-00001.parquet", [png(row) for row in changed])
    assert len(load_data("svhn", data_root=root).test) == 6
    (kept,) = [path for path in cache.directory().iterdir() if path.stat().st_size > 24 * 32 * 32 * 3 + 2 * 32 * 32 * 3]
    kept.write_bytes(kept.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING, "twostep"):
        assert len(load_data("svhn", data_root=root).test) == 6
    assert "is damaged" in caplog.text


def test_seconds_and_megabytes_are_reported(root, caplog, capfd):
    make_set(root)
    with caplog.at_level(logging.INFO, "twostep"):
        load_data("svhn", data_root=root)
        load_data("svhn", data_root=root)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("svhn: 25 images 3x32x32 decoded in ")
    assert first.endswith(f" s, 0 MB; kept in {cache.directory()}")
    assert second.startswith("svhn: 25 images 3x32x32 read from the cache in ")
    assert capfd.readouterr() == ("", "")


def test_no_files_and_no_network_is_one_line(root):
    line = refused(root)
    assert line.startswith("svhn: put train-*.parquet and test-*.parquet, or train/<label>/*.png")
    assert f"into {root / 'svhn'}" in line
    assert "the hub's ufldl-stanford/svhn can't be loaded" in line


def test_half_a_set_is_refused(root):
    make_set(root)
    (root / "svhn" / "test-00000-of-00001.parquet").unlink()
    assert refused(root) == f"{root / 'svhn'}: test-*.parquet is missing: put it there too"


def test_data_root_falls_back_to_the_environment(root, monkeypatch, tmp_path):
    make_set(root)
    monkeypatch.setenv("TWOSTEP_DATA", str(root))
    assert load_data("svhn").spec.size == 18
    monkeypatch.delenv("TWOSTEP_DATA")
    root.rename(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert load_data("svhn").spec.size == 18


@pytest.mark.parametrize("damage", ["cut", "empty", "middle"])
def test_a_damaged_parquet_is_named(root, damage, capfd):
    make_set(root)
    path = root / "svhn" / "train-00001-of-00002.parquet"
    data = path.read_bytes()
    middle = data[:200] + b"\xff" * 3000 + data[3200:]
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "middle": middle}[damage])
    assert refused(root).startswith(str(path))
    assert capfd.readouterr() == ("", "")


def test_other_columns_are_refused(root):
    good = [png(row) for row in random_images(3, SHAPES["svhn"])]
    path = root / "svhn" / "train-0.parquet"
    write(root / "svhn" / "test-0.parquet", good)
    write(path, good, label="digit")
    assert refused(root) == f"{path}: needs the columns image (or img) and label; found: image, digit"
    write(path, good, labels=[1, None, 3])
    assert refused(root) == f"{path}: column label must hold an integer in every row"
    write(path, good, labels=[0.5, 1.5, 2.5])
    assert "must hold an integer" in refused(root)
    pyarrow.parquet.write_table(pyarrow.table({"image": [1.0, 2.0, 3.0], "label": [1, 2, 3]}), path)
    assert refused(root).startswith(f"{path}: column image holds no encoded images")


def test_wrong_images_are_named_by_their_row(root):
    good = [png(row) for row in random_images(3, SHAPES["svhn"])]
    path = root / "svhn" / "train-0.parquet"
    write(root / "svhn" / "test-0.parquet", good)
    small, grey = png(random_images(1, (28, 32, 3))[0]), png(random_images(1, (32, 32))[0])
    for wrong, says in (
        (small, "the image is 32 x 28 RGB, it should be 32 x 32 RGB"),
        (grey, "the image is 32 x 32 L, it should be 32 x 32 RGB"),
        (b"not an image", "not an image, or damaged"),
        (good[0][: len(good[0]) // 2], ""),
        (None, ""),
    ):
        write(path, [good[0], good[1], wrong])
        line = refused(root)
        assert line.startswith(f"{path}, row 2: ")
        assert says in line


def test_sets_of_the_hub_are_kept_as_well(root, monkeypatch):
    import datasets

    asked = []

    def load_dataset(hub_id, config, split):
        asked.append((hub_id, config, split))
        rows = random_images(20 if split == "train" else 5, SHAPES["svhn"])
        return datasets.Dataset.from_dict(
            {"image": [{"bytes": png(row), "path": None} for row in rows], "label": [0] * len(rows)}
        )

    monkeypatch.setattr(HfApi, "dataset_info", lambda api, hub_id, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    first, second = load_data("svhn", data_root=root), load_data("svhn", data_root=root)
    assert asked == [("ufldl-stanford/svhn", "cropped_digits", split) for split in ("train", "test")]
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.test, torch.as_tensor(random_images(5, SHAPES["svhn"])).permute(0, 3, 1, 2))
