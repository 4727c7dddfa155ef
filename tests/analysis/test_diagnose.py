"""Diagnosis of runs: what is said of which models, in words, in JSON and in a image, and without changing the run."""

import hashlib
import json

import numpy as np
import pytest

from helpers.experiments import asked, trained
from twostep.analysis.diagnose import Family, diagnose_family, diagnose_run
from twostep.analysis.evaluate import evaluate_run
from twostep.analysis.score import score
from twostep.core.files import write_json
from twostep.core.schema import UserError
from twostep.data.batches import subsample
from twostep.diagnosis.dimension.knee import knee_of
from twostep.experiment.load import load_finished
from twostep.experiment.prepare import start

pytestmark = pytest.mark.cmd

CHART = [
    "reconstruction error",
    "cycle error",
    "decoder's Jacobian",
    "smallest singular value",
    "dimension of embeddings",
    "discontinuities (tears)",
    "non-injective regions (folds)",
]
DENSITY = ["thickness of the density", "samples off the support"]
CIRCLE = {"dataset_kwargs": {"n": 600}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("diagnosed")
    made = {
        "two": asked(("ae", "flow"), "von-mises-circle", root, CIRCLE, gae={"latent_dim": 1}, de={"max_epochs": 6}),
        "ae": asked(("ae",), "von-mises-circle", root, CIRCLE),
        "flow": asked(("flow",), "von-mises-circle", root, CIRCLE, model={"max_epochs": 6}),
        "ebm": asked(("ebm",), "8gaussians", root, CIRCLE),
    }
    return {name: trained(request).run.path for name, request in made.items()}


@pytest.fixture(scope="module")
def diagnosed(runs):
    return {name: diagnose_run(path) for name, path in runs.items()}


def names(found):
    return [finding.name for finding in found.findings]


def contents(path):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.rglob("*") if file.is_file()}


def test_each_kind_of_run_gets_its_findings(diagnosed):
    known, training = "likelihood against the true distribution", "likelihood in training"
    assert names(diagnosed["two"]) == [*CHART, *DENSITY, known, training]
    assert names(diagnosed["ae"]) == CHART
    assert names(diagnosed["flow"]) == ["dimension of the data", *DENSITY, known, training]
    assert names(diagnosed["ebm"]) == ["dimension of the data", *DENSITY]


def test_a_density_on_a_circle_is_warned_of_and_one_in_the_plane_is_not(diagnosed):
    alone = {finding.name: finding for finding in diagnosed["flow"].findings}
    assert "latent_dim=1" in alone["dimension of the data"].advice
    assert "measures concentration" in alone["likelihood against the true distribution"].advice
    plane = {finding.name: finding for finding in diagnosed["ebm"].findings}
    assert plane["dimension of the data"].verdict == "good"


def test_a_diagnosis_repeats_itself_and_leaves_the_run_alone(runs, diagnosed):
    before = contents(runs["two"])
    first, second = diagnosed["two"], diagnose_run(runs["two"])
    assert first.to_dict() == second.to_dict()
    assert first.lines() == second.lines()
    assert contents(runs["two"]) == before
    assert diagnose_run(runs["two"], seed=1).to_dict() != first.to_dict()


