"""A table of words, numbers, dates and gaps by the command line: trained, sampled, scored and resumed."""

import numpy as np
import pandas
import pytest

from helpers.arguments import only_run
from twostep import load_run
from twostep.data import to_frame

N = 150
TINY = (
    *("--gae-config", "encoder_hidden_dims=[8]", "--gae-config", "decoder_hidden_dims=[8]"),
    *("--de-config", "hidden_units=4", "--de-config", "num_layers=1", "--epochs", "1"),
)


@pytest.fixture(scope="module")
def people():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "id": np.arange(N),
            "age": random.integers(18, 90, N),
            "income": random.lognormal(10, 1, N),
            "city": random.choice(["Oslo", "Paris", "Rom"], N),
            "member": random.random(N) < 0.3,
            "joined": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(random.integers(0, 900, N), "D"),
            "class": random.choice(["x", "y"], N),
        }
    )
    frame.loc[::7, "income"] = np.nan
    frame.loc[::9, "city"] = None
    return frame


def test_a_table_is_trained_sampled_and_scored(people, tmp_path, twostep, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("twostep.models.table.DRAWS", 2)
    people.to_parquet("people.parquet")
    data = ("--dataset", "people.parquet", "--index-column", "id", "--target-column", "class")
    trained = twostep("train", *data, "--gae-model", "vae", "--de-model", "flow", *TINY)
    assert trained.status == 0, trained.err
    assert "bound; mixed: Lebesgue on 1 column, counting on 4 columns, an atom for missing values in 1" in trained.out
    run = only_run(tmp_path / "runs")
    modelled = people.drop(columns=["id", "class"])
    for name, read in (("samples.parquet", pandas.read_parquet), ("samples.csv", pandas.read_csv)):
        assert twostep("sample", run, "-n", 40, "--to", name).status == 0
        samples = read(name)
        assert list(samples) == list(modelled)
        assert len(samples) == 40
        assert set(samples["city"].dropna()) <= {"Oslo", "Paris", "Rom"}
    assert pandas.read_parquet("samples.parquet").dtypes.equals(modelled.dtypes)
    people[people.columns[::-1]].to_csv("new.csv", index=False)
    scored = twostep("score", run, "new.csv")
    assert scored.status == 0
    assert "further columns are ignored: class, id" in scored.out
    scores = pandas.read_csv("scores.csv")
    assert scores["name"].tolist() == people["id"].tolist()
    assert scores[["log_prob", "log_prob_latent", "distance"]].notna().all().all()
    modelled.drop(columns="age").to_csv("fewer.csv", index=False)
    refused = twostep("score", run, "fewer.csv", "--force")
    assert refused.status == 2
    assert "age" in refused.err
    loaded = load_run(run)
    frame = to_frame(loaded.module.columns, loaded.module.sample(5))
    assert frame.dtypes.equals(modelled.dtypes)


def test_all_problems_of_a_table_are_one_line_and_no_run_is_made(people, tmp_path, twostep, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people.assign(note=[f"note {row}" for row in range(N)]).to_csv("people.csv", index=False)
    flags = ("--drop", "idd", "--target-column", "clas")
    outcome = twostep("train", "--dataset", "people.csv", "--gae-model", "ae", "--de-model", "flow", *flags)
    assert outcome.status == 2
    assert len(outcome.err.strip().splitlines()) == 1
    for name in ("idd", "clas", "note"):
        assert f"column {name}:" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_flags_of_a_table_are_for_new_runs(tmp_path, twostep):
    for command in ("train", "train-single"):
        assert twostep(command, "--load-dir", tmp_path, "--drop", "a").status == 2
