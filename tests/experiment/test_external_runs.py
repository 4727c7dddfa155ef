"""Runs whose first step is a user's own encoder."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import helpers.external
from helpers.experiments import asked, break_off, differences, snapshot, trained
from helpers.external import ALONE, PAIR, alone, pair
from twostep.analysis.diagnose import diagnose_run
from twostep.analysis.score import score
from twostep.core import factories
from twostep.core.schema import UserError
from twostep.experiment.load import load_module, load_run
from twostep.experiment.prepare import resume, start
from twostep.runs.overrides import Request, parse_overrides


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(120, 4)).astype("float32"))
    return path


def request_of(rows, root, module, **gae):
    request = asked(("ae", "flow"), rows, root)
    return Request({"gae": "external", "de": "flow"}, {**request.overrides, "gae": {"module": module, **gae}})


@pytest.fixture(scope="module")
def frozen(rows, tmp_path_factory):
    experiment = trained(request_of(rows, tmp_path_factory.mktemp("frozen"), PAIR))
    experiment.test()
    return experiment


def test_a_frozen_encoder_is_scaled_and_not_trained(frozen):
    gae = frozen.module.gae
    assert [trainer.name for trainer in frozen.trainers] == ["de"]
    with torch.no_grad():
        z = gae.encode(frozen.splits.train)
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=1e-5)
    assert float(z.var(0, unbiased=False).mean()) == pytest.approx(1, rel=1e-4)
    results = frozen.run.read_metrics("test")
    assert set(results["two_step"]) >= {"l2_reconstruction_error", "log_likelihood"}
    assert "loss" not in results["gae"]


def test_a_resumed_run_equals_an_uninterrupted_one(frozen, rows, tmp_path):
    other = start(request_of(rows, tmp_path, PAIR))
    assert break_off(other, "step 5")
    again = resume(other.run.path)
    again.fit()
    again.run.close()
    assert differences(snapshot(frozen), snapshot(again)) == []


def test_no_run_is_opened_by_the_name_in_its_files(frozen, rows, monkeypatch):
    monkeypatch.setattr(factories, "_typed", set())
    path = frozen.run.path
    assert json.loads((path / "gae_config.json").read_text())["module"] == PAIR
    for opened in (load_module, load_run, diagnose_run, resume):
        with pytest.raises(UserError, match=f"--gae-module {PAIR}"):
            opened(path)
    with pytest.raises(UserError, match="another gae"):
        load_module(path, gae=alone(frozen.splits.spec))  # it lacks a decoder, whose weights are there
    module = load_module(path, gae=pair(frozen.splits.spec))
    assert torch.equal(module.gae.shift, frozen.module.gae.shift)
    assert load_run(path, gae=PAIR)["module"].gae.latent_dim == 3
    with factories.given(PAIR):
        assert score(path, rows).columns["p_value"].shape == (120,)
    monkeypatch.setattr(factories, "_typed", set())
    parse_overrides(["module=" + PAIR])
    assert load_module(path).gae.latent_dim == 3


def test_a_trainable_one_is_trained(rows, tmp_path):
    experiment = trained(request_of(rows, tmp_path, PAIR, trainable=True, max_epochs=2, lr=0.01))
    assert [trainer.name for trainer in experiment.trainers] == ["gae", "de"]
    history = experiment.trainers[0].history
    assert history[1]["losses"]["loss"] < history[0]["losses"]["loss"]


def test_an_encoder_alone_keeps_the_metrics_that_it_has(rows, tmp_path, caplog):
    caplog.set_level("INFO", "twostep")
    experiment = trained(request_of(rows, tmp_path, ALONE))
    assert "without l2_reconstruction_error, log_likelihood" in caplog.text
    assert experiment.settings.two_step.test_metrics == ()
    experiment.test()
    experiment.draw()
    columns = score(experiment.run.path, rows).columns
    assert {"log_prob_latent", "p_value"} <= columns.keys()
    assert not {"log_prob", "distance"} & columns.keys()
    assert [one.name for one in diagnose_run(experiment.run.path).findings if "support" in one.name] == []
    overrides = asked(("ae", "flow"), rows, tmp_path, run={"test_metrics": ("fd",)}).overrides
    with pytest.raises(UserError, match="encoder alone"):
        start(Request({"gae": "external", "de": "flow"}, {**overrides, "gae": {"module": ALONE}}))


def test_the_factory_is_called_once(rows, tmp_path, monkeypatch):
    calls = []

    def counted(spec):
        calls.append(spec)
        return pair(spec)

    monkeypatch.setattr(helpers.external, "pair", counted)
    start(request_of(rows, tmp_path, PAIR)).run.close()
    assert len(calls) == 1


def test_nothing_to_train_is_refused(rows, tmp_path):
    overrides = {"run": {"dataset": str(rows), "logdir_root": tmp_path}, "model": {"module": PAIR}}
    with pytest.raises(UserError, match="nothing to train"):
        start(Request({"model": "external"}, overrides, is_gae=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["npy", "csv", "parquet", "json"])
def test_rows_are_encoded(twostep, frozen, rows, tmp_path, ending):
    to = tmp_path / f"z.{ending}"
    outcome = twostep("encode", frozen.run.path, rows, "--to", to, "--gae-module", PAIR, "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out) == {"rows": len(np.load(rows)), "latent_dim": 3, "file": str(to)}
    read = {"npy": np.load, "csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[ending]
    with torch.no_grad():
        expected = frozen.module.gae.encode(torch.as_tensor(np.load(rows)))
    np.testing.assert_allclose(np.asarray(read(to)), expected, rtol=1e-4, atol=1e-5)
    assert twostep("encode", frozen.run.path, rows, "--to", to).status == 2
    assert twostep("encode", frozen.run.path, rows, "--to", tmp_path / "z.txt").status == 2
