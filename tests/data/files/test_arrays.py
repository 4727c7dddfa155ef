"""Own arrays: what each shape becomes, and one line for each thing that is refused."""

import io
import logging
import re
import zipfile

import numpy as np
import pytest
import torch

from twostep.core.schema import UserError
from twostep.data.files.arrays import read_arrays

RANDOM = np.random.default_rng(0)


def saved(tmp_path, array):
    path = tmp_path / "own.npy"
    np.save(path, array)
    return path


def read(path):
    """Return the training rows, the test rows, and whether they are discrete."""
    source = read_arrays(path)
    return source.train, source.test, source.discrete


def random_uint8(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def refused(path):
    """Return the one line that a file is refused with."""
    with pytest.raises(UserError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


def test_uint8_images_get_their_channels_first(tmp_path):
    grey, last, first = random_uint8(5, 7, 9), random_uint8(5, 7, 9, 3), random_uint8(5, 3, 7, 9)
    for array, expected in ((grey, grey[:, None]), (last, np.moveaxis(last, 3, 1)), (first, first)):
        train, test, discrete = read(saved(tmp_path, array))
        assert train.dtype == torch.uint8
        assert np.array_equal(train.numpy(), expected)
        assert test is None
        assert discrete


@pytest.mark.parametrize("dtype", ["f8", ">f8", "f2", "i8", "u1", "?"])
def test_matrices_become_float32_vectors(tmp_path, dtype):
    array = RANDOM.integers(0, 2, (6, 4)).astype(dtype)
    train, _, discrete = read(saved(tmp_path, array))
    assert train.dtype == torch.float32
    assert np.array_equal(train.numpy(), array.astype("f4"))
    assert not discrete


def test_a_list_of_numbers_becomes_vectors_of_one(tmp_path):
    assert read(saved(tmp_path, np.arange(5)))[0].shape == (5, 1)


def test_float_images_are_kept(tmp_path):
    array = RANDOM.random((5, 3, 6, 6))
    train, _, discrete = read(saved(tmp_path, np.asfortranarray(array)))
    assert np.array_equal(train.numpy(), array.astype("f4"))
    assert not discrete


def test_npz_with_train_and_test_and_with_one_array(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, train=random_uint8(4, 8, 8), test=random_uint8(2, 8, 8, 1))
    train, test, _ = read(path)
    assert (train.shape, test.shape) == ((4, 1, 8, 8), (2, 1, 8, 8))
    np.savez_compressed(path, anything=np.arange(8.0))
    train, test, _ = read(path)
    assert (len(train), test) == (8, None)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (random_uint8(4, 3, 8, 3), "4 x 3 x 8 x 3 is ambiguous, channels may be first or last"),
        (random_uint8(4, 5, 8, 2), "4 x 5 x 8 x 2: accepted are vectors N x D"),
        (random_uint8(4, 5, 8, 2, 2), "accepted are"),
        (RANDOM.random((4, 8, 8)), "float64 of shape 4 x 8 x 8: accepted are"),
        (RANDOM.random((4, 8, 8, 3)), "float64 of shape 4 x 8 x 8 x 3: accepted are"),
        (np.zeros((4, 1, 8, 8), dtype=np.int64), "int64 of shape 4 x 1 x 8 x 8: accepted are"),
        (np.float64(3.0), r"shape \(\): accepted are"),
        (np.zeros((0, 3)), r"is empty \(shape 0 x 3\)"),
        (np.zeros((3, 0)), r"is empty \(shape 3 x 0\)"),
        (np.array(["a", "b"]), "type <U1 are not real numbers"),
        (np.zeros(3, dtype=complex), "type complex128 are not real numbers"),
        (np.zeros(3, dtype="datetime64[s]"), "are not real numbers"),
        (np.zeros(3, dtype=[("a", "f4")]), "are not real numbers"),
    ],
)
def test_odd_arrays_are_refused(tmp_path, array, says):
    line = refused(saved(tmp_path, array))
    assert re.search(says, line), line


