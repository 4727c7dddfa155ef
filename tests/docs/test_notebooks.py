"""The notebooks run from beginning to end, on small runs, and draw what they say."""

import io
import runpy
from contextlib import redirect_stdout
from pathlib import Path

import jupytext
import matplotlib as mpl
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers.arguments import only_run, single_arguments
from twostep.experiment.load import load_module

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def executed(twostep, two_step_run, own_images, tmp_path, monkeypatch):
    """Give what the cells of `ood_histogram` leave: a flow and a two-step model, against images of noise in black."""
    assert twostep(*single_arguments(own_images, tmp_path / "runs", "flow")).status == 0
    others = np.random.default_rng(0).integers(0, 30, (12, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "others.npz", train=others[:5], test=others[5:])
    places = {"ONE_STEP": only_run(tmp_path / "runs"), "TWO_STEP": two_step_run, "OOD": tmp_path / "others.npz"}
    for name, value in {**places, "FIGURES": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    with mpl.rc_context():
        mpl.use("Agg")
        with redirect_stdout(io.StringIO()) as out:
            left = runpy.run_path(str(NOTEBOOKS / "ood_histogram.py"))
        yield left, places, out.getvalue().splitlines()
        left["plt"].close("all")


def test_the_histograms_are_densities_of_the_runs_own_scores(executed, own_images, tmp_path):
    left, places, printed = executed
    module = load_module(places["TWO_STEP"])
    with torch.no_grad():
        expected = -module.reconstruction_error(torch.tensor(np.load(own_images)["test"][:, None]).float())
    assert np.allclose(left["scores"]["two-step"]["reconstruction_error"]["in"], expected, rtol=1e-5)
    assert [len(left["scores"][kind]["log_prob"]["out"]) for kind in ("one-step", "two-step")] == [7, 7]
    for axes in left["panels"]:
        (own, other) = axes.containers
        for bars in (own, other):
            assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["images", "others (other)"]
        assert "AUROC" in axes.get_title()
    for axes, line, (boundary, rate) in zip(left["panels"], printed, left["stumps"].values(), strict=True):
        assert list(axes.lines[-1].get_xdata()) == [boundary, boundary]
        assert f"classification rate {rate:.2%}" in line
    assert (tmp_path / "ood_histogram.png").stat().st_size > 10_000


@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    """Give a function that runs a notebook which needs no run and returns what its cells leave."""
    monkeypatch.setenv("FIGURES", str(tmp_path))
    with mpl.rc_context():
        mpl.use("Agg")
        yield lambda name: runpy.run_path(str(NOTEBOOKS / name))
        mpl.pyplot.close("all")


@pytest.mark.cmd
def test_two_steps_find_the_distribution_on_the_circle_where_one_step_loses_it(run_cells, tmp_path):
    left = run_cells("von_mises_circle.py")
    assert (left["found"].overfitting.verdict, left["found"].latent_dim) == ("yes", 1)
    assert left["found"].dimension.recommended == 1
    angle = left["angle"].numpy()
    assert np.allclose(left["truth"], np.exp(np.cos(angle)) / (2 * np.pi * np.i0(1)))
    masses = list(left["masses"].values())
    assert masses == sorted(masses)
    last = left["EPOCHS"][-1]
    assert masses[-1] > 5
    assert left["errors_two"][last] < 0.05 < left["errors"][last]
    assert left["torn"].double().mean() < 0.1
    for name in ("von_mises_circle.png", "von_mises_diagnosis.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.cmd
def test_the_quick_start_draws_digits_that_are_no_copies(run_cells):
    left = run_cells("quickstart.py")
    train, samples = left["train"].astype(float), left["samples"]
    assert 5 <= left["low"] < left["dimension"].dimension_ < left["high"] <= 15
    apart = [np.square(train - one).sum((1, 2, 3)).min() for one in samples]
    among = [np.sort(np.square(train - one).sum((1, 2, 3)))[1] for one in train[:16]]
    assert 0 < np.median(apart) < 2 * np.median(among)
    assert left["model"].score(left["test"]) > left["model"].score(left["turned"])


@pytest.mark.cmd
def test_the_table_has_samples_of_its_own_columns(run_cells):
    left = run_cells("tables.py")
    assert left["samples"].dtypes.equals(left["train"].dtypes)
    known = {key: np.array(values["spend"]) for key, values in left["said"].items()}
    assert np.allclose(np.log(known["samples"]), np.log(known["data"]), atol=0.2)
    assert left["model"].score_samples(left["strange"]).argmin() == 2


@pytest.mark.cmd
def test_outliers_are_found_at_the_level_and_about_as_well_as_by_others(run_cells):
    left = run_cells("outliers.py")
    assert left["found"][~left["is_malignant"]].mean() <= 0.1
    areas = {name: roc_auc_score(left["is_malignant"], score) for name, score in left["scores"].items()}
    assert areas["two-step"] >= max(areas.values()) - 0.03


@pytest.mark.cmd
def test_encoders_of_others_are_first_steps(run_cells):
    left = run_cells("own_encoder.py")
    assert left["model"].score(left["test"]) > left["on_plane"]
    assert left["area"] > 0.9


def test_the_diagnosis_of_digits_is_printed_and_drawn(run_cells, tmp_path, capsys):
    left = run_cells("diagnose_your_data.py")
    printed = capsys.readouterr().out
    assert "overfitting: yes" in printed
    assert f"recommended latent_dim: {left['found'].latent_dim}" in printed
    assert left["command"].endswith("--dataset digits --gae-model ae --de-model flow --gae-config latent_dim=auto")
    assert 5 <= left["found"].latent_dim <= 15
    assert (tmp_path / "diagnosis.png").stat().st_size > 10_000


def test_an_array_of_the_readers_own_takes_the_place_of_the_digits(run_cells, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "full.npy", np.random.default_rng(0).normal(size=(400, 2)))
    monkeypatch.setenv("DATA", str(tmp_path / "full.npy"))
    left = run_cells("diagnose_your_data.py")
    assert left["found"].overfitting.verdict == "no"
    assert left["command"].startswith("twostep train-single")
    assert "overfitting: no" in capsys.readouterr().out


def test_every_notebook_is_in_percent_format():
    sources = sorted(NOTEBOOKS.glob("*.py"))
    assert sources
    for source in sources:
        cells = jupytext.read(source).cells
        assert {cell.cell_type for cell in cells} == {"markdown", "code"}
        assert not any(cell.get("outputs") for cell in cells)
