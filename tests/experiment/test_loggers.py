"""Weights & Biases and MLflow, both offline: the same curves, keys and test results as in the run's own files."""

import json
import sys

import numpy as np
import pytest

from helpers.experiments import asked
from twostep.core.schema import UserError
from twostep.experiment.prepare import resume, start
from twostep.runs.directory import Run


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32))
    return tmp_path / "rows.npy"


@pytest.fixture
def store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = f"file://{tmp_path / 'mlruns'}"
    mlflow.set_tracking_uri(place)
    yield mlflow.MlflowClient(place)
    mlflow.set_tracking_uri(None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_has_the_curves_keys_and_results_of_a_run_that_was_resumed(rows, store, tmp_path):
    keys = {"loggers": ("mlflow",), "train_batch_size": 10}
    experiment = start(asked(("flow",), rows, tmp_path, run=keys, model={"max_epochs": 2, "lr": 0.002}))
    experiment.fit()
    results = experiment.test()["model"]
    experiment.run.close()
    path = experiment.run.path
    identity = json.loads((path / "mlflow.json").read_text())["run_id"]
    found = store.get_run(identity)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == path.name
    assert found.data.params["config.lr"] == "0.002"
    assert found.data.metrics["model/test/log_likelihood"] == results["log_likelihood"].value
    curve = [one.value for one in store.get_metric_history(identity, "model/valid/loss")]
    assert curve == [epoch["valid"]["loss"] for epoch in experiment.trainer.history]
    again = resume(path, max_epochs={"model": 3}, writing=True)
    again.fit()
    again.test()
    again.run.close()
    assert json.loads((path / "mlflow.json").read_text())["run_id"] == identity
    assert len(store.get_metric_history(identity, "model/valid/loss")) == 3
    assert Run.open(path).settings.run.loggers == ("mlflow",)


def test_a_logger_whose_package_is_missing_is_refused_before_there_is_a_run(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("twostep.experiment.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--logger wandb: its package is missing: pip install 'twostep\[wandb\]'"):
        start(asked(("flow",), rows, tmp_path / "runs", run={"loggers": ("wandb",)}))
    assert not (tmp_path / "runs").exists()


@pytest.mark.cmd
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_has_the_curves_and_results_in_one_run(rows, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    experiment = start(asked(("flow",), rows, tmp_path, run={"loggers": ("wandb",)}, model={"max_epochs": 2}))
    experiment.fit()
    experiment.test()
    experiment.run.close()
    (written,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    for name in ("model/valid/loss", "model/test/log_likelihood", "config/max_epochs", experiment.run.path.name):
        assert name.encode() in content, name
    Run.open(experiment.run.path)  # no symbolic link was put into it
