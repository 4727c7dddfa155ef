"""`--test-ood` from beginning to end: which second data set, what is left in the run, what is refused before it."""

import json
import logging

import numpy as np
import pytest
import torch

from conftest import repeated, single_arguments, two_step_arguments
from experiments import asked
from twostep.data.images import OOD_PARTNERS
from twostep.launch import resume, start
from twostep.metrics import ood
from twostep.runs import Run
from twostep.schema import UserError

FIGURES = [f"likelihood_ood_{name}" for name in ("acc", "auroc", "aupr", "fpr95")]


@pytest.fixture
def others(tmp_path):
    """Give a file of 30 training and 8 test pictures that are half black, 6 x 6, grey."""
    pixels = np.random.default_rng(1).integers(0, 256, (38, 6, 6), dtype=np.uint8)
    pixels[:, :3] = 0
    np.savez(tmp_path / "others.npz", train=pixels[:30], test=pixels[30:])
    return str(tmp_path / "others.npz")


def arrays(run):
    return {path.stem: np.load(path, allow_pickle=False) for path in (run / "ood").glob("*.npy")}


def test_partners_are_mutual():
    assert OOD_PARTNERS == {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}


def test_a_two_step_run_is_tested_with_other_data(twostep, two_step_run, others, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(two_step_run, run)
    before = Run.open(run).read_metrics("test")["two_step"]
    done = twostep("train", "--load-dir", run, "--only-test", "--test-ood", "--shared-config", f"ood_dataset={others}")
    assert done.status == 0, done.err
    results = Run.open(run).read_metrics("test")["two_step"]
    assert list(results) == [*before, *FIGURES, *(f"{name}_low_dim" for name in FIGURES)]
    assert all(results[name] == before[name] for name in before)
    rows = arrays(run)
    assert {key: len(values) for key, values in rows.items()} == {
        f"{score}_{split}": n
        for score in ("log_prob", "log_prob_latent")
        for split, n in zip(ood.SPLITS, (45, 10, 30, 8), strict=True)
    }
    experiment = resume(run, {"run": {"ood_dataset": others}}, test_ood=True)
    module = experiment.module.eval()
    with torch.no_grad():
        expected = module.log_prob_latent(experiment.ood.test.float())
        mine = module.log_prob(experiment.splits.train.float())
    assert np.allclose(rows["log_prob_latent_ood_test"], expected, atol=1e-4)
    assert np.allclose(rows["log_prob_in_train"], mine, atol=1e-3)
    for score, suffix in (("log_prob", ""), ("log_prob_latent", "_low_dim")):
        figures = ood.figures_of({split: rows[f"{score}_{split}"] for split in ood.SPLITS})
        assert results[f"likelihood_ood_auroc{suffix}"].value == figures["auroc"]
        assert results[f"likelihood_ood_acc{suffix}"].value == figures["acc"]
    assert "pictures.npz against" in results[FIGURES[0]].note
    assert "likelihood_ood_auroc_low_dim" in (run / "report.html").read_text()


def test_a_density_alone_is_tested_at_the_end_of_its_training(twostep, own_pictures, others, tmp_path):
    keys = (f"ood_dataset={others}", "max_epochs=1")
    arguments = [*single_arguments(own_pictures, tmp_path / "runs", "vae"), *repeated("--config", keys)]
    assert twostep(*arguments, "--test-ood").status == 0
    (run,) = (tmp_path / "runs").iterdir()
    results = Run.open(run).read_metrics("test")["model"]
    assert [name for name in results if "_ood_" in name] == FIGURES
    assert set(arrays(run)) == {f"log_prob_{split}" for split in ood.SPLITS}
    assert json.loads((run / "config.json").read_text())["ood_dataset"] == others


def test_the_same_data_are_not_told_apart(own_pictures, tmp_path):
    run = {"ood_dataset": str(own_pictures), "make_valid_loader": False}
    experiment = start(asked(("vae", "flow"), own_pictures, tmp_path, run=run), test_ood=True)
    results = experiment.test()["two_step"]
    assert results["likelihood_ood_auroc_low_dim"].value == 0.5
    assert results["likelihood_ood_auroc"].value == pytest.approx(0.5, abs=0.05)


def test_without_the_flag_no_second_set_is_read(own_pictures, tmp_path):
    request = asked(("vae", "flow"), own_pictures, tmp_path, run={"ood_dataset": "nowhere.npy"})
    experiment = start(request)
    assert experiment.ood is None
    assert not [name for name in experiment.test()["two_step"] if "_ood_" in name]
    assert not (experiment.run.path / "ood").exists()


def test_keys_of_the_second_set_are_its_own(tmp_path):
    run = {"ood_dataset": "circles", "ood_dataset_kwargs": {"n": 20}, "dataset_kwargs": {"n": 40}}
    experiment = start(asked(("flow",), "two_moons", tmp_path, run=run), test_ood=True)
    assert (len(experiment.ood.train), len(experiment.splits.train)) == (20, 36)


@pytest.mark.parametrize(
    ("models", "run", "says"),
    [
        (("vae", "flow"), {}, r"^--test-ood: .*pictures\.npz has no usual partner: say ood_dataset=NAME or PATH"),
        (
            ("vae", "flow"),
            {"ood_dataset": "digits"},
            r"^--test-ood: points of digits have the shape 1x8x8 and those of ",
        ),
        (("vae", "flow"), {"ood_dataset": "digitz"}, r"^digitz: no such data set; did you mean digits\?"),
        (("flow",), {"ood_dataset": "none.npy"}, r"/none\.npy: no such file"),
        (("ae",), {"ood_dataset": "self"}, r"^--test-ood: ae has no density: test it with a second step"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_a_directory_is_made(own_pictures, tmp_path, models, run, says):
    run = {key: str(own_pictures) if value == "self" else value for key, value in run.items()}
    with pytest.raises(UserError, match=says):
        start(asked(models, own_pictures, tmp_path / "runs", run=run), test_ood=True)
    assert not (tmp_path / "runs").exists()


def test_the_flag_is_refused_in_one_line_too(twostep, own_pictures, tmp_path):
    done = twostep(*two_step_arguments(own_pictures, tmp_path / "runs"), "--test-ood")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_scale_of_values_is_warned_of(own_pictures, tmp_path, caplog):
    floats = np.random.default_rng(0).random((20, 1, 6, 6), dtype=np.float32)
    np.savez(tmp_path / "floats.npz", train=floats[:15], test=floats[15:])
    request = asked(("vae", "flow"), own_pictures, tmp_path, run={"ood_dataset": str(tmp_path / "floats.npz")})
    with caplog.at_level(logging.WARNING, "twostep"):
        start(request, test_ood=True)
    assert "has values from" in caplog.text
    assert "may tell their units apart" in caplog.text
