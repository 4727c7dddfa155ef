"""Tables as people have them: what is read, what each column becomes, the way back, and all problems in one line."""

import gzip
import json

import numpy as np
import pandas
import polars
import pytest

from twostep.core.schema import DataSpec, UserError
from twostep.data.load import load_data, read_rows, split_frame
from twostep.data.table.codes import to_codes, to_frame
from twostep.data.table.infer import MAX_LEVELS, Problems

N = 120


@pytest.fixture(scope="module")
def people():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": random.integers(18, 90, N),
            "income": random.lognormal(10, 1, N),
            "city": random.choice(["Oslo", "Paris", "Rom"], N),
            "member": random.random(N) < 0.3,
            "joined": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(random.integers(0, 900, N), "D"),
            "zip": [f"0{code:04d}" for code in random.integers(0, 30, N)],
            "grade": pandas.Categorical(random.choice(["low", "mid", "high"], N), ["low", "mid", "high"], ordered=True),
            "const": "x",
            "empty": [None] * N,
        }
    )
    frame["again"] = frame["age"]
    frame.loc[random.random(N) < 0.2, "income"] = np.nan
    frame.loc[random.random(N) < 0.1, "city"] = None
    return frame


def refused(call):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["people.parquet", "people.csv", "people.csv.gz", "people.tsv"])
def test_rows_of_a_file_come_back_as_they_were(people, tmp_path, name):
    path = tmp_path / name
    sep = "\t" if name.endswith("tsv") else ","
    people.to_parquet(path) if name.endswith("parquet") else people.to_csv(path, index=False, sep=sep)
    schema = load_data(str(path)).spec.columns
    kinds = {column.name: column.kind for column in schema.modelled}
    assert kinds == {
        "age": "integer",
        "income": "continuous",
        "city": "categorical",
        "member": "boolean",
        "joined": "date",
        "zip": "categorical",
        "grade": "categorical",
    }
    given = people if name.endswith("parquet") else pandas.read_csv(path, sep=sep, dtype={"zip": str})
    back = to_frame(schema, read_rows(path, columns=schema))
    assert list(back) == list(given)
    for column in given:
        same_type = column != "empty"
        pandas.testing.assert_series_equal(back[column], given[column], check_dtype=same_type, rtol=1e-6)


def test_frames_of_pandas_and_polars_are_alike_and_their_columns_are_kept_as_json(people):
    ours = split_frame(people)
    plain = people.drop(columns="grade")  # whose order polars does not keep
    theirs = split_frame(polars.from_pandas(plain))
    assert np.array_equal(split_frame(plain).train, theirs.train, equal_nan=True)
    assert split_frame(polars.from_pandas(people)).spec.columns.modelled[-1].kind == "categorical"
    assert DataSpec.parse(json.loads(ours.spec.model_dump_json()), "data.json") == ours.spec
    shuffled = people.set_index(np.arange(N)[::-1])
    assert np.array_equal(split_frame(shuffled).train, ours.train, equal_nan=True)


