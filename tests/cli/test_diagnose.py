"""`twostep diagnose DATA`: local dimensions by row, the command to type next, and a folder for each answer."""

import json

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.cmd


@pytest.fixture
def table(tmp_path):
    """Give a table of 200 rows on a circle and a column of another unit that follows the angle."""
    angle = 6.283 * np.random.default_rng(0).random(200)
    pd.DataFrame({"x": np.cos(angle), "y": np.sin(angle), "grams": 1000 * np.cos(2 * angle)}).to_csv(
        tmp_path / "own.csv", index=False
    )
    return tmp_path / "own.csv"


def test_data_are_diagnosed_by_their_path_alone(twostep, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = twostep("diagnose", "own.csv", "--per-point", "rows.parquet")
    assert done.status == 0, done.err
    assert done.out.startswith("intrinsic dimension: 1 (")
    assert "columns of different units" in done.out
    assert "next: twostep train --dataset own.csv --gae-model ae --de-model flow --latent-dim 1" in done.out
    rows = pd.read_parquet("rows.parquet")
    assert list(rows) == ["row", "local_dimension", "standard_error", "neighbours"]
    assert len(rows) == 200
    assert rows.local_dimension.median() == pytest.approx(1, abs=0.15)
    kept = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    assert (kept["name"], kept["rows"], kept["standardized"]) == ("own.csv", 200, True)
    before = (tmp_path / "diagnosis" / "diagnosis.json").stat().st_mtime_ns
    raw = twostep("diagnose", "--dataset", "own.csv", "--no-standardize")
    assert raw.status == 0, raw.err
    assert "columns of different units" not in raw.out
    assert (tmp_path / "diagnosis-2" / "diagnosis.png").exists()
    assert (tmp_path / "diagnosis" / "diagnosis.json").stat().st_mtime_ns == before


def test_mistakes_are_refused_before_anything_is_written(twostep, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, word in (
        (("diagnose", "own.csv", "--per-point", "rows.txt"), "rows.txt"),
        (("diagnose", "own.csv", "--per-point", "own.csv"), "own.csv"),
        (("diagnose", "none.csv"), "none.csv"),
    ):
        done = twostep(*arguments)
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert word in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv"]
