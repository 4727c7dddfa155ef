"""Rows of a user's files: all of them, in order, as they are; one line for what can't be read."""

import numpy as np
import pandas
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from twostep.core.schema import UserError
from twostep.data.load import read_rows
from twostep.data.table.text import read_numbers

TABLE = np.array([[1.5, -2.0, 3.0], [4.0, 5.0, 1e-3]])


def images(n=3):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 5), dtype=np.uint8)


def refused(path):
    with pytest.raises(UserError) as error:
        read_rows(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("header", ["", "a,b,c\n", "\ufeffa,b,c\n", "# a,b,c\n", ",b,c\n", '"a, of x","b\nof y",c\n'])
def test_a_csv_may_have_a_header(tmp_path, header):
    path = tmp_path / "rows.csv"
    path.write_text(header + "1.5,-2,3\n4,5,1e-3\n", encoding="utf-8")
    assert torch.equal(read_rows(path), torch.tensor(TABLE, dtype=torch.float32))


def test_numbers_of_a_csv_may_be_quoted(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"a","b","c"\r\n"1.5","-2","3"\r\n"4","5","1e-3"\r\n')
    assert torch.equal(read_rows(path), torch.tensor(TABLE, dtype=torch.float32))


def test_a_table_in_parquet_keeps_the_order_of_its_columns(tmp_path):
    columns = {"b": TABLE[:, 0], "a": TABLE[:, 1].astype(np.float32), "c": pa.array(TABLE[:, 2])}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    assert torch.equal(read_rows(tmp_path / "rows.parquet"), torch.tensor(TABLE, dtype=torch.float32))
    alike = pa.Table.from_arrays([pa.array(column) for column in TABLE.T], names=["a"] * 3)
    parquet.write_table(alike, tmp_path / "rows.parquet")
    assert torch.equal(read_rows(tmp_path / "rows.parquet"), torch.tensor(TABLE, dtype=torch.float32))


def test_arrays_may_hold_one_row_or_equal_ones(tmp_path):
    np.save(tmp_path / "one.npy", TABLE[:1])
    np.savez(tmp_path / "equal.npz", rows=np.repeat(TABLE[:1], 4, 0))
    assert read_rows(tmp_path / "one.npy").shape == (1, 3)
    assert read_rows(tmp_path / "equal.npz").shape == (4, 3)


def test_images_of_a_folder_and_of_parquet_are_those_of_an_array(tmp_path):
    (tmp_path / "folder").mkdir()
    encoded = []
    for number, image in enumerate(images()):
        path = tmp_path / "folder" / f"{number}.png"
        Image.fromarray(image).save(path)
        encoded.append({"bytes": path.read_bytes(), "path": None})
    parquet.write_table(pa.table({"image": encoded}), tmp_path / "rows.parquet")
    np.save(tmp_path / "rows.npy", images())
    for name in ("folder", "rows.parquet", "rows.npy"):
        assert torch.equal(read_rows(tmp_path / name), torch.as_tensor(images()[:, None])), name
    assert read_rows(tmp_path / "folder", (2, 2)).shape == (3, 1, 2, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b c\n1,x\n", "not a table of numbers without gaps: b c (categorical)"),
        ("1,2\n3,4\n\n5,\n", "gaps: 1 (gaps)"),
        ("1,2\n3\n", "row 2 has 1 columns, and most have 2"),
        ("1,NA\n2,3\n", "gaps: 1 (gaps)"),  # no names: a row that would be lost
        (",\n2,3\n", "gaps: 0 (gaps), 1 (gaps)"),
        ("1,2\n#3,4\n5,6\n", "column 0: numbers, but for '#3'"),  # no comment: the same
        ("a;b\n1;x\n", "gaps: b"),
        ("a;b\n1;2\n3;\n", "gaps: b"),
        ("a,\n1,2\n3,\n", "gaps: Unnamed: 1 (gaps)"),
        ("a,b\n1,2,3\n4,5,6\n", "row 1 has 2 columns, and most have 3"),
        ("0,1,2\n3,,5\n", "gaps: 1"),
        ("1,2\n3,nan\n", "gaps: 1"),
        ("1,2\n3,inf\n", "is inf: must be finite"),
        ("a,b\n", "is empty"),
        ("", "is empty"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, says):
    (tmp_path / "rows.csv").write_text(text)
    assert says in refused(tmp_path / "rows.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("names", ["", "a{0}b{0}c\n"])
def test_the_separator_is_found(tmp_path, separator, names):
    path = tmp_path / "rows.csv"
    path.write_text((names + "1.5{0}-2{0}3\n4{0}5{0}1e-3\n").format(separator))
    assert torch.equal(read_rows(path), torch.tensor(TABLE, dtype=torch.float32))


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("index", [False, True])
def test_a_table_that_pandas_wrote_with_its_default_names_has_no_row_more(tmp_path, caplog, index, integers):
    rows = np.arange(12).reshape(4, 3)[::-1] + (0 if integers else 0.5)
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=index)
    assert torch.equal(read_rows(tmp_path / "rows.csv"), torch.tensor(rows.copy(), dtype=torch.float32))
    assert "the first row, 0 to 2, is taken as the column names" in caplog.text
    assert ("number the rows are left out: 1" in caplog.text) == index


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0\n0.5\n1.5\n", [[0.5], [1.5]]),
        ("0\n1\n2\n", [[0], [1], [2]]),  # a column of integers without a name
        ("0.0,1.0\n2.0,3.0\n", [[0, 1], [2, 3]]),
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("0,1,2\n", [[0, 1, 2]]),  # below names there would be a row
        ("1 2\n3 4\n", [[1, 2], [3, 4]]),
        ("1,5;2,5\n", [[1.5, 2.5]]),
    ],
)
def test_numbers_that_are_no_default_names_are_data_unless_they_look_like_them(tmp_path, text, rows):
    (tmp_path / "rows.csv").write_text(text)
    assert read_rows(tmp_path / "rows.csv").tolist() == rows


@pytest.mark.parametrize(
    "text",
    [
        "a,b,,\n1.5,2.5,,\n3.5,4.5,,\n",
        "1.5,2.5,,\n3.5,4.5,,\n",
        "a,Unnamed: 1,b\n1.5,,2.5\n3.5,,4.5\n",
        ",a,b,,\n7,1.5,2.5,,\n5,3.5,4.5,,\n",
        "Unnamed: 0;a;b\n0;1.5;2.5\n1;3.5;4.5\n",
    ],
)
def test_columns_without_a_name_that_hold_no_data_are_left_out(tmp_path, caplog, text):
    (tmp_path / "rows.csv").write_text(text)
    assert read_rows(tmp_path / "rows.csv").tolist() == [[1.5, 2.5], [3.5, 4.5]]
    assert "are left out" in caplog.text


def test_an_index_in_parquet_is_left_out(tmp_path):
    pandas.DataFrame({"a": [0.5, 0.25]}, index=[7, 5]).to_parquet(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet").tolist() == [[0.5], [0.25]]


def test_numbers_of_a_csv_are_those_of_python(tmp_path):
    values = np.random.default_rng(0).normal(size=(2000, 2)) * 10.0 ** np.arange(-8, 8).repeat(125)[:, None]
    pandas.DataFrame(values).to_csv(tmp_path / "rows.csv", index=False, header=["a", "b"])
    assert np.array_equal(read_numbers(tmp_path / "rows.csv").rows, values)


def test_tables_in_other_encodings_are_read_or_refused(tmp_path):
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / f"{encoding}.csv").write_text("größe\n1\n2\n", encoding=encoding)
    assert read_rows(tmp_path / "utf-16.csv").tolist() == [[1], [2]]
    assert "set encoding, usually 'latin-1'" in refused(tmp_path / "latin-1.csv")


def test_what_is_no_rows_is_refused(tmp_path):
    assert "no such file or folder" in refused(tmp_path / "nowhere.npy")
    np.savez(tmp_path / "two.npz", train=TABLE, test=TABLE)
    assert "must hold exactly one array; found: test, train" in refused(tmp_path / "two.npz")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "damaged or incomplete parquet file" in refused(tmp_path / "broken.parquet")
    parquet.write_table(pa.table({"a": [1.0], "name": ["x"]}), tmp_path / "words.parquet")
    assert "not a table of numbers without gaps: name (categorical)" in refused(tmp_path / "words.parquet")
    parquet.write_table(pa.table({"a": [1.0, None]}), tmp_path / "gaps.parquet")
    assert "not a table of numbers without gaps: a (gaps)" in refused(tmp_path / "gaps.parquet")
    (tmp_path / "rows.log").write_text("1 2")
    assert "write it with numpy.save or numpy.savez, or as a table, .csv or .parquet" in refused(tmp_path / "rows.log")
    for split in ("train", "test"):
        (tmp_path / "both" / split).mkdir(parents=True)
        Image.fromarray(images()[0]).save(tmp_path / "both" / split / "0.png")
    assert "both train and test" in refused(tmp_path / "both")


def test_no_other_program_decodes_an_image(tmp_path, monkeypatch):
    """Pillow has Ghostscript read what begins as PostScript, however its name ends."""
    (tmp_path / "own").mkdir()
    drawing = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "own" / "drawing.png").write_text(drawing)
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given: started.append(given))
    assert "drawing.png: not an image" in refused(tmp_path / "own")
    assert started == []


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_images_of_common_formats_are_decoded_from_a_table(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    Image.fromarray(images(1)[0]).save(path)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    encoded = pa.array([{"bytes": path.read_bytes(), "path": None}] * 2, kind)
    parquet.write_table(pa.table({"image": encoded}), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet").shape == (2, 3 if ending in ("webp", "gif") else 1, 4, 5)


def test_a_table_may_not_name_a_file_of_this_machine(tmp_path):
    Image.fromarray(images(1)[0]).save(tmp_path / "private.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    encoded = pa.array([{"bytes": None, "path": str(tmp_path / "private.png")}] * 3, kind)
    parquet.write_table(pa.table({"image": encoded}), tmp_path / "rows.parquet")
    assert "names a file instead of holding an image" in refused(tmp_path / "rows.parquet")
