"""Measures of a finished run: what they say, where they are kept, and what is refused before anything is computed."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch

from helpers.experiments import asked, trained
from twostep.analysis.evaluate import evaluate_run
from twostep.core.schema import UserError
from twostep.models.ebm import EBM


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate_runed")
    u = torch.rand(300, 1, generator=torch.Generator().manual_seed(0))
    np.save(root / "rows.npy", torch.cat([u, u.square(), 1 - u], 1).numpy())
    np.save(root / "others.npy", 3 + torch.rand(80, 3, generator=torch.Generator().manual_seed(1)).numpy())
    keys = {"gae": {"latent_dim": 1}, "run": {"test_metrics": ("l2_reconstruction_error",)}}
    two = trained(asked(("ae", "flow"), root / "rows.npy", root / "two", **keys))
    one = trained(asked(("ebm",), root / "rows.npy", root / "one"))
    return root, two.run.path, one.run.path


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "run")


def test_results_are_those_of_the_model_and_are_added(run):
    few = {"gen_samples": 100}
    first, path = evaluate_run(run, ("fid", "log_likelihood", "l2_reconstruction_error"), keys=few)
    assert list(first) == ["fd", "log_likelihood", "l2_reconstruction_error", "explained_variance"]
    assert first["fd"].reference is not None
    again, second = evaluate_run(run, ("fd",), keys=few)
    assert again["fd"] == first["fd"], "the same seed gives the same digits"
    other, third = evaluate_run(run, ("fd",), keys=few, seed=9)
    assert other["fd"].value != first["fd"].value
    assert [one.name for one in (path, second, third)] == [f"evaluation-00{number}.json" for number in (1, 2, 3)]
    kept = json.loads(path.read_text())
    assert (kept["part"], kept["seed"], kept["metric_kwargs"]["gen_samples"]) == ("two_step", 0, 100)
    assert kept["results"]["fd"]["value"] == first["fd"].value
    assert len({json.loads(one.read_text())["weights"] for one in (path, second, third)}) == 1


def test_a_part_is_measured_on_what_it_sees(run):
    results, _ = evaluate_run(run, ("log_likelihood", "fd"), part="de", keys={"gen_samples": 60})
    assert results["log_likelihood"].measure == "Lebesgue on R^1"
    assert "standardised features" in results["fd"].note


def test_the_density_of_a_run_is_integrated(run):
    results, _ = evaluate_run(run, part="de", density=True)
    (name,) = results
    assert name == "integral (normalised)"
    assert results[name].value == pytest.approx(1, abs=0.01)


def test_other_data_are_separated_from_the_runs_own(made, run):
    results, first = evaluate_run(run, ood=(str(made[0] / "others.npy"),))
    assert results["distance_ood_auroc"].value > 0.95
    again, second = evaluate_run(run, ood=(str(made[0] / "others.npy"),))
    assert again == results
    kept = [run / "ood" / path.stem / "scores.json" for path in (first, second)]
    assert kept[0] != kept[1]
    assert kept[0].read_text() == kept[1].read_text(), "scores of an evaluation stay as they are"


def test_results_are_shown_before_they_are_written(made, run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    shown = []
    with pytest.raises(UserError, match="can't be written"):
        evaluate_run(run, ood=(str(made[0] / "others.npy"),), show=lambda results: shown.append(dict(results)))
    assert shown[0]["distance_ood_auroc"].value > 0.95
    assert not [path for path in run.rglob("*") if "evaluation" in path.name or path.name.startswith(".")]


def test_the_seed_decides_what_is_drawn_for_other_data(made, run):
    others = (str(made[0] / "others.npy"),)
    (none, _), (own, _), (new, path) = (evaluate_run(run, ood=others, seed=seed) for seed in (None, 0, 9))
    assert none == own
    assert new != own, "halves of the validation rows, and a bootstrap"
    assert json.loads(path.read_text())["seed"] == 9


def test_other_data_of_one_name_are_refused(made, run, tmp_path):
    again = shutil.copy(made[0] / "others.npy", tmp_path)
    with pytest.raises(UserError, match="two of them have one name"):
        evaluate_run(run, ood=(str(made[0] / "others.npy"), str(again)))


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        ({"metrics": ("fd",), "part": "model"}, "--part model: no such part of .*; it has gae, de, two_step"),
        ({"metrics": ("log_likelihood",), "part": "gae"}, "log_likelihood: gae has no such metric: it has no density"),
        ({"part": "gae", "density": True}, "--check-density: gae has no density"),
        ({"metrics": ("fd",), "keys": {"features": "pixel"}}, "features = 'pixel': input should be"),
        ({"metrics": ("fd",), "keys": {"features": "classifier"}}, "has no labels"),
        ({"part": "de", "ood": ("two_moons",)}, "--ood is for the whole model"),
        ({"ood": ("two_moons",)}, "points of two_moons have the shape 2 and those of .* 3"),
        ({"metrics": ("lss",)}, "lss: no such metric; did you mean loss?"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_nothing_is_written(run, questions, says):
    before = sorted(path for path in run.rglob("*") if path.name != "lock")
    with pytest.raises(UserError, match=says.replace("?", r"\?") if says.endswith("?") else says):
        evaluate_run(run, **questions)
    assert sorted(path for path in run.rglob("*") if path.name != "lock") == before


def test_an_energy_gets_its_normaliser_from_both_sides_and_a_likelihood_of_its_own_kind(made, tmp_path, monkeypatch):
    full = EBM.log_normalizer
    monkeypatch.setattr(EBM, "log_normalizer", lambda model, seed, **_: full(model, 50, 40, seed))
    run = shutil.copytree(made[2], tmp_path / "energy")
    results, _ = evaluate_run(run, ("log_likelihood",), density=False)
    unnormalised = results["log_likelihood"]
    assert unnormalised.kind == "unnormalised"
    results, _ = evaluate_run(run, density=True)
    log_z, estimate = results["log_normalizer"], results["log_likelihood"]
    assert (log_z.kind, estimate.kind) == ("estimate", "estimate")
    assert "from below" in log_z.note
    assert "from above" in log_z.note
    assert estimate.value == pytest.approx(unnormalised.value - log_z.value, abs=1e-3)
    assert estimate.standard_error > log_z.standard_error
    monkeypatch.setattr("twostep.experiment.normaliser.MOST_DIM", 64)
    results, _ = evaluate_run(run, ("log_likelihood",))
    assert list(results) == ["log_likelihood", "log_normalizer"]
    assert results["log_likelihood"] == estimate
