"""The file of names has those of the registries and configs, and a refusal of an unknown one needs no torch."""

import json
import subprocess
import sys

from twostep.cli import names
from twostep.models import MODELS

TRAIN = ("train", "--dataset", "digits", "--gae-model", "vae", "--de-model", "flow")
MISTAKES = (
    (("train", "--dataset", "digits", "--gae-model", "vea", "--de-model", "flow"), "vea: no such model"),
    (("train", "--dataset", "digits", "--gae-model", "flow", "--de-model", "flow"), "flow is not an autoencoder"),
    (("train", "--dataset", "nosuch", "--gae-model", "vae", "--de-model", "flow"), "nosuch: no such dataset"),
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
    ((*TRAIN, "--gae-config", "latent_dim=0"), "latent_dim = 0: input should be greater than 0"),
    ((*TRAIN, "--gae-config", "latent_dim=atuo"), "latent_dim = 'atuo': input should be a valid integer, or auto"),
    ((*TRAIN, "--gae-config", "encoder_kernel_size=[0,3]"), "encoder_kernel_size = [0, 3]: write a positive integer"),
    ((*TRAIN, "--gae-config", "decoder_hidden_dims=[0]"), "decoder_hidden_dims.0 = 0: input should be greater"),
    (
        (*TRAIN, "--gae-config", "metric_kwargs={'gen_sampels': 5}"),
        "gen_sampels: no such key of metric_kwargs",
    ),
    ((*TRAIN, "--shared-config", "dataset_kwargs=5"), "dataset_kwargs = 5: write a dictionary"),
    ((*TRAIN, "--dataset-kwargs", "n=5"), "n: digits has no keys"),
    (("models", "vea"), "vea: no such model"),
    (("datasets", "klien"), "klien: no such dataset; did you mean klein?"),
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
