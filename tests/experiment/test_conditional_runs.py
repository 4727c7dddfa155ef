"""Runs whose density is conditioned on labels: trained, resumed, tested, loaded, sampled, scored; and refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.experiments import asked, break_off, differences, snapshot, trained
from helpers.image_files import save
from twostep.cli import main
from twostep.core.schema import UserError
from twostep.data.load import load_data
from twostep.experiment.load import load_module
from twostep.experiment.prepare import resume, start
from twostep.metrics.features.classifier import LAST, classifier, train_classifier
from twostep.models.base import evaluating

LABELLED = {"condition": "label", "max_epochs": 2, "test_metrics": ("log_likelihood", "loss", "fd")}
SMALL_BATCH = {"train_batch_size": 32}
RUN = {"train_batch_size": 256, "sequential_training": True}


@pytest.fixture
def folder(tmp_path):
    """Images of two kinds in a folder each: dark cats and bright dogs."""
    random = np.random.default_rng(0)
    for name, level in (("cat", 40), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(random.normal(level, 20, (6, 6)), 0, 255).astype(np.uint8)
            save(tmp_path / "pets" / name / f"{number}.png", pixels)
    return tmp_path / "pets"


def command(*arguments):
    with pytest.raises(SystemExit) as done:
        main([str(one) for one in arguments])
    return done.value.code


def request(dataset, root, de="fm", run=None, gae_epochs=2, **keys):
    de_keys = {**LABELLED, **keys}
    if de == "gmm":
        de_keys = {"condition": "label"}
    return asked(("ae", de), dataset, root, {**RUN, **(run or {})}, gae={"max_epochs": gae_epochs}, de=de_keys)


@pytest.mark.parametrize(
    ("de", "run"), [("fm", {}), ("flow", {"sequential_training": False, "alternate_by_epoch": True})]
)
def test_a_resumed_run_is_the_same_to_the_last_bit(de, run, tmp_path):
    whole = trained(request("digits", tmp_path / "whole", de, run))
    first = start(request("digits", tmp_path / "parts", de, run))
    assert break_off(first, "step 19")  # of 6 in an epoch, two of each model: within the density's second one
    again = resume(first.run.path)
    again.fit()
    again.run.close()
    assert differences(snapshot(whole), snapshot(again)) == []


def test_a_run_of_labelled_images_knows_their_names(folder, tmp_path):
    experiment = trained(request(folder, tmp_path / "runs", "gmm", SMALL_BATCH, gae_epochs=50))
    path = experiment.run.path
    results = experiment.test()
    assert experiment.splits.spec.labels == ("cat", "dog")
    assert json.loads((path / "data.json").read_text())["labels"] == ["cat", "dog"]
    module, test = load_module(path), experiment.splits.test.float()
    with evaluating(module):
        torch.testing.assert_close(module.log_prob(test), experiment.module.log_prob(test))
        mean = float(module.log_prob(test).mean())
        assert results["two_step"]["log_likelihood"].value == pytest.approx(mean, rel=1e-4)
    for flags, levels in (
        (("--label", "dog"), [200, 200]),
        (("--label", "dog", "cat"), [200, 40]),
        (("--label", "all"), [40, 200]),
    ):
        to = tmp_path / "drawn.npy"
        assert command("sample", path, "-n", 80, *flags, "--to", to, "--force") == 0
        np.testing.assert_allclose(np.load(to).reshape(2, -1).mean(1), levels, atol=40)
    for wrong in (("--label", "cow"), ("--guidance", "2")):
        assert command("sample", path, *wrong, "--to", tmp_path / "none.npy") == 2
    assert not (tmp_path / "none.npy").exists()


def test_a_run_from_before_labels_were_named_is_resumed(tmp_path):
    path = trained(request("digits", tmp_path / "runs", "flow", condition=None)).run.path
    facts = json.loads((path / "data.json").read_text())
    assert len(facts.pop("labels")) == 10
    (path / "data.json").write_text(json.dumps(facts))
    assert all(one.finished for one in resume(path).trainers)


def test_a_run_without_the_key_has_no_labels_to_sample(tmp_path, capsys):
    path = trained(request("digits", tmp_path / "runs", "fm", condition=None)).run.path
    assert command("sample", path, "--label", 3, "--to", tmp_path / "x.png") == 2
    assert "condition=label" in capsys.readouterr().err


def test_a_test_measures_the_mixture_of_the_labels_and_the_loss_given_them(folder, tmp_path):
    experiment = trained(request(folder, tmp_path / "runs", run=SMALL_BATCH))
    found = experiment.test()["de"]
    model, splits = experiment.module.de, experiment.splits
    with evaluating(experiment.module):
        z = experiment.module.encode(splits.test.float())
        assert found["log_likelihood"].value == pytest.approx(float(model.log_prob(z).mean()), rel=1e-4)
        torch.manual_seed(0)
        losses = [float(model.objectives()[0].loss(torch.cat([z, splits.test_labels[:, None]], 1))) for _ in range(20)]
    assert found["loss"].value == pytest.approx(np.mean(losses), abs=4 * np.std(losses))
    assert found["fd"].value > 0


def test_a_table_has_the_labels_of_its_target_column(tmp_path):
    random = np.random.default_rng(0)
    kind = random.permutation(np.repeat(["good", "bad"], 100))
    values = random.normal(size=(200, 3)) + 4 * (kind == "good")[:, None]
    frame = pd.DataFrame(values, columns=["a", "b", "c"]).assign(kind=kind)
    frame.to_csv(tmp_path / "table.csv", index=False)
    keys = {"dataset_kwargs": {"target_column": "kind"}}
    model = {"condition": "label", "max_epochs": 1}
    experiment = trained(asked(("gmm",), tmp_path / "table.csv", tmp_path / "runs", keys, model=model))
    assert experiment.splits.spec.labels == ("bad", "good")
    means = [experiment.module.sample(200, torch.Generator().manual_seed(0), y).mean() for y in (0, 1)]
    np.testing.assert_allclose(means, [0, 4], atol=0.3)
    frame.assign(kind=frame["kind"].where(frame.index > 3)).to_csv(tmp_path / "gaps.csv", index=False)
    frame.assign(word=kind).to_csv(tmp_path / "words.csv", index=False)
    for name, message in (("gaps.csv", "without a label"), ("words.csv", "train an autoencoder first")):
        with pytest.raises(UserError, match=message):
            start(asked(("flow",), tmp_path / name, tmp_path / "other", keys, model=model))
    assert not (tmp_path / "other").exists()


def test_what_loses_labels_is_refused(tmp_path):
    for dataset, run, message in (
        ("two_moons", {}, "no labels"),
        ("digits", {"sequential_training": False, "alternate_by_epoch": False}, "alternate_by_epoch"),
    ):
        with pytest.raises(UserError, match=message):
            start(request(dataset, tmp_path / "runs", "flow", run))
    assert not (tmp_path / "runs").exists()


@pytest.mark.cmd
def test_whole_commands_on_digits(tmp_path, monkeypatch):
    """Samples have the label that is asked for, more of them with guidance; other data are out for every label."""
    monkeypatch.chdir(tmp_path)
    models = ("--gae-model", "ae", "--de-model", "fm", "--gae-config", "max_steps=600")
    keys = [
        word
        for key in ("condition=label", "max_steps=1000", "lr=0.003", "hidden_units=64", "num_layers=2", "tolerance=0.1")
        for word in ("--de-config", key)
    ]
    assert command("train", "--dataset", "digits", *models, *keys, "--to", "run") == 0
    assert "log_likelihood" in (tmp_path / "run/metrics/test.json").read_text()
    module, splits = load_module(tmp_path / "run"), load_data("digits")
    state = train_classifier(splits.train, splits.train_labels, 0.0, 16.0)
    features = classifier(state)
    shares = []
    for guidance in (1, 2):
        flags = ("-n", 500, "--label", "all", "--guidance", guidance, "--to", f"{guidance}.npy")
        assert command("sample", "run", *flags) == 0
        drawn = torch.from_numpy(np.load(tmp_path / f"{guidance}.npy"))
        logits = features(drawn) @ state[f"{LAST}.weight"].T + state[f"{LAST}.bias"]
        shares.append(float((logits.argmax(1) == torch.arange(10).repeat_interleave(50)).double().mean()))
    assert shares[0] > 0.5  # by chance 0.1
    assert shares[1] > max(0.7, shares[0])
    assert command("sample", "run", "-n", 20, "--label", 3, 5, "--to", "some.png") == 0
    rows = torch.cat([splits.test[:40].float(), 16 * torch.rand(40, 1, 8, 8)])
    np.save(tmp_path / "rows.npy", rows.numpy())
    assert command("score", "run", "rows.npy", "--to", "scores.csv") == 0
    scores = pd.read_csv(tmp_path / "scores.csv")
    with evaluating(module):
        best = module.de.best_label(module.encode(rows))[0]
    np.testing.assert_allclose(scores["log_prob_latent"], best, atol=0.05)
    assert (scores["verdict"][:40] == "in").mean() > 0.7
    assert (scores["verdict"][40:] == "out").mean() > 0.7
    assert command("evaluate", "run", "--part", "de", "--metrics", "log_likelihood", "loss", "fd") == 0
    assert command("report", "run") == 0
