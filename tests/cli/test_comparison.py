"""`twostep compare` and `twostep runs`: what differs and what was measured, in a terminal's width and other formats."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from twostep.core.result import Result
from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.runs.config import RunConfig, Settings
from twostep.runs.directory import Run
from twostep.runs.summary import RunSummary

EXACT = Result(-3.5, "nats", 50, 0.25, "exact", "Lebesgue on R^3")
FD = Result(2.5, "squared feature units", 50, note="pca features 0123456789ab (scaled)", reference=1.25)


@pytest.fixture
def tested(tmp_path):
    spec = DataSpec(name="toy", shape=(3,), size=50, low=0, high=1)

    def make(name, keys=None, **results):
        config = MODELS[name].for_data(spec, "de", **(keys or {}))
        run = Run.create(Settings(RunConfig(dataset="toy", logdir_root=tmp_path), {"model": config}), spec)
        if results:
            run.write_metrics("test", {"model": results}, "weights")
        return run.path

    return make


def rows(text):
    """Return the cells of each line by its label; lines without a run's cell are left out."""
    found = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
    return {cells[0]: cells[1:] for cells in found if len(cells) > 1}


def test_a_row_holds_figures_of_one_kind_and_measure(tested, twostep):
    runs = [
        tested("flow", log_likelihood=EXACT, loss=Result(1.5, "nats", 50)),
        tested("vae", log_likelihood=replace(EXACT, value=-3.0, kind="bound")),
        tested("arm", log_likelihood=replace(EXACT, value=-4.0)),
    ]
    done = twostep("compare", "--format", "csv", *map(str, runs))
    lines = {line[0]: line[1:] for line in csv.reader(io.StringIO(done.out))}
    assert lines[""] == [path.name for path in runs]
    assert lines["log_likelihood (nats; exact; Lebesgue on R^3)"] == ["-3.5 ± 0.25", "", "-4 ± 0.25"]
    assert lines["log_likelihood (nats; bound; Lebesgue on R^3)"] == ["", "-3 ± 0.25", ""]
    assert lines["loss (nats)"] == ["1.5", "", ""]
    assert lines["models"] == ["flow", "vae", "arm"]


def test_keys_that_differ_and_no_others_are_shown(tested, twostep):
    runs = [tested("flow", {"max_epochs": n}, log_likelihood=EXACT) for n in (5, 7)]
    found = rows(twostep("compare", *runs).out)
    assert found["max_epochs"] == ["5", "7"]
    assert not {"seed", "lr", "dataset", "logdir_root"} & set(found)
    found = rows(twostep("compare", *runs, tested("arm", {"lr": 0.5}, log_likelihood=EXACT)).out)
    assert found["lr"][-1] == "0.5"
    assert "num_bins" not in found, "the flow alone has it"


def test_later_evaluations_and_held_out_data_are_shown(tested, twostep):
    run = tested("flow", log_likelihood=EXACT)
    auroc = Result(0.875, "area under the ROC curve", 80)
    Run.open(run).add_evaluation({"fd": FD, "two_part_ood_auroc": auroc}, "weights", {"part": "model"})
    text = twostep("compare", run).out
    assert "pca features 0123456789ab" in text, "figures of other features are not compared"
    found = {label.partition(" [")[0]: cells for label, cells in rows(text).items()}
    assert found["two_part_ood_auroc"] == ["0.875"]
    assert (found["fd"], found["fd, held-out data"]) == (["2.5"], ["1.25"])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_table_fits_a_terminal_whatever_the_number_of_runs(tested, twostep, count):
    long = {f"a_figure_of_a_rather_long_name_{n}": EXACT for n in range(3)}
    runs = [tested("flow", {"max_epochs": n + 1}, **long) for n in range(count)]
    text = twostep("compare", *runs).out
    assert max(map(len, text.splitlines())) <= 100
    assert all(text.count(path.name) >= 1 for path in runs)


def test_other_formats_have_the_same_cells(tested, twostep):
    runs = [tested("flow", {"max_epochs": n}, log_likelihood=EXACT) for n in (5, 7)]
    assert "| max_epochs | 5 | 7 |" in twostep("compare", *runs, "--format", "md").out
    assert "<tr><td>max_epochs</td><td>5</td><td>7</td></tr>" in twostep("compare", *runs, "--format", "html").out
    for flags in (("--format", "json"), ("--json",)):
        first, second = json.loads(twostep("compare", *runs, *flags).out)
        assert (first["keys"]["max_epochs"], second["keys"]["max_epochs"]) == (5, 7)
        assert first["test"]["model"]["log_likelihood"]["value"] == -3.5


def test_runs_of_one_name_are_told_apart(tested, twostep, tmp_path):
    first = tested("flow", log_likelihood=EXACT)
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / first.name
    first.rename(second)
    first = Path(tested("flow", log_likelihood=EXACT)).rename(tmp_path / second.name)
    assert f"{tmp_path.name}/{first.name}" in twostep("compare", first, second).out


def test_a_run_without_a_test_is_not_compared(tested, twostep):
    path = tested("flow")
    refused = twostep("compare", str(path))
    assert refused.status == 2
    assert refused.err == f"{path}: was not tested: twostep evaluate {path}\n"
    assert "give the directories" in twostep("compare").err


def test_runs_of_a_folder_are_listed_with_state_and_figures(tested, twostep, tmp_path):
    tested("flow")
    tested("vae", log_likelihood=EXACT)
    (tmp_path / "notes").mkdir()
    outcome = twostep("runs", tmp_path)
    lines = outcome.out.splitlines()
    assert outcome.status == 0
    assert len(lines) == 3
    assert any("vae" in line and "tested" in line and "log-lik. -3.5" in line for line in lines)
    assert any("flow" in line and "not trained" in line for line in lines)
    listed = json.loads(twostep("runs", tmp_path, "--json").out)
    assert {one["state"] for one in listed} == {"tested", "not trained"}
    assert twostep("runs", tmp_path / "notes").out == f"{tmp_path / 'notes'}: no runs\n"
    assert "no such folder" in twostep("runs", tmp_path / "nowhere").err


def test_a_trained_run_says_its_epochs_and_minutes(two_step_run):
    run = RunSummary.read(two_step_run)
    assert set(run.epochs) == {"gae", "de"}
    assert all(0 < done <= most for done, most in run.epochs.values())
    assert run.state == "tested"
    assert run.minutes is not None
    assert 0 < run.minutes < 5
    assert "log_likelihood" in run.headline()


def test_a_run_in_which_another_process_writes_is_running(tested):
    run = Run.open(tested("flow"))
    run.claim()
    try:
        assert RunSummary.read(run.path).state == "running"
    finally:
        run.close()
    assert RunSummary.read(run.path).state == "not trained"


def test_a_diagnosis_of_a_run_lies_where_its_page_finds_it(tested, twostep, monkeypatch):
    class Found:
        def lines(self):
            return ["chart: good"]

        def next_command(self):
            return "twostep report RUN"

        def to_dict(self):
            return {"findings": [{"name": "chart", "text": "good", "advice": ""}]}

        def plot(self, path):
            path.write_bytes(b"")

    monkeypatch.setattr("twostep.analysis.diagnose.diagnose_run", lambda *_, **__: Found())
    run = tested("flow", log_likelihood=EXACT)
    assert twostep("diagnose", run).out.startswith("chart: good\nnext: twostep report RUN\n")
    assert json.loads(twostep("diagnose", run, "--json").out)["findings"][0]["name"] == "chart"
    assert {path.name for path in run.glob("diagnosis*")} == {"diagnosis", "diagnosis-2"}
