"""The tables of `twostep models` and `twostep datasets`: every key, with the default that a run would have."""

import json
import re

import numpy as np
import pytest
import readme
import torch

from twostep.cli.output import table
from twostep.cli.tables import dataset_keys, dataset_list, model_keys, model_list, shared_keys
from twostep.data.base import DATASETS
from twostep.data.files import cache
from twostep.models import MODELS
from twostep.runs.config import TwoStepRunConfig


def rows(table):
    """Return the cells of each line, by its first word."""
    return {cells[0]: cells for line in str(table).splitlines() if len(cells := re.split(r"\s{2,}", line.strip())) > 1}


def default(name, dataset, key, role=None):
    return rows(model_keys(name, dataset, role))[key][1]


def test_every_model_is_listed_with_roles_and_summary(twostep):
    table = rows(model_list())
    assert set(table) == {"model", *MODELS}
    assert table["vae"][1:] == ["gae, de", "bound", MODELS["vae"].summary, MODELS["vae"].paper]
    assert [table[name][2] for name in ("ae", "flow", "ebm")] == ["none", "exact", "unnormalised"]
    assert rows(twostep("models").out) == table


def test_the_readme_lists_the_models_that_there_are():
    """If this fails, run `python docs/readme.py`."""
    text = readme.README.read_text()
    assert readme.renewed(text) == text
    assert all(f"| `{name}` |" in text for name in MODELS)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_key_is_listed_with_default_type_and_meaning(name):
    table = rows(model_keys(name, "digits", None))
    keys = set(MODELS[name].model_fields) - {"name"}
    assert set(table) == {"key", *keys}
    assert all(len(table[key]) == 4 for key in keys), [table[key] for key in keys if len(table[key]) != 4]


def test_types_are_written_as_a_user_writes_them():
    table = rows(model_keys("vae", "digits", None))
    assert table["latent_dim"][2] == "int | 'auto'"
    assert table["lr"][2] == "float"
    assert table["flatten"][2] == "bool | None"
    assert table["optimizer"][2] == "'adam' | 'sgd' | 'rmsprop'"
    assert table["encoder_hidden_dims"][1:3] == ["[256]", "list of int"]
    assert table["test_metrics"][1] == "['l2_reconstruction_error', 'loss']"
    assert rows(shared_keys())["dataset_kwargs"][2] == "dictionary"
    assert table["max_grad_norm"][1:3] == ["10.0", "float | None"]


def test_defaults_are_those_for_the_data_and_the_role(twostep, tmp_path):
    assert default("vae", "digits", "encoder_net") == "'mlp'"
    assert default("vae", "cifar10", "encoder_net") == "'cnn'"
    assert default("vae", "embeddings", "whitening_transform", "de") == "True"
    assert default("vae", "digits", "test_metrics", "de") == "['log_likelihood', 'loss']"
    assert default("flow", "embeddings", "hidden_units") == "64"
    assert default("flow", "fashion-mnist", "hidden_units") == "32"
    assert default("flow", "digits", "early_stopping_metric") == "'loss'"
    np.save(tmp_path / "own.npy", np.zeros((20, 3)) + np.arange(20)[:, None])
    assert default("flow", str(tmp_path / "own.npy"), "early_stopping_metric") == "'loss'"
    assert rows(twostep("models", "flow", "--dataset", "embeddings").out) == rows(
        model_keys("flow", "embeddings", None)
    )
    assert rows(twostep("models", "vae", "--dataset", "digits", "--role", "de").out) == rows(
        model_keys("vae", "digits", "de")
    )


def test_listed_defaults_are_those_of_a_run(two_step_run, own_images):
    untouched = ("lr", "whitening_transform", "dequantize", "num_bins", "valid_metrics", "max_grad_norm")
    written = json.loads((two_step_run / "de_config.json").read_text())
    for key in untouched:
        assert default("flow", "embeddings", key) == repr(written[key])
    written = json.loads((two_step_run / "gae_config.json").read_text())
    for key in ("lr", "scale_data", "encoder_net", "dequantize", "test_metrics"):
        assert default("vae", str(own_images), key) == repr(written[key])