def test_objects_are_refused_without_unpickling(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'exploded')!r}, 'w').close()",))

    array = np.empty(1, dtype=object)
    array[0] = Bomb()
    np.save(tmp_path / "own.npy", array, allow_pickle=True)
    np.savez(tmp_path / "own.npz", train=array)
    assert "cannot be read as plain arrays of numbers" in refused(tmp_path / "own.npy")
    assert "cannot be read as plain arrays of numbers" in refused(tmp_path / "own.npz")
    assert not (tmp_path / "exploded").exists()


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "own.npy").touch()
    assert "it is empty" in refused(tmp_path / "own.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_named_by_its_place(tmp_path, value):
    vectors, images = np.zeros((20, 5)), np.zeros((20, 1, 4, 4))
    vectors[17, 3] = vectors[18, 0] = value
    images[2, 0, 1, 2] = value
    assert f"row 17, column 3 is {value} (and 1 more): must be finite" in refused(saved(tmp_path, vectors))
    assert f"row 2, flat index 6 is {value}: must be finite" in refused(saved(tmp_path, images))


def test_bad_keys_are_refused(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, train=np.zeros(3), test=np.zeros(3), labels=np.zeros(3))
    assert "must be train and test, or a single key of any name; found: labels, test, train" in refused(path)
    np.savez(path, a=np.zeros(3), b=np.zeros(3))
    assert "found: a, b" in refused(path)
    np.savez(path)
    assert "found: none" in refused(path)


def test_train_and_test_must_be_alike(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, train=np.zeros((4, 2)), test=np.zeros((4, 3)))
    assert "train has float32 rows of shape 2, test has float32 rows of shape 3" in refused(path)
    np.savez(path, train=random_uint8(4, 8, 8), test=np.zeros((4, 1, 8, 8)))
    assert "train has uint8 rows of shape 1 x 8 x 8, test has float32 rows of shape 1 x 8 x 8" in refused(path)


def test_missing_and_damaged_files_are_refused(tmp_path):
    assert refused(tmp_path / "none.npy").endswith("no such file")
    whole = saved(tmp_path, RANDOM.random((50, 8))).read_bytes()
    np.savez(tmp_path / "own.npz", train=RANDOM.random((50, 8)))
    packed = (tmp_path / "own.npz").read_bytes()
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    for name, damaged in (
        ("cut.npy", whole[:500]),
        ("header.npy", whole[:20]),
        ("empty.npy", b""),
        ("cut.npz", packed[:500]),
        ("flipped.npz", bytes(flipped)),
    ):
        (tmp_path / name).write_bytes(damaged)
        assert "cannot be read as plain arrays of numbers" in refused(tmp_path / name)


@pytest.mark.parametrize("content", [b"1,2,3\n4,5,6\n", b"", b"\x80\x04K\x01.", bytes(range(256))])
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_file_of_another_kind_is_refused_with_advice(tmp_path, content, ending):
    path = tmp_path / f"text.{ending}"
    path.write_bytes(content)
    line = refused(path)
    assert "numpy.save" in line
    assert "pickle" not in line


def test_python_objects_are_called_that(tmp_path):
    array = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "own.npy", array, allow_pickle=True)
    np.savez(tmp_path / "own.npz", array)
    for path in (tmp_path / "own.npy", tmp_path / "own.npz"):
        assert "it holds Python objects" in (line := refused(path))
        assert "pickle" not in line


@pytest.mark.parametrize(
    "array", [np.full((5, 3), 2.0), random_uint8(1, 4, 4).repeat(5, 0), np.ones(5), np.ones((5, 1, 4, 4))]
)
def test_rows_that_are_all_the_same_are_refused(tmp_path, array):
    assert "all rows are equal: there is nothing to learn" in refused(saved(tmp_path, array))
    np.savez(tmp_path / "own.npz", train=array, test=random_uint8(*array.shape).astype(array.dtype))
    assert "all rows are equal" in refused(tmp_path / "own.npz")


def test_rows_that_single_precision_makes_equal_are_refused(tmp_path):
    assert "all rows are equal in single precision; subtract" in refused(saved(tmp_path, 1.7e9 + np.arange(9.0)))


def test_columns_that_single_precision_makes_constant_are_named(tmp_path, caplog):
    array = RANDOM.random((9, 6))
    array[:, 1] += 1e12
    array[:, 2] = 1e12
    array[:, 4] = 1e8 + np.arange(9) / 9
    read(saved(tmp_path, array))
    said = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert said[0] == "1 of 6 columns are constant: 2"
    assert said[1].startswith("2 of 6 columns are constant in single precision")
    assert said[1].endswith("(subtract it): 1, 4")
    assert len(said) == 2


def test_constant_columns_are_named_in_a_warning(tmp_path, caplog):
    array = RANDOM.random((9, 10))
    array[:, 1:8] = 2.0
    with caplog.at_level(logging.WARNING, "twostep"):
        read(saved(tmp_path, array))
        read(saved(tmp_path, RANDOM.random((9, 10))))
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "7 of 10 columns are constant: 1, 2, 3, 4, 5, ..."
    ]


@pytest.mark.parametrize("members", [{"notes.txt": b"hello"}, {"train.npy": None, "test": b"hello"}])
def test_a_member_that_is_no_array_is_one_line(tmp_path, members):
    path = tmp_path / "own.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.eye(3))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, buffer.getvalue() if content is None else content)
    with pytest.raises(UserError, match="is not an array"):
        read(path)
