"""CelebA from generated files in its layouts: which rows are whose, what is cut, what is refused."""

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from helpers.image_files import png, random_images, save, write
from twostep.core.schema import UserError
from twostep.data.base import DATASETS
from twostep.data.load import load_data
from twostep.data.named import CELEBA_HUB

PARTITION = [0, 0, 1, 0, 2, 0, 2, 1]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def shade(row):
    return 20 * row + 10


def portrait(row):
    """Return an image of CelebA's shape whose middle square is all of one shade, and black above and below."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[20:198] = shade(row)
    return pixels


def make(root, ending="csv", nested=False):
    folder = root / "celeba"
    names = [f"{row + 1:06}.png" for row in range(len(PARTITION))]
    for row, name in enumerate(names):
        save(folder / "img_align_celeba" / ("img_align_celeba" if nested else "") / name, portrait(row))
    save(folder / "img_align_celeba" / ("img_align_celeba" if nested else "") / "unlisted.png", portrait(9))
    between, head = {"csv": (",", "image_id,partition\n"), "txt": (" ", "")}[ending]
    lines = [f"{name}{between}{part}\n" for name, part in zip(names, PARTITION, strict=True)]
    (folder / f"list_eval_partition.{ending}").write_text(head + "".join(lines))
    return folder


def loaded(root, **keys):
    return load_data("celeba", data_root=root, make_valid=False, kwargs=keys)


def shades(points):
    assert torch.equal(points.amin((1, 2, 3)), points.amax((1, 2, 3))), "nothing of what lies above and below"
    return points[:, 0, 0, 0].tolist()


def refused(root):
    with pytest.raises(UserError) as caught:
        loaded(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "txt"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_list_says_whose_an_image_is(root, ending, nested):
    make(root, ending, nested)
    splits = loaded(root)
    assert shades(splits.train) == [shade(row) for row in (0, 1, 3, 5, 2, 7)]
    assert shades(splits.test) == [shade(row) for row in (4, 6)]
    assert splits.train_labels is splits.test_labels is None
    spec = splits.spec
    assert (spec.shape, spec.low, spec.high, spec.discrete) == ((3, 64, 64), 0.0, 255.0, True)
    assert spec.shape == DATASETS["celeba"].shape


def test_validation_rows_are_cut_by_the_seed_from_all_rows_for_training(root):
    make(root)
    held = {tuple(shades(load_data("celeba", data_root=root, seed=seed).valid)) for seed in range(20)}
    assert {value for values in held for value in values} == {shade(row) for row in (0, 1, 2, 3, 5, 7)}


def test_the_side_is_a_key(root):
    make(root)
    assert loaded(root, image_size=8).spec.shape == (3, 8, 8)
    assert loaded(root).spec.shape == (3, 64, 64)
    with pytest.raises(UserError, match=r"image_size = 0: input should be greater than 0 \(key of celeba\)"):
        loaded(root, image_size=0)


def test_a_changed_list_is_noticed(root):
    listed = make(root) / "list_eval_partition.csv"
    before = loaded(root)
    listed.write_text(listed.read_text().replace("000004.png,0", "000004.png,2"))
    assert shades(loaded(root).test) == [shade(3), *shades(before.test)]


def test_parquet_files_with_validation_rows_and_without_labels(root):
    for split, rows in (("train", (0, 1)), ("valid", (2,)), ("test", (3, 4))):
        encoded = [png(portrait(row)) for row in rows]
        write(root / "celeba" / f"{split}-00000-of-00001.parquet", encoded, label="celeb_id")
    splits = loaded(root, image_size=8)
    assert shades(splits.train) == [shade(0), shade(1), shade(2)]
    assert shades(splits.test) == [shade(3), shade(4)]
    assert splits.train_labels is None


def test_folders_of_images_serve_too(root):
    for row, split in enumerate(("train", "train", "test")):
        save(root / "celeba" / split / f"{row}.png", portrait(row))
    assert shades(loaded(root, image_size=8).train) == [shade(0), shade(1)]


def test_the_hub_serves_where_nothing_else_does(root, monkeypatch):
    import datasets

    def table(*rows):
        items = [{"bytes": png(portrait(row)), "path": None} for row in rows]
        return datasets.Dataset.from_dict({"image": items, "Smiling": [True] * len(rows)})

    def load_dataset(hub_id, config):
        assert hub_id == CELEBA_HUB
        return {"train": table(0, 1), "valid": table(2), "test": table(3)}

    monkeypatch.setattr(HfApi, "dataset_info", lambda api, hub_id, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = loaded(root, image_size=8)
    assert (shades(splits.train), shades(splits.test)) == ([shade(0), shade(1), shade(2)], [shade(3)])


def test_nothing_there_and_no_network_is_one_line(root):
    line = refused(root)
    assert line.startswith("celeba: put list_eval_partition.csv and img_align_celeba/, or train-*.parquet and ")
    assert f"into {root / 'celeba'}: nothing is there and the hub's {CELEBA_HUB} can't be loaded" in line


def test_half_a_layout_is_refused(root):
    folder = make(root)
    (folder / "img_align_celeba" / "000003.png").unlink()
    assert refused(root).startswith(f"{folder / 'img_align_celeba' / '000003.png'}: can't be read (No such file")
    (folder / "img_align_celeba").rename(folder / "img")
    assert refused(root) == (
        f"{folder / 'list_eval_partition.csv'}: the images it lists are missing: put them into "
        f"{folder / 'img_align_celeba'}"
    )
    (folder / "img").rename(folder / "img_align_celeba")
    (folder / "list_eval_partition.csv").unlink()
    assert refused(root) == f"{folder}: has img_align_celeba/ but no list_eval_partition.csv: put that there too"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image_id,partition\n000001.png,3\n", ", line 2: must hold a file name and 0, 1 or 2; found: 000001.png,3"),
        ("000001.png 0\n000002.png\n", ", line 2: must hold a file name and 0, 1 or 2; found: 000002.png"),
        ("image_id,partition\n000001.png,0\n", ": lists no images for training (0) or none for test (2)"),
        ("", ": lists no images for training (0) or none for test (2)"),
    ],
)
def test_a_list_of_something_else_is_refused(root, text, says):
    listed = make(root) / "list_eval_partition.csv"
    listed.write_text(text)
    assert refused(root) == f"{listed}{says}"


def test_a_damaged_image_is_named(root):
    path = make(root) / "img_align_celeba" / "000005.png"
    path.write_bytes(png(random_images(1, (178, 218, 3))[0])[:5000])
    assert refused(root).startswith(f"{path}: ")