def test_a_table_of_numbers_is_an_array(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    pandas.DataFrame(rows, columns=["a", "b", "c"]).to_csv(tmp_path / "rows.csv", index=False)
    np.save(tmp_path / "rows.npy", rows)
    table, array = load_data(str(tmp_path / "rows.csv")), load_data(str(tmp_path / "rows.npy"))
    assert np.array_equal(table.train, array.train)
    assert (table.spec.low, table.spec.high) == (array.spec.low, array.spec.high)
    assert table.spec.table is None
    frame = split_frame(pandas.DataFrame(rows, columns=["a", "b", "c"]))
    assert np.array_equal(frame.train, array.train)
    turned = pandas.DataFrame(rows, columns=["a", "b", "c"])[["c", "a", "b"]]
    turned.to_csv(tmp_path / "turned.csv", index=False)
    assert np.array_equal(read_rows(tmp_path / "turned.csv", columns=table.spec.columns), rows.astype(np.float32))


def test_all_problems_are_in_one_line(people):
    bad = people.assign(
        name=[f"n{row}" for row in range(N)],
        mixed=[*map(str, range(N - 1)), "oops"],
        endless=np.inf,
        lasts=pandas.Timedelta(1, "D"),
    )
    line = refused(lambda: split_frame(bad, kwargs={"drop": ["citty"], "target_column": "grad"}))
    for name in ("name", "mixed", "endless", "lasts", "citty", "city", "grad", "oops"):
        assert name in line
    assert "--drop name,mixed,endless,lasts" in line
    kept = split_frame(bad, kwargs={"drop": "name,mixed,endless,lasts", "target_column": "grade"})
    assert kept.spec.shape == (6,)
    assert set(kept.train_labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("a.csv", "a;b\n1,5;x\n2,5;y\n3;x\n1;x\n", {}),
        ("a.csv", "\ufeffa,b\n1.5,x\n2.5,y\n3,x\n1,x\n", {}),
        ("a.txt", "# made by hand\na b\n1.5 x\n2.5 y\n3 x\n1 x\n", {}),
        ("a.data", "a|b\n1.5|x\n2.5|y\n3|x\n1|x\n", {}),
        ("a.csv", "a:b\n1,5:x\n2,5:y\n3:x\n1:x\n", {"sep": ":", "decimal": ","}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "gz"])
def test_text_is_read_however_it_is_written(tmp_path, name, content, keys, encoding):
    path = tmp_path / (f"{name}.gz" if encoding == "gz" else name)
    content = content.replace("y", "ü")
    if encoding == "latin-1":
        keys = {**keys, "encoding": encoding}
        content = content.removeprefix("\ufeff")
    raw = content.encode("utf-8" if encoding == "gz" else encoding)
    path.write_bytes(gzip.compress(raw) if encoding == "gz" else raw)
    splits = load_data(str(path), make_valid=False, kwargs=keys)
    keys = {key: value for key, value in keys.items() if key != "kinds"}
    back = to_frame(splits.spec.columns, read_rows(path, columns=splits.spec.columns, kwargs=keys))
    assert back["a"].tolist() == [1.5, 2.5, 3.0, 1.0]
    assert back["b"].tolist() == ["x", "ü", "x", "x"]


def test_a_text_file_of_numbers_of_another_ending_is_a_table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    np.savetxt(tmp_path / "rows.data", rows)
    np.save(tmp_path / "rows.npy", rows)
    assert np.allclose(load_data(str(tmp_path / "rows.data")).train, load_data(str(tmp_path / "rows.npy")).train)
    assert np.allclose(read_rows(tmp_path / "rows.data"), rows.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,x\n2\n", "row 3 has 1 columns, and most have 2"),
        ("a,b\n1,x\n2,y,3\n", "row 3 has 3 columns"),
        ("a,b\n", "is empty"),
        ("", "is empty"),
        ("a,a\n1,x\n2,y\n", "2 columns have this name"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, content, says):
    (tmp_path / "rows.csv").write_text(content)
    assert says in refused(lambda: load_data(str(tmp_path / "rows.csv")))


def test_kinds_are_what_the_user_says(people):
    numbers = people[["age"]].assign(code=np.arange(N) % 4)
    assert split_frame(numbers).spec.table is None
    auto = split_frame(numbers, kwargs={"kinds": "auto"}).spec.table
    assert [column.kind for column in auto.modelled] == ["integer", "integer"]
    said = split_frame(numbers, kwargs={"kinds": {"code": "categorical"}}).spec.table
    assert [column.kind for column in said.modelled] == ["integer", "categorical"]
    assert (
        to_frame(said, split_frame(numbers, kwargs={"kinds": {"code": "categorical"}}).train)["code"].dtype == "int64"
    )
    assert "no such column" in refused(lambda: split_frame(numbers, kwargs={"kinds": {"cod": "categorical"}}))


def test_new_rows_are_found_by_name(people, tmp_path, caplog):
    schema = split_frame(people).spec.columns
    fewer = people.drop(columns=["age", "city"])
    fewer.to_csv(tmp_path / "fewer.csv", index=False)
    line = refused(lambda: read_rows(tmp_path / "fewer.csv", columns=schema))
    assert "age, city" in line
    new = people[people.columns[::-1]].drop(columns=["const", "again"]).assign(city="Bern", further=1)
    new.to_parquet(tmp_path / "new.parquet")
    with caplog.at_level("INFO", "twostep"):
        codes = read_rows(tmp_path / "new.parquet", columns=schema)
    assert codes[:, 2].tolist() == [3.0] * N  # one more than the last level
    assert "further" in caplog.text
    assert f"city ({N})" in caplog.text


def test_words_that_the_user_names_are_missing_values_in_old_and_new_rows(tmp_path):
    frame = pandas.DataFrame({"price": ["1.5", "unknown", "2.5", "-9"] * 20, "plan": ["a", "b", "unknown", "b"] * 20})
    frame.to_csv(tmp_path / "own.csv", index=False)
    kwargs = {"missing": "unknown,-9"}
    for found in (load_data(str(tmp_path / "own.csv"), kwargs=kwargs), split_frame(frame, kwargs=kwargs)):
        price, plan = found.spec.columns.columns
        assert (price.kind, price.gaps, plan.levels, plan.gaps) == ("continuous", True, ("a", "b"), True)
        rows = read_rows(tmp_path / "own.csv", columns=found.spec.columns, kwargs=kwargs)
        assert rows.isnan().tolist()[:4] == [[False, False], [True, False], [False, True], [True, False]]


def test_a_thousand_columns_and_more_than_a_thousand_levels(caplog):
    random = np.random.default_rng(0)
    wide = pandas.DataFrame(random.normal(size=(20, 1000))).assign(word=random.choice(["a", "b"], 20))
    assert split_frame(wide).spec.shape == (1001,)
    many = pandas.DataFrame(
        {"word": [f"w{code}" for code in random.integers(0, 1500, 6000)], "x": random.normal(size=6000)}
    )
    column = split_frame(many).spec.columns.columns[0]
    assert len(column.levels) == MAX_LEVELS - 1
    assert column.pooled == many["word"].nunique() - len(column.levels)
    assert "the rarest count as one" in caplog.text.replace(str(column.pooled) + " ", "")


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1.234,50", "2,5", "-3"], "continuous", [1234.5, 2.5, -3.0]),
        (["3", "-", "5", "8"], "integer", [3, None, 5, 8]),
        (["2024-01-31 10:30:00", "2024-02-01 00:00:00"], "date", ["2024-01-31 10:30:00", "2024-02-01 00:00:00"]),
        (["31.12.2023", "01.02.2024"], "date", ["31.12.2023", "01.02.2024"]),
        (["007", "010"], "categorical", ["007", "010"]),
        (["true", "FALSE"], "boolean", [True, False]),
        (["yes", "?", "no"], "categorical", ["yes", None, "no"]),
    ],
)
def test_cells_are_what_they_look_like(cells, kind, values):
    frame = pandas.DataFrame({"cell": cells * 10, "word": ["a", "b"] * (5 * len(cells))})
    splits = split_frame(frame, valid_fraction=0.0)
    column = splits.spec.columns.columns[0]
    assert column.kind == kind
    back = to_frame(splits.spec.columns, read_codes(splits, frame))["cell"]
    found = [None if pandas.isna(value) else value for value in back[: len(cells)]]
    assert found == values


def read_codes(splits, frame):
    return to_codes(splits.spec.columns, frame, Problems())


def test_a_comma_that_may_be_two_things_is_asked_about():
    frame = pandas.DataFrame({"cell": ["1,000", "2,500"] * 10, "word": ["a", "b"] * 10})
    assert "decimal" in refused(lambda: split_frame(frame))
    splits = split_frame(frame, kwargs={"decimal": "."})
    assert set(to_frame(splits.spec.columns, splits.train)["cell"]) == {1000, 2500}
