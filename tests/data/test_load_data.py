"""Splits: disjoint, complete, repeatable, in order; specs; unknown names."""

import io
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from twostep.core.schema import UserError
from twostep.data.base import DATASETS, hold_out
from twostep.data.load import load_data


@pytest.fixture
def counted(tmp_path):
    """A file whose row i holds the number i, so that each row is recognised."""
    path = tmp_path / "counted.npy"
    np.save(path, np.arange(100.0)[:, None])
    return str(path)


def rows(points):
    return points.flatten().long().tolist()


@pytest.mark.parametrize("make_valid", [True, False])
def test_splits_are_disjoint_complete_and_in_order(counted, make_valid):
    splits = load_data(counted, make_valid=make_valid)
    parts = [rows(part) for part in (splits.train, splits.valid, splits.test) if part is not None]
    assert sorted(chain.from_iterable(parts)) == list(range(100))
    assert all(part == sorted(part) for part in parts)
    assert [len(part) for part in parts] == ([72, 8, 20] if make_valid else [80, 20])
    assert splits.spec.size == len(splits.train)


def test_the_seed_alone_decides_the_split(counted):
    torch.manual_seed(1)
    first = load_data(counted, seed=7)
    torch.manual_seed(2)
    again, other = load_data(counted, seed=7), load_data(counted, seed=8)
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.valid, again.valid)
    assert not torch.equal(first.valid, other.valid)
    assert not torch.equal(first.test, other.test)
    assert torch.equal(load_data(counted, seed=7, make_valid=False).test, first.test)


def test_range_is_that_of_rows_that_are_not_test_rows(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, train=np.arange(20.0), test=np.array([-5.0, 99.0]))
    spec = load_data(str(path)).spec
    assert (spec.low, spec.high, spec.shape, spec.discrete) == (0.0, 19.0, (1,), False)


def test_range_leaves_out_test_rows_that_were_cut(counted):
    for seed in range(20):
        splits = load_data(counted, seed=seed)
        assert splits.spec.low == min(splits.train.min(), splits.valid.min())
        assert splits.spec.high == max(splits.train.max(), splits.valid.max())


@pytest.mark.parametrize(("count", "make_valid", "enough"), [(4, True, True), (3, True, False), (3, False, True)])
def test_too_few_rows_are_refused(tmp_path, count, make_valid, enough):
    path = tmp_path / "few.npy"
    np.save(path, np.zeros((count, 3), dtype=np.float32) + np.arange(3) + np.arange(count)[:, None])
    if enough:
        assert load_data(str(path), make_valid=make_valid).spec.size >= 2
    else:
        with pytest.raises(UserError, match=r"few\.npy: too few rows: 1 for training, 1 for validation, 1 for test"):
            load_data(str(path), make_valid=make_valid)


def test_one_test_row_is_enough_and_none_is_not(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, train=np.arange(3.0), test=np.arange(1.0))
    assert len(load_data(str(path)).test) == 1
    np.savez(path, train=np.arange(3.0), test=np.arange(0.0))
    with pytest.raises(UserError, match="test: is empty"):
        load_data(str(path))


def test_cut_holds_out_at_least_one_row():
    kept, held = hold_out(3, 0.1, torch.Generator().manual_seed(0))
    assert sorted([*kept.tolist(), *held.tolist()]) == [0, 1, 2]
    assert len(held) == 1


def test_digits_keep_their_test_fifth_whatever_the_seed():
    first, other = load_data("digits", seed=0), load_data("digits", seed=1)
    assert torch.equal(first.test, other.test)
    assert torch.equal(first.test_labels, other.test_labels)
    assert not torch.equal(first.valid, other.valid)
    assert (len(first.train), len(first.valid), len(first.test)) == (1295, 143, 359)
    assert first.train.shape[1:] == DATASETS["digits"].shape == first.spec.shape
    assert first.train.dtype == torch.uint8
    assert (first.spec.low, first.spec.high, first.spec.discrete) == (0.0, 16.0, True)
    assert first.train.max() == 16