def test_json_and_image_hold_all(diagnosed, tmp_path):
    found = diagnosed["two"]
    write_json(tmp_path / "diagnosis.json", found.to_dict())
    kept = json.loads((tmp_path / "diagnosis.json").read_text())
    assert [finding["name"] for finding in kept["findings"]] == names(found)
    assert "nan" not in (tmp_path / "diagnosis.json").read_text()
    assert len(kept["likelihood"]) == 6
    found.plot(tmp_path / "plots" / "diagnosis.png")
    assert (tmp_path / "plots" / "diagnosis.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="can't be written"):
        found.plot(tmp_path / "diagnosis.nothing")


def test_images_are_diagnosed(blobs, tmp_path):
    found = diagnose_run(trained(asked(("vae", "flow"), blobs, tmp_path)).run.path)
    units = {"active units"}
    assert set(names(found)) == {*CHART, *DENSITY, *units}
    assert found.decay is not None
    assert found.decay.rms_radius < 100, "of embeddings, not of pixels"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the directory of a run"):
        diagnose_run(tmp_path)


@pytest.mark.parametrize(
    "look", [diagnose_run, lambda path: evaluate_run(path, ("fd",)), lambda path: score(path, path)]
)
def test_what_nothing_has_been_trained_of_is_refused(look, tmp_path):
    run = start(asked(("ae",), "von-mises-circle", tmp_path, CIRCLE)).run
    run.close()
    with pytest.raises(UserError, match="nothing is trained yet"):
        look(run.path)


def test_data_that_have_gone_are_asked_back(tmp_path):
    data = tmp_path / "mine.npy"
    np.save(data, np.random.default_rng(0).normal(size=(60, 2)))
    path = trained(asked(("ae",), str(data), tmp_path)).run.path
    data.unlink()
    with pytest.raises(UserError, match=r"--data PATH"):
        diagnose_run(path)


def test_the_command_prints_and_keeps_what_python_gives(runs, diagnosed, twostep, tmp_path):
    done = twostep("diagnose", str(runs["two"]), "--to", str(tmp_path / "diagnosed"))
    assert done.status == 0
    assert done.out.startswith("".join(f"{line}\n" for line in diagnosed["two"].lines()))
    kept = json.loads((tmp_path / "diagnosed" / "diagnosis.json").read_text())
    assert [finding["name"] for finding in kept["findings"]] == names(diagnosed["two"])
    assert (tmp_path / "diagnosed" / "diagnosis.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def family(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("family")
    made = {size: asked(("ae",), "von-mises-circle", root, CIRCLE, model={"latent_dim": size}) for size in (1, 2)}
    return {size: trained(request).run.path for size, request in made.items()}


def test_runs_of_several_sizes_show_where_more_coordinates_cease_to_help(family, tmp_path):
    found = diagnose_family([family[2], family[1]])
    assert found.sizes == (1, 2)
    assert all(0 < error < 1.5 for error in found.errors)
    assert found.lines()[-1].startswith("no knee")
    write_json(tmp_path / "family.json", found.to_dict())
    found.plot(tmp_path / "family.png")
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG")


def test_a_familys_error_is_that_of_its_autoencoder(family):
    evaluator = load_finished(family[2]).evaluator
    valid, train = subsample(evaluator.splits.valid, 2000), subsample(evaluator.splits.train, 2000)
    gae = evaluator.module.eval()
    left = (valid - gae.decode(gae.encode(valid))).square().sum() / (valid - train.mean(0)).square().sum()
    assert diagnose_family([family[1], family[2]]).errors[1] == pytest.approx(left.item(), rel=1e-4)


def test_families_are_of_one_model_on_the_same_data(runs, family, tmp_path):
    other = trained(asked(("vae",), "von-mises-circle", tmp_path, CIRCLE)).run.path
    without = {**CIRCLE, "make_valid_loader": False}
    blind = trained(asked(("ae",), "von-mises-circle", tmp_path, without)).run.path
    few = trained(asked(("ae",), "von-mises-circle", tmp_path, {"dataset_kwargs": {"n": 500}})).run.path
    for path, message in (
        (other, "is of vae, not of ae"),
        (few, "has other data"),
        (blind, "has other data"),
        (runs["flow"], "has no autoencoder"),
        (runs["ae"], "has latent_dim=2 as another"),
    ):
        with pytest.raises(UserError, match=message):
            diagnose_family([family[2], path])
    with pytest.raises(UserError, match="has no validation rows"):
        diagnose_family([blind, family[2]])


@pytest.mark.parametrize(
    ("errors", "end"), [((0.5, 0.01, 0.009, 0.0085), "knee of the"), ((0.5, 0.2, 0.1, 0.02), "no knee:")]
)
def test_the_knee_of_a_family_is_reported(errors, end, tmp_path):
    found = Family("ae", (1, 2, 3, 4), errors, knee_of((1, 2, 3, 4), errors))
    found.plot(tmp_path / "family.png")
    assert found.lines()[-1].startswith(end)
