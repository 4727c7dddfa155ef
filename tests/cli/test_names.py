"""The file of names has those of the registries and configs, and a refusal of an unknown one needs no torch."""

import json
import subprocess
import sys

from twostep.cli import names
from twostep.models import MODELS

MISTAKES = (
    (("train", "--dataset", "digits", "--gae-model", "vea", "--de-model", "flow"), "vea: no such model"),
    (("train", "--dataset", "digits", "--gae-model", "flow", "--de-model", "flow"), "flow is not an autoencoder"),
    (("train", "--dataset", "nosuch", "--gae-model", "vae", "--de-model", "flow"), "nosuch: no such data set"),
    (("train-single", "--dataset", "no.npy", "--model", "vae"), "no.npy: no such file"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "latnt_dim=3"), "did you mean latent"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "test_metrics=kidd"), "kidd: no such"),
    (
        ("train-single", "--dataset", "digits", "--model", "vae", "--config", "lr=-1"),
        "lr = -1: input should be greater",
    ),
    (("train-single", "--dataset", "digits", "--model", "vae", "--config", "optimizer=a"), "should be 'adam', 'sgd'"),
    (("train-single", "--dataset", "digits", "--model", "vae", "--latent-dim", "0"), "must be a positive integer"),
    (("encode", "nowhere", "x.npy"), "nowhere: no such directory"),
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


def test_the_file_has_the_names_of_the_code():
    assert names.known() == names.collected(), "run python docs/readme.py"


def test_mistakes_are_refused_without_torch(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps([arguments for arguments, _ in MISTAKES])]
    done = subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True)
    for (arguments, says), (status, error) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert status == 2, (arguments, error)
        assert says in error, arguments
        assert error.count("\n") == 1


def test_defaults_of_every_config_are_of_their_kinds():
    for name, keys in names.known()["models"].items():
        defaults = {key: field.default for key, field in MODELS[name].model_fields.items()}
        kinds = names.kinds_of(keys)
        kinds.parse({key: one for key, one in defaults.items() if key in kinds.model_fields}, name)
        assert len(kinds.model_fields) > len(defaults) / 2