def test_labels_stay_with_their_digits():
    from sklearn.datasets import load_digits

    bundle = load_digits()
    known = {image.astype(np.uint8).tobytes(): label for image, label in zip(bundle.images, bundle.target, strict=True)}
    splits = load_data("digits", seed=3)
    for points, labels in (
        (splits.train, splits.train_labels),
        (splits.valid, splits.valid_labels),
        (splits.test, splits.test_labels),
    ):
        assert [known[point.numpy().tobytes()] for point in points] == labels.tolist()


def test_unknown_name_gets_its_nearest():
    with pytest.raises(UserError, match="fashon-mnist: no such dataset; did you mean fashion-mnist"):
        load_data("fashon-mnist")


def test_a_file_without_the_usual_ending_is_read_too(tmp_path):
    path = tmp_path / "numbers"
    with path.open("wb") as file:
        np.save(file, np.arange(10.0))
    assert load_data(str(path)).spec.size == 8 - 1


def test_a_table_is_split_like_the_array_with_its_numbers(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", numbers)
    np.savetxt(tmp_path / "rows.csv", numbers, delimiter=",", header="a,b,c", comments="")
    parquet.write_table(pa.table(dict(zip("abc", numbers.T, strict=True))), tmp_path / "rows.parquet")
    array, *tables = (load_data(str(tmp_path / f"rows.{ending}"), seed=3) for ending in ("npy", "csv", "parquet"))
    for table in tables:
        assert table.digest() == array.digest()
        assert [column.name for column in table.spec.columns.columns] == ["a", "b", "c"]
        assert table.spec.model_copy(update={"name": array.spec.name, "columns": None}) == array.spec
    with pytest.raises(UserError, match="n: no such key"):
        load_data(str(tmp_path / "rows.csv"), kwargs={"n": 3})


def test_a_table_without_variation_is_refused_as_an_array_is(tmp_path, caplog):
    (tmp_path / "same.csv").write_text("1,2\n" * 9)
    with pytest.raises(UserError, match="all rows are equal"):
        load_data(str(tmp_path / "same.csv"))
    (tmp_path / "flat.csv").write_text("".join(f"{row},2\n" for row in range(9)))
    load_data(str(tmp_path / "flat.csv"))
    assert "1 of 2 columns are constant: 1" in caplog.text


@pytest.mark.parametrize("column", ["image", "photo"])
@pytest.mark.parametrize(("label", "labelled"), [(pa.array(range(8)), True), (pa.array(["a"] * 8), False)])
@pytest.mark.parametrize("encoding", ["plain", "dictionary"])
def test_encoded_images_in_parquet_are_a_dataset(tmp_path, column, label, labelled, encoding):
    encoded = [io.BytesIO() for _ in range(8)]
    for row, file in enumerate(encoded):
        Image.fromarray(np.full((4, 5), 10 * row, dtype=np.uint8)).save(file, "png")
    rows = [{"bytes": file.getvalue(), "path": None} for file in encoded]
    labels = label.dictionary_encode() if encoding == "dictionary" else label
    parquet.write_table(pa.table({column: rows, "label": labels}), tmp_path / "images.parquet")
    splits = load_data(str(tmp_path / "images.parquet"), kwargs={"image_size": 2}, make_valid=False)
    assert (splits.train_labels is not None) == labelled
    assert (splits.spec.shape, splits.spec.discrete, splits.spec.high) == ((1, 2, 2), True, 255.0)
    assert sorted({int(value) for rows in (splits.train, splits.test) for value in rows[:].flatten()}) == [
        *range(0, 80, 10)
    ]


def test_a_table_that_is_not_there_is_no_name_of_a_dataset(tmp_path):
    for ending in ("csv", "parquet"):
        with pytest.raises(UserError, match="no such file or folder"):
            load_data(str(tmp_path / f"rows.{ending}"))


def test_every_dataset_says_what_it_is():
    assert {"digits", "mnist", "fashion-mnist", "cifar10", "svhn", "celeba"} <= set(DATASETS)
    for name in DATASETS:
        loader = DATASETS[name]
        assert loader.name == name
        assert loader.description
        assert loader.files
