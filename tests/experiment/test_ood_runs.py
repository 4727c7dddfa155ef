"""`--test-ood` from beginning to end: which second data set, what is left in the run, what is refused before it."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch

from helpers.arguments import repeated, single_arguments, two_step_arguments
from helpers.experiments import asked
from twostep.core.figures import histogram
from twostep.core.schema import UserError
from twostep.data.named import OOD_PARTNERS
from twostep.experiment.prepare import resume, start
from twostep.metrics.ood.detection import auroc
from twostep.runs.directory import Run

SPLITS = ("in_train", "in_valid", "in_test", "ood_train", "ood_test")
RATES = ("false_positive_rate", "detection_rate")
FIGURES = [f"likelihood_ood_{name}" for name in ("acc", "auroc", "aupr", "aupr_out", "fpr95", *RATES)]
WITHOUT_DENSITY = [f"distance_ood_{name}" for name in ("auroc", "aupr", "aupr_out", "fpr95", *RATES)]
RELATIVE = [name.replace("distance", "relative_distance") for name in WITHOUT_DENSITY]
KNN = [name.replace("distance", "knn") for name in WITHOUT_DENSITY]
KNN_LATENT = [f"{name}_low_dim" for name in KNN]
TWO_PART = [name.replace("distance", "two_part") for name in WITHOUT_DENSITY]


@pytest.fixture
def others(tmp_path):
    """Give a file of 30 training and 8 test images that are half black, 6 x 6, grey."""
    pixels = np.random.default_rng(1).integers(0, 256, (38, 6, 6), dtype=np.uint8)
    pixels[:, :3] = 0
    np.savez(tmp_path / "others.npz", train=pixels[:30], test=pixels[30:])
    return str(tmp_path / "others.npz")


def arrays(run):
    return {path.stem: np.load(path, allow_pickle=False) for path in (run / "ood").glob("*.npy")}


def test_partners_are_mutual():
    assert OOD_PARTNERS == {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "svhn": "cifar10", "cifar10": "svhn"}


def test_an_accuracy_among_the_test_metrics_asks_for_the_test(twostep, own_images, others, tmp_path):
    keys = ("test_metrics=['loss', 'likelihood_ood_acc']", f"ood_dataset={others}")
    train = (*single_arguments(own_images, tmp_path / "out", "flow"), *repeated("--config", keys))
    assert twostep(*train).status == 0
    (run,) = (tmp_path / "out").iterdir()
    results = Run.open(run).read_metrics("test")["model"]
    assert 0 <= results["likelihood_ood_acc"].value <= 1
    assert {"loss", *FIGURES, *KNN} == set(results)
    alone = twostep("evaluate", run, "--metrics", "likelihood_ood_acc")
    assert (alone.status, "--ood" in alone.err) == (2, True)
    assert "likelihood_ood_acc" in twostep("evaluate", run, "--metrics", "likelihood_ood_acc", "--ood", others).out
    (run / "metrics" / "test.json").unlink()
    assert twostep("evaluate", run).status == 0
    assert Run.open(run).read_metrics("test")["model"] == results


def test_an_accuracy_is_no_validation_metric(twostep, own_images, others, tmp_path):
    for key in ("valid_metrics=['likelihood_ood_acc']", "early_stopping_metric=likelihood_ood_acc"):
        train = (*single_arguments(own_images, tmp_path / "out", "flow"), "--config", key)
        outcome = twostep(*train, "--config", f"ood_dataset={others}")
        assert (outcome.status, key.partition("=")[0] in outcome.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_two_step_run_is_tested_with_other_data(twostep, two_step_run, others, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr("twostep.experiment.artifacts.histogram", histogram)

    run = tmp_path / "run"
    shutil.copytree(two_step_run, run)
    before = Run.open(run).read_metrics("test")["two_step"]
    done = twostep("train", "--load-dir", run, "--only-test", "--test-ood", "--shared-config", f"ood_dataset={others}")
    assert done.status == 0, done.err
    results = Run.open(run).read_metrics("test")["two_step"]
    low_dim = [f"{name}_low_dim" for name in FIGURES]
    assert list(results) == [*before, *FIGURES, *low_dim, *WITHOUT_DENSITY, *RELATIVE, *KNN, *KNN_LATENT, *TWO_PART]
    assert all(results[name] == before[name] for name in before)
    rows = arrays(run)
    sizes = dict(zip(SPLITS, (45, 5, 10, 30, 8), strict=True))
    scores = (
        "log_prob",
        "log_prob_latent",
        "reconstruction_error",
        "relative_distance",
        "knn",
        "knn_latent",
        "two_part",
    )
    expected = {f"{score}_{split}": n for score in scores for split, n in sizes.items()}
    expected |= {f"p_value_{score}_{split}": sizes[split] for score in scores for split in ("in_test", "ood_test")}
    del expected["two_part_in_valid"]  # half of these rows it was fitted to
    assert {key: len(values) for key, values in rows.items()} == expected
    experiment = resume(run, {"run": {"ood_dataset": others}}, test_ood=True)
    for trainer in experiment.trainers:
        trainer.use_best()
    module, other = experiment.module.eval(), experiment.ood["others"].test.float()
    with torch.no_grad():
        latent, distance = module.log_prob_latent(other), module.reconstruction_error(other)
        mine = module.log_prob(experiment.splits.train.float())
    assert np.allclose(rows["log_prob_latent_ood_test"], latent, atol=1e-4)
    assert np.allclose(rows["reconstruction_error_ood_test"], -distance, rtol=1e-5)
    assert np.allclose(rows["log_prob_in_train"], mine, atol=1e-3)
    figures = ("likelihood_ood_{}", "likelihood_ood_{}_low_dim", "distance_ood_{}", "relative_distance_ood_{}")
    figures = (*figures, "knn_ood_{}", "knn_ood_{}_low_dim", "two_part_ood_{}")
    for score, figure in zip(scores, figures, strict=True):
        result = results[figure.format("auroc")]
        found = auroc(rows[f"{score}_in_test"], rows[f"{score}_ood_test"])
        assert (result.value, result.interval) == (found.value, found.interval)
        alarms = rows[f"p_value_{score}_ood_test"] <= 0.05
        assert results[figure.format("detection_rate")].value == alarms.mean()
    assert "images.npz against" in results[FIGURES[0]].note
    assert "likelihood_ood_auroc_low_dim" in (run / "report.html").read_text()
    assert_score_files(run, scores)


def assert_score_files(run, scores):
    """Check that every array is listed with its shape and checksum, and every score has its image."""
    listed = json.loads((run / "ood" / "scores.json").read_text())
    assert set(listed) == {path.name for path in (run / "ood").glob("*.npy")}
    for name, facts in listed.items():
        path = run / "ood" / name
        assert facts["shape"] == list(np.load(path).shape)
        assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert name == f"{facts['score']}_{facts['split']}.npy"
    images = list((run / "ood").glob("*.png"))
    assert {path.stem for path in images} == set(scores)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in images)


def test_several_sets_are_tested_at_once(own_images, others, tmp_path):
    from twostep.data.load import load_data

    experiment = start(asked(("vae", "flow"), own_images, tmp_path, run={"ood_dataset": others}), test_ood=True)
    experiment.ood = {**experiment.ood, "same": load_data(str(own_images), make_valid=False)}
    results = experiment.test()["two_step"]
    found = {label: [name for name in results if name.endswith(f"@{label}")] for label in ("others", "same")}
    assert [name.replace("@others", "@same") for name in found["others"]] == found["same"]
    assert len(found["same"]) == 2 * len(FIGURES) + len(WITHOUT_DENSITY) + len(RELATIVE) + 2 * len(KNN) + len(TWO_PART)
    rows = arrays(experiment.run.path)
    for label in found:
        area = auroc(rows["two_part_in_test"], rows[f"two_part_ood_test@{label}"])
        assert results[f"two_part_ood_auroc@{label}"].value == area.value
    assert results["distance_ood_auroc@same"].value == 0.5


def test_an_autoencoder_alone_has_its_distance_and_says_that_it_has_no_density(own_images, others, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "twostep"):
        experiment = start(asked(("ae",), own_images, tmp_path, run={"ood_dataset": others}), test_ood=True)
    assert "no density" in caplog.text
    assert [name for name in experiment.test()["model"] if "_ood_" in name] == [
        *WITHOUT_DENSITY,
        *RELATIVE,
        *KNN,
        *KNN_LATENT,
    ]


def test_without_validation_rows_there_are_no_p_values(own_images, others, tmp_path, caplog):
    run = {"ood_dataset": others, "make_valid_loader": False}
    experiment = start(asked(("vae", "flow"), own_images, tmp_path, run=run), test_ood=True)
    assert "no p-values, no two-part score" in caplog.text
    results = experiment.test()["two_step"]
    assert "distance_ood_auroc" in results
    assert not [name for name in results if name.startswith("two_part") or name.endswith(RATES)]
    assert not [name for name in arrays(experiment.run.path) if name.startswith("p_value")]


def test_a_density_alone_is_tested_at_the_end_of_its_training(twostep, own_images, others, tmp_path):
    keys = (f"ood_dataset={others}", "max_epochs=1")
    arguments = [*single_arguments(own_images, tmp_path / "runs", "vae"), *repeated("--config", keys)]
    assert twostep(*arguments, "--test-ood").status == 0
    (run,) = (tmp_path / "runs").iterdir()
    results = Run.open(run).read_metrics("test")["model"]
    assert [name for name in results if "_ood_" in name] == [
        *FIGURES,
        *WITHOUT_DENSITY,
        *RELATIVE,
        *KNN,
        *KNN_LATENT,
    ]  # a VAE reconstructs
    assert {f"log_prob_{split}" for split in SPLITS} < set(arrays(run))
    assert json.loads((run / "config.json").read_text())["ood_dataset"] == others


def test_the_same_data_are_not_separated(own_images, tmp_path):
    run = {"ood_dataset": str(own_images), "make_valid_loader": False}
    experiment = start(asked(("vae", "flow"), own_images, tmp_path, run=run), test_ood=True)
    results = experiment.test()["two_step"]
    assert results["likelihood_ood_auroc_low_dim"].value == 0.5
    assert results["likelihood_ood_auroc"].value == pytest.approx(0.5, abs=0.05)


def test_without_the_flag_no_second_set_is_read(own_images, tmp_path):
    request = asked(("vae", "flow"), own_images, tmp_path, run={"ood_dataset": "nowhere.npy"})
    experiment = start(request)
    assert experiment.ood == {}
    assert not [name for name in experiment.test()["two_step"] if "_ood_" in name]
    assert not (experiment.run.path / "ood").exists()


def test_keys_of_the_second_set_are_its_own(tmp_path):
    run = {"ood_dataset": "circles", "ood_dataset_kwargs": {"n": 20}, "dataset_kwargs": {"n": 40}}
    experiment = start(asked(("flow",), "two_moons", tmp_path, run=run), test_ood=True)
    assert (len(experiment.ood["circles"].train), len(experiment.splits.train)) == (20, 36)


@pytest.mark.parametrize(
    ("models", "run", "says"),
    [
        (("vae", "flow"), {}, r"^OOD test: .*images\.npz has no usual partner: .*ood_dataset=NAME or PATH"),
        (
            ("vae", "flow"),
            {"ood_dataset": "digits"},
            r"^points of digits have the shape 1x8x8 and those of ",
        ),
        (("vae", "flow"), {"ood_dataset": "digitz"}, r"^digitz: no such dataset; did you mean digits\?"),
        (("flow",), {"ood_dataset": "none.npy"}, r"/none\.npy: no such file"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_a_directory_is_made(own_images, tmp_path, models, run, says):
    run = {key: str(own_images) if value == "self" else value for key, value in run.items()}
    with pytest.raises(UserError, match=says):
        start(asked(models, own_images, tmp_path / "runs", run=run), test_ood=True)
    assert not (tmp_path / "runs").exists()


def test_the_flag_is_refused_in_one_line_too(twostep, own_images, tmp_path):
    done = twostep(*two_step_arguments(own_images, tmp_path / "runs"), "--test-ood")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_scale_of_values_is_warned_of(own_images, tmp_path, caplog):
    floats = np.random.default_rng(0).random((20, 1, 6, 6), dtype=np.float32)
    np.savez(tmp_path / "floats.npz", train=floats[:15], test=floats[15:])
    request = asked(("vae", "flow"), own_images, tmp_path, run={"ood_dataset": str(tmp_path / "floats.npz")})
    with caplog.at_level(logging.WARNING, "twostep"):
        start(request, test_ood=True)
    assert "can have values from" in caplog.text
    assert "units" in caplog.text
