"""Errors of columns: zero for the same rows, known values by hand, and what each column's kind counts as."""

import numpy as np
import pandas
import pytest
import torch
from scipy.stats import ks_2samp

from twostep.data.load import split_frame
from twostep.data.table.codes import to_codes
from twostep.data.table.infer import Problems
from twostep.metrics.samples.columns import column_errors, shape_errors, trend_errors
from twostep.metrics.samples.compare import compare

N = 400


def frame(seed, slope=1.0, share=0.5):
    random = np.random.default_rng(seed)
    x = random.normal(size=N)
    y = slope * x + random.normal(size=N)
    word = np.where(random.random(N) < share, "a", "b").astype(object)
    word[random.random(N) < 0.1] = None
    return pandas.DataFrame({"x": x, "y": y, "word": word})


@pytest.fixture(scope="module")
def columns():
    return split_frame(frame(0)).spec.columns


def rows(columns, *given):
    return to_codes(columns, frame(*given), Problems())


def test_the_same_rows_have_no_error(columns):
    data = rows(columns, 0)
    found = column_errors(columns, data, data)
    assert found.column_shape_error.value == 0
    assert found.pair_trend_error.value == 0


def test_errors_are_those_of_their_definitions(columns):
    real, drawn = frame(0), frame(1, -1.0, 0.2)
    one, other = (to_codes(columns, each, Problems()).numpy() for each in (real, drawn))
    shapes = shape_errors(columns, one, other)
    assert shapes["x"] == pytest.approx(ks_2samp(real["x"], drawn["x"]).statistic, abs=1e-6)
    shares = [each["word"].fillna("?").value_counts(normalize=True) for each in (real, drawn)]
    assert shapes["word"] == pytest.approx(0.5 * (shares[0] - shares[1]).abs().sum())
    numbers, mixed = trend_errors(columns, one, other, [(0, 1), (0, 2)])
    correlations = [each["x"].corr(each["y"]) for each in (real, drawn)]
    assert numbers == pytest.approx(abs(correlations[0] - correlations[1]) / 2, abs=1e-6)
    edges = np.linspace(real["x"].min(), real["x"].max(), 11)[1:-1]
    tables = [
        pandas.crosstab(np.searchsorted(edges, each["x"]), each["word"].fillna("?"), normalize=True)
        for each in (real, drawn)
    ]
    assert mixed == pytest.approx(0.5 * tables[0].sub(tables[1], fill_value=0).abs().to_numpy().sum(), abs=0.01)


def test_intervals_hold_what_new_rows_give(columns):
    data = rows(columns, 0)
    near, far = (column_errors(columns, data, rows(columns, 2, *given)) for given in ((), (-1.0, 0.1)))
    for close, wide in zip(near, far, strict=True):
        assert close.low <= close.value <= close.high < wide.value
        assert close.value < 0.12


def test_many_pairs_are_drawn(monkeypatch):
    monkeypatch.setattr("twostep.metrics.samples.columns.MOST_PAIRS", 50)
    wide = pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 20))).assign(word=["a", "b"] * 20)
    splits = split_frame(wide)
    codes = torch.cat([splits.train, splits.test])
    assert "50 pairs" in column_errors(splits.spec.columns, codes, codes).pair_trend_error.method


def test_two_tables_are_compared_without_a_model(tmp_path):
    real, near, far = frame(0), frame(1), frame(2, -1.0, 0.1)
    near[near.columns[::-1]].to_csv(tmp_path / "near.csv", index=False)
    found = [compare(real, samples, ["column_errors", "fd"]) for samples in (tmp_path / "near.csv", far)]
    for name in ("column_shape_error", "pair_trend_error", "fd"):
        assert found[0][name].value < found[1][name].value
    assert "column_shape_error" in compare(real, near)