def test_every_data_set_is_listed_with_its_shape_and_files(twostep, monkeypatch, tmp_path):
    monkeypatch.setenv("TWOSTEP_DATA", str(tmp_path))
    table = rows(dataset_list())
    for name in DATASETS:
        assert table[name][1] == "x".join(map(str, DATASETS[name].shape))
        assert table[name][3] == DATASETS[name].files
    outcome = twostep("datasets")
    assert outcome.status == 0
    assert outcome.out.rstrip().endswith(f"data_root: {tmp_path}")
    assert table["celeba"][1] == "3x64x64"
    assert {"PATH.npy, PATH.npz", "FOLDER", "OWNER/NAME"} <= set(table)
    assert rows(outcome.out) == table


def test_keys_of_a_data_set_are_listed_with_default_type_and_meaning(twostep):
    for name in DATASETS:
        keys = set(DATASETS[name].keys.model_fields)
        table = rows(dataset_keys(name))
        assert set(table) == ({"key of dataset_kwargs", *keys} if keys else set())
        assert all(len(table[key]) == 4 for key in keys), name
    outcome = twostep("datasets", "klein")
    assert rows(outcome.out)["R"][1:3] == ["2.0", "float"]
    assert twostep("datasets", "digits").out == "digits has no keys\n"
    assert "klien: no such dataset; did you mean klein?" in twostep("datasets", "klien").err


def test_the_cache_is_emptied(twostep, monkeypatch, tmp_path):
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path))
    kept = cache.store(cache.key("x", []), {"train": torch.zeros(250_000, dtype=torch.float32)})
    assert kept.exists()
    outcome = twostep("datasets", "--clear-cache")
    assert (outcome.status, outcome.out) == (0, "removed 1 files, 1 MB\n")
    assert not kept.exists()
    assert twostep("datasets", "--clear-cache").out == "removed 0 files, 0 MB\n"


def test_cells_are_shown_as_they_are_on_one_line():
    cells = ("runs/[bold]x", "runs/[/x]", ":smile:", "x" * 2000)
    assert table(("one", "two", "three", "four"), [cells]).splitlines()[1].split() == list(cells)


def test_keys_of_a_run_are_listed_with_default_type_and_meaning(twostep):
    table = rows(twostep("models", "shared").out)
    assert set(TwoStepRunConfig.model_fields) - {"dataset"} == set(table) - {"key of the run"}
    assert table["train_batch_size"][1:3] == ["128", "int"]


def test_listings_are_records_in_json(twostep):
    listed = json.loads(twostep("models", "--json").out)
    assert {one["model"] for one in listed} == set(MODELS)
    (one,) = [key for key in json.loads(twostep("models", "vae", "--json").out) if key["key"] == "latent_dim"]
    assert one["type"] == "int | 'auto'"
    assert {"digits"} <= {one["dataset"] for one in json.loads(twostep("datasets", "--json").out)}


def test_completion_is_installed_for_the_shell_in_use(twostep, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert twostep("--install-completion", "--shell", "bash").status == 0
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.name.startswith("twostep")]
    assert "train-single" in written.read_text()


def test_own_data_are_described_by_column_or_shape(twostep, tmp_path):
    lines = [f"id{row};{row % 7},5;{'a' if row % 3 else 'b'};{'' if row % 5 else row};x" for row in range(90)]
    (tmp_path / "own.csv").write_text("\n".join(["id;size;plan;count;one", *lines]))
    found = json.loads(twostep("datasets", tmp_path / "own.csv", "--index-column", "id", "--json").out)
    assert [(one["column"], one["kind"], one["missing values"]) for one in found] == [
        ("size", "continuous", ""),
        ("plan", "categorical", ""),
        ("count", "integer", "yes"),
        ("one", "categorical", ""),
    ]
    assert [bool(one["note"]) for one in found] == [False, False, False, True]
    np.save(tmp_path / "own.npy", np.ones((60, 4)) * np.arange(60)[:, None])
    assert "48 training rows of shape 4" in twostep("datasets", tmp_path / "own.npy").out
    assert twostep("datasets", "digits", "--drop", "x").status == 2
