"""What the source declares is what the registries and configs have, and a refusal needs no torch."""

import json
import subprocess
import sys

import pytest

from twostep.cli import declared
from twostep.core.schema import Frozen
from twostep.data.base import DATASETS
from twostep.metrics import METRICS
from twostep.models import MODELS
from twostep.runs.config import RunConfig, TwoStepRunConfig

MISTAKES = (
    (("train", "--dataset", "digits", "--gae-model", "vea", "--de-model", "flow"), "vea: no such model"),
    (("train", "--dataset", "digits", "--gae-model", "flow", "--de-model", "flow"), "flow is not an autoencoder"),
    (("train", "--dataset", "nosuch", "--gae-model", "vae", "--de-model", "flow"), "nosuch: no such data set"),
    (("train-single", "--dataset", "no.npy", "--model", "vae"), "no.npy: no such file"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "latnt_dim=3"), "did you mean latent"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "lr=-1"), "greater than 0"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "test_metrics=kidd"), "kidd: no such"),
    (("train", "--load-dir", "nowhere"), "nowhere: no such directory"),
    (("evaluate", "nowhere"), "nowhere: no such directory"),
    (("sample", "nowhere"), "nowhere: no such directory"),
    (("score", "nowhere", "x.npy"), "nowhere: no such directory"),
    (("report", "nowhere"), "nowhere: no such directory"),
    (("compare", "nowhere"), "nowhere: no such directory"),
    (("models", "vea"), "vea: no such model"),
    (("datasets", "klien"), "klien: no such data set; did you mean klein?"),
)
WITHOUT_TORCH = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # an import of it fails
from twostep.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main(arguments)
        except SystemExit as end:
            found.append([end.code, errors.getvalue()])
assert not {"matplotlib", "pandas", "scipy", "sklearn", "datasets"} & set(sys.modules)
print(json.dumps(found))
"""


def test_names_are_those_of_the_registries():
    for registry in (MODELS, METRICS, DATASETS):
        list(registry)
    assert declared.metric_names() == set(METRICS)
    assert declared.dataset_names() == set(DATASETS)
    roles = declared.model_roles()
    assert set(roles) <= set(MODELS)
    assert roles == {name: MODELS[name].roles for name in roles}
    assert {"vae", "flow", "avb"} <= set(roles)


@pytest.mark.parametrize("name", [*declared.model_roles(), "the run", "a two-step run"])
def test_keys_and_aliases_are_those_of_the_config(name):
    if name in MODELS:
        mine, true = declared.model_keys(name), MODELS[name]
    else:
        mine, true = declared.run_keys(name != "the run"), RunConfig if name == "the run" else TwoStepRunConfig
    assert issubclass(mine, Frozen)
    assert set(mine.keys()) == set(true.keys())


@pytest.mark.parametrize("name", list(declared.model_roles()))
def test_defaults_of_a_config_are_never_refused(name):
    values = {key: field.default for key, field in MODELS[name].model_fields.items() if not field.is_required()}
    declared.model_keys(name).parse(values, name)
    declared.model_keys(name).parse({"test_metrics": "loss", "valid_metrics": ["loss"], "denoising_sigma": None}, name)
    declared.run_keys(True).parse({"dataset": "x", "seed": 3, "precision": 32, "test_metrics": "loss"}, "the run")


def test_mistakes_are_refused_without_torch(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps([arguments for arguments, _ in MISTAKES])]
    done = subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True)
    for (arguments, says), (status, error) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert status == 2, (arguments, error)
        assert says in error, arguments
        assert error.count("\n") == 1
