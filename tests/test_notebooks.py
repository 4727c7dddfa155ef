"""The notebooks run from beginning to end, on small runs, and draw what they say."""

import runpy
from pathlib import Path

import jupytext
import matplotlib as mpl
import numpy as np
import pytest
import torch

from conftest import only_run, single_arguments
from twostep.loading import load_module

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def executed(twostep, two_step_run, own_pictures, tmp_path, monkeypatch):
    """Give what the cells of `ood_histogram` leave: a flow and a two-step model, against pictures of noise in black."""
    assert twostep(*single_arguments(own_pictures, tmp_path / "runs", "flow")).status == 0
    others = np.random.default_rng(0).integers(0, 30, (12, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "others.npz", train=others[:5], test=others[5:])
    places = {"ONE_STEP": only_run(tmp_path / "runs"), "TWO_STEP": two_step_run, "OOD": tmp_path / "others.npz"}
    for name, value in {**places, "FIGURE": tmp_path / "figure.png"}.items():
        monkeypatch.setenv(name, str(value))
    with mpl.rc_context():
        mpl.use("Agg")
        left = runpy.run_path(str(NOTEBOOKS / "ood_histogram.py"))
        yield left, places
        left["plt"].close("all")


def test_the_histograms_are_densities_of_the_runs_own_scores(executed, own_pictures, tmp_path):
    left, places = executed
    module = load_module(places["TWO_STEP"])
    with torch.no_grad():
        expected = -module.reconstruction_error(torch.tensor(np.load(own_pictures)["test"][:, None]).float())
    assert np.allclose(left["scores"]["two-step"]["reconstruction_error"]["in"], expected, rtol=1e-5)
    assert [len(left["scores"][kind]["log_prob"]["out"]) for kind in ("one-step", "two-step")] == [7, 7]
    for axes in left["panels"]:
        (own, other) = axes.containers
        for bars in (own, other):
            assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["pictures", "others (other)"]
        assert "AUROC" in axes.get_title()
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_every_notebook_is_in_percent_format():
    sources = sorted(NOTEBOOKS.glob("*.py"))
    assert sources
    for source in sources:
        cells = jupytext.read(source).cells
        assert {cell.cell_type for cell in cells} == {"markdown", "code"}
        assert not any(cell.get("outputs") for cell in cells)
