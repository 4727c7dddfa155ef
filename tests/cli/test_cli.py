"""The commands: what they refuse, and in which words; what they write; what they do when something fails."""

import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from helpers.arguments import SMALL_GAE, only_run, repeated, single_arguments, two_step_arguments
from twostep import cli
from twostep.core import checkpoint, signals
from twostep.core.schema import UserError
from twostep.experiment.experiment import Experiment
from twostep.experiment.progress import Lines
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run

ROOT = Path(__file__).parents[2]
TWO_STEP = ("train", "--dataset", "digits", "--gae-model", "vae", "--de-model", "flow")
CIRCLES = ("train-single", "--dataset", "circles", "--model", "flow")
SINGLE = ("train-single", "--dataset", "digits", "--model", "vae")
COMMANDS = (
    "train",
    "train-single",
    "evaluate",
    "sample",
    "score",
    "encode",
    "diagnose",
    "report",
    "compare",
    "compare-samples",
    "runs",
    "models",
    "datasets",
)
FLAGS_OF_BOTH = {
    *("--dataset", "--load-dir", "--load-best-valid-first", "--max-epochs-loaded", "--only-test", "--test-ood"),
}
FLAGS = {
    "main.py": {
        *("--gae-model", "--de-model", "--gae-config", "--de-config", "--shared-config", "--load-pretrained-gae"),
        *("--freeze-pretrained-gae", "--max-epochs-loaded-gae", "--max-epochs-loaded-de"),
    },
    "single_main.py": {"--model", "--is-gae", "--config"},
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWOSTEP_DATA", raising=False)


@pytest.fixture
def refused(twostep, tmp_path):
    """Give a function that runs a command which must be refused by one line, and returns that line."""

    def call(*arguments):
        outcome = twostep(*arguments)
        assert outcome.status == 2
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.endswith("\n")
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "runs").exists()
        return outcome.err.rstrip("\n")

    return call


@pytest.fixture
def two_step_copy(two_step_run, tmp_path):
    return Path(shutil.copytree(two_step_run, tmp_path / "two_step"))


@pytest.fixture
def ae_copy(ae_run, tmp_path):
    return Path(shutil.copytree(ae_run, tmp_path / "ae"))


def saved(name, array):
    np.save(name, array)
    return name


def metrics(run, name="test"):
    values = json.loads((run / "metrics" / f"{name}.json").read_text())
    return {model: part for model, part in values.items() if model != "weights"}


def epochs(run):
    return {part: len(history) for part, history in metrics(run, "history").items()}


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*TWO_STEP, "--gae-config", "latnt_dim=3"), "latnt_dim: no such key of vae; did you mean latent_dim?"),
        ((*TWO_STEP, "--de-config", "hiden_units=3"), "hiden_units: no such key of flow; did you mean hidden_units?"),
        ((*TWO_STEP, "--shared-config", "sed=3"), "sed: no such key of the run; did you mean seed?"),
        ((*SINGLE, "--config", "latnt_dim=3"), "latnt_dim: no such key of vae; did you mean latent_dim?"),
        ((*SINGLE, "--config", "logdir_rot=x"), "logdir_rot: no such key of vae; did you mean logdir_root?"),
        ((*SINGLE, "--config", "qqqq=1"), "qqqq: no such key of vae; `twostep models vae` lists them"),
        ((*TWO_STEP, "--gae-config", "latent_dim=x"), "latent_dim = 'x': input should be a valid integer"),
        ((*TWO_STEP, "--gae-config", "latent_dim=2.5"), "latent_dim = 2.5: input should be a valid integer"),
        ((*TWO_STEP, "--gae-config", "lr='0.1'"), "lr = '0.1': input should be a valid number"),
        ((*TWO_STEP, "--gae-config", "latent_dim=0"), "latent_dim = 0: input should be greater than 0"),
        ((*TWO_STEP, "--gae-config", "lr=-0.1"), "lr = -0.1: input should be greater than 0"),
        ((*TWO_STEP, "--gae-config", "lr=1e999"), "lr = inf: input should be a finite number"),
        ((*TWO_STEP, "--gae-config", "optimizer=adm"), "optimizer = 'adm': input should be 'adam', 'sgd' or 'rmsprop'"),
        (
            (*TWO_STEP, "--gae-config", "encoder_hidden_dims=[8,0]"),
            "encoder_hidden_dims.1 = 0: input should be greater",
        ),
        ((*TWO_STEP, "--gae-config", "encoder_hidden_dims=8"), r"encoder_hidden_dims = 8: write a list, like \[8\]"),
        (
            (*TWO_STEP, "--shared-config", "metric_kwargs={gen_samples:3}"),
            "metric_kwargs = '{gen_samples:3}': write a dictionary, like",
        ),
        (
            (*CIRCLES, "--config", "dataset_kwargs={'n':10}", "--config", "test_metrics=kid"),
            "kid: needs 4 training rows, test rows and samples, and circles has 9, 2 and 10000: leave it out",
        ),
        ((*TWO_STEP, "--shared-config", "dataset=mnist"), "--dataset: not with the key"),
        ((*SINGLE, "--config", "dataset=mnist"), "--dataset: not with the key"),
        ((*TWO_STEP, "--de-config", "lr=0", "--de-config", "num_bins=0"), "lr = 0: .*; num_bins = 0: "),
        ((*TWO_STEP, "--shared-config", "seed=-1"), "seed = -1: input should be greater than or equal to 0"),
        ((*TWO_STEP, "--shared-config", f"seed={2**64}"), f"seed = {2**64}: input should be less than {2**64}"),
        (("diagnose", "--dataset", "two_moons", "--seed", str(2**64)), "--seed"),
        ((*CIRCLES, "--config", "dataset_kwargs={'n': 10**13}"), "dataset_kwargs = .*: write a dictionary"),
        ((*CIRCLES, "--config", "dataset_kwargs={'n': 10000000000000}"), "circles: n=10000000000000 points of 2 coord"),
        ((*TWO_STEP, "--gae-config", "latent_dim=1000000000"), "latent_dim=1000000000 of vae is more than the 64 coor"),
        (("train-single", "--dataset", "x" * 300, "--model", "vae"), "x" * 300),
        (("train-single", "--dataset", "x" * 300 + ".npy", "--model", "vae"), "x" * 300 + r"\.npy: "),
        (("score", "x" * 300, "y.npy"), "x" * 300),
        ((*TWO_STEP, "--shared-config", "sequential_training=maybe"), "sequential_training = 'maybe': input should be"),
        ((*TWO_STEP, "--shared-config", "freeze_pretrained_gae=True"), "freeze_pretrained_gae: set by a flag"),
        (
            (*TWO_STEP, "--shared-config", "pretrained_gae=x"),
            "pretrained_gae: set by a flag: --load-dir RUN --load-pre",
        ),
        ((*TWO_STEP, "--gae-config", "latent_dim"), "latent_dim: write key=value"),
        ((*TWO_STEP, "--gae-config", "=3"), "=3: write key=value"),
        ((*SINGLE, "--config", "test_metrics=los"), "los: no such metric; did you mean loss?"),
        ((*SINGLE, "--config", "valid_metrics=['loss','los']"), "los: no such metric; did you mean loss?"),
        ((*TWO_STEP, "--shared-config", "test_metrics=['losss']"), "losss: no such metric; did you mean loss?"),
        ((*SINGLE, "--config", "early_stopping_metric=los"), "los: no such metric; did you mean loss?"),
        ((*SINGLE, "--config", "early_stopping_metric=loss", "--config", "make_valid_loader=False"), "validation rows"),
        (
            (*TWO_STEP, "--shared-config", "test_metrics=loss"),
            "loss: a two-step model has no such metric: its two",
        ),
        ((*SINGLE, "--config", "encoder_net=cnn"), "encoder_net and decoder_net differ: set both"),
        ((*SINGLE, "--config", "flatten=False"), "flatten=False: "),
        ((*SINGLE, "--config", "device=cuda:0"), "device = 'cuda:0': input should be 'auto', 'cpu' or 'cuda'"),
        (
            (*SINGLE, "--config", "train_batch_size=1296"),
            "is more than the 1295 training rows of digits: set train_batch",
        ),
        (
            (*TWO_STEP, "--gae-config", "latent_dim=65"),
            "latent_dim=65 of vae is more than the 64 coordinates of digits",
        ),
        ((*TWO_STEP, "--gae-config", "lr=0.1", "latent_dim=3"), "latent_dim=3: belongs to no flag; repeat a flag for"),
        (("train-single", "--dataset", "digts", "--model", "vae"), "digts: no such dataset; did you mean digits?"),
        (("train-single", "--dataset", "zzz", "--model", "vae"), "zzz: no such dataset; known: 1uniform, 2lines,"),
        (("train-single", "--dataset", "digits", "--model", "vea"), "vea: no such model; did you mean vae?"),
        (
            ("train-single", "--dataset", "digits", "--model", "flow", "--is-gae"),
            "flow is not an autoencoder; these are: ae, avb, ",
        ),
        (("train", "--dataset", "digits", "--gae-model", "flow", "--de-model", "vae"), "flow is not an autoencoder"),
        (
            ("train", "--dataset", "digits", "--gae-model", "vae", "--de-model", "ae"),
            "ae is not a density; .* flow, .*vae",
        ),
        (("train", "--datset", "digits"), "--datset.*[Dd]id you mean .*--dataset"),
        (("train", "digits"), "digits"),
        (("train", "--dataset"), "--dataset requires an argument"),
        (("trian",), "trian.*[Dd]id you mean .*train"),
        (("--no-such-flag",), "--no-such-flag"),
        ((*SINGLE, "--gae-config", "lr=1"), "--gae-config"),
        (("train",), "missing: --dataset, --gae-model, --de-model; see --help"),
        (TWO_STEP[:1] + TWO_STEP[3:], "missing: --dataset; see --help"),
        (TWO_STEP[:3] + TWO_STEP[5:], "missing: --gae-model; see --help"),
        (TWO_STEP[:5], "missing: --de-model; see --help"),
        (SINGLE[:3], "missing: --model; see --help"),
        (("train-single",), "missing: --dataset, --model; see --help"),
        ((*TWO_STEP, "--only-test"), "--only-test: only for a run that exists: add --load-dir RUN"),
        ((*SINGLE, "--only-test"), "--only-test: only for a run that exists: add --load-dir RUN"),
        ((*SINGLE, "--load-best-valid-first"), "--load-best-valid-first: only for a run that exists"),
        ((*TWO_STEP, "--max-epochs-loaded-de", "3"), "--max-epochs-loaded-de: only for a run that exists"),
        ((*TWO_STEP, "--max-epochs-loaded", "0"), '"0" for --max-epochs-loaded. Must be >= 1'),
        ((*TWO_STEP, "--max-epochs-loaded", "few"), '--max-epochs-loaded: unable to convert "few" into int'),
        ((*TWO_STEP, "--freeze-pretrained-gae"), "--freeze-pretrained-gae: only with --load-dir RUN --load-pretrained"),
        (("train", "--load-pretrained-gae"), "missing: --load-dir, --de-model; see --help"),
        ((*TWO_STEP, "--load-dir", "x"), "--dataset, --gae-model, --de-model: not with --load-dir"),
        ((*SINGLE, "--is-gae", "--load-dir", "x"), "--dataset, --model, --is-gae: not with --load-dir"),
        (("models", "vea"), "vea: no such model; did you mean vae?"),
        (("models", "flow", "--role", "gae"), "flow is not an autoencoder"),
        (("models", "vae", "--role", "x"), "--role"),
        (("models", "vae", "--dataset", "digts"), "digts: no such dataset; did you mean digits?"),
        (("models", "vae", "--dataset", "none.npy"), "none.npy: no such file"),
        (("sample",), "RUN|run"),
        (("sample", "x", "-n", "0"), '"0" for -n. Must be >= 1'),
    ],
)
def test_mistakes_get_one_line_that_says_what_to_do(refused, arguments, says):
    line = refused(*arguments)
    assert re.search(says.replace("?", r"\?") if says.endswith("?") else says, line), line


@pytest.mark.parametrize(
    ("model", "config", "says"),
    [
        ("ae", "test_metrics=fid", "fd: ae has no such metric: it does not sample: train a density on it"),
        (
            "vae",
            "early_stopping_metric=memorisation",
            "early_stopping_metric=memorisation of vae is not a single value",
        ),
        ("vae", "metric_kwargs={'features':'inceptoin'}", "metric_kwargs.features = 'inceptoin': input should be"),
        ("vae", "metric_kwargs={'gen_samples':0}", "metric_kwargs.gen_samples = 0: input should be greater than 0"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused_before_training(refused, model, config, says):
    assert says in refused("train-single", "--dataset", "digits", "--model", model, "--config", config)


def test_features_that_data_do_not_have_are_refused_before_training(refused):
    for features, says in (
        ("classifier", "features=classifier: two_moons has no labels "),
        ("efficientnet-lite0", "features=efficientnet-lite0: two_moons has no images"),
        ("inception", "features=inception: two_moons has no images"),
    ):
        keys = ("--config", "test_metrics=fd", "--config", f"metric_kwargs={{'features':'{features}'}}")
        assert refused("train-single", "--dataset", "two_moons", "--model", "flow", *keys).startswith(says)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"row 1, column 1 is nan"),
        (np.array([[np.inf, 2.0], [3.0, 4.0]]), r"row 0, column 0 is inf"),
        (np.zeros((0, 3)), r"is empty \(shape 0 x 3\)"),
        (np.zeros((1, 1, 6, 6)), "too few rows"),
        (np.array([{"a": 1}], dtype=object), "cannot be read as plain arrays"),
        (np.zeros((9, 8, 8, 5), dtype=np.uint8), "accepted are"),
        (np.ones((30, 3)), "all rows are equal"),
    ],
)
def test_unsuitable_own_data_are_refused(refused, array, says):
    line = refused("train-single", "--dataset", saved("own.npy", array), "--model", "vae")
    assert line.startswith(f"{Path.cwd()}/own.npy: ")
    assert re.search(says, line), line


def test_missing_and_damaged_sets_are_refused(refused, tmp_path):
    arguments = ("train-single", "--dataset", "mnist", "--model", "vae", "--config", f"data_root={tmp_path}/data")
    line = refused(*arguments)
    assert line.startswith("mnist: put train-*.parquet and test-*.parquet, or ")
    assert f"into {tmp_path}/data/mnist" in line
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "data" / "mnist" / f"{split}-0.parquet").write_bytes(b"PAR1 no more")
    assert "train-0.parquet: damaged or incomplete parquet file" in refused(*arguments)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_images_of_odd_sizes_train(twostep, net):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 7), dtype=np.uint8)
    nets = (f"encoder_net={net}", f"decoder_net={net}", "encoder_hidden_channels=[2]", "decoder_hidden_channels=[2]")
    outcome = twostep(*single_arguments(saved("odd.npy", pixels), "out", "vae"), *repeated("--config", nets))
    assert (outcome.status, outcome.err) == (0, "")
    assert metrics(only_run("out"))["model"]["loss"]["n"] == 8


def test_a_cnn_refuses_vectors(refused):
    vectors = saved("own.npy", np.random.default_rng(0).random((30, 3)))
    nets = ("encoder_net=cnn", "decoder_net=cnn")
    line = refused(*single_arguments(vectors, "out"), *repeated("--config", nets))
    assert line.startswith("a cnn needs images; ")
    assert f"{vectors} has points of shape (3,)" in line
    assert not Path("out").exists()


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_run_directory_that_cannot_be_made_is_refused(refused, own_images, root):
    Path("file").write_text("")
    assert refused(*single_arguments(str(own_images), root)).startswith(
        f"logdir_root={root}: can't make a run directory"
    )


def test_debug_shows_where_a_mistake_was_found(twostep):
    outcome = twostep("--debug", *TWO_STEP, "--gae-config", "latnt_dim=3")
    assert outcome.status == 2
    assert outcome.err.startswith("latnt_dim: no such key of vae")
    assert "Traceback (most recent call last)" in outcome.err
    assert "early.py" in outcome.err


def test_what_was_measured_is_printed_though_the_disk_is_full(twostep, two_step_copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run = two_step_copy
    before = metrics(run)
    monkeypatch.setattr("os.fsync", full)
    outcome = twostep("evaluate", run, "--metrics", "l2_reconstruction_error")
    assert outcome.status == 2
    assert outcome.out.startswith("metric ")
    assert outcome.err == f"{run}/metrics/evaluation-001.json: can't be written (No space left on device)\n"
    monkeypatch.setattr("twostep.runs.directory.Run.record", lambda *_: None)
    outcome = twostep("evaluate", run)
    line = f"{run}/metrics/test.json: can't be written (No space left on device); resume with: twostep train"
    assert (outcome.status, outcome.err) == (3, f"{line} --load-dir {run} --only-test\n")
    assert "test two_step: l2_reconstruction_error" in outcome.out
    assert metrics(run) == before


# --- run directories


def test_what_is_no_run_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for command in (("train", "--load-dir"), ("train-single", "--load-dir"), ("evaluate",), ("sample",), ("report",)):
        assert refused(*command, "nowhere").startswith("nowhere: no such directory")
        assert refused(*command, "file").startswith("file: no such directory")
        assert refused(*command, "empty").startswith("empty: not the directory of a run")
    pretrained = ("train", "--load-pretrained-gae", "--de-model", "flow", "--load-dir")
    assert refused(*pretrained, "empty").startswith("empty: not the directory of a run")


def test_runs_of_the_other_kind_are_refused(refused, two_step_run, ae_run, twostep, own_images):
    assert "is a two-step run: use main.py" in refused("train-single", "--load-dir", two_step_run)
    assert "use single_main.py" in refused("train", "--load-dir", ae_run)
    assert "--load-pretrained-gae" in refused("train", "--load-dir", ae_run)
    pretrained = ("train", "--load-pretrained-gae", "--de-model", "flow", "--load-dir")
    assert "not a run of an autoencoder alone" in refused(*pretrained, two_step_run)
    assert twostep(*single_arguments(str(own_images), "out", "flow")).status == 0
    assert "not a run of an autoencoder alone" in refused(*pretrained, only_run("out"))


def test_a_run_without_checkpoints_is_not_tested_as_if_it_were_trained(refused, two_step_copy, ae_copy):
    for path, command in ((two_step_copy, "train"), (ae_copy, "train-single")):
        shutil.rmtree(path / "checkpoints")
        (path / "checkpoints").mkdir()
        before = (path / "metrics" / "test.json").read_bytes()
        for line in (refused(command, "--load-dir", path, "--only-test"), refused("evaluate", path)):
            assert "no checkpoint" in line
        assert (path / "metrics" / "test.json").read_bytes() == before


def test_damaged_configs_are_refused(refused, two_step_copy):
    config = two_step_copy / "gae_config.json"
    whole = config.read_text()
    config.write_text(whole[:30])
    assert f"{config}: damaged or incomplete JSON file" in refused("evaluate", two_step_copy)
    config.write_text(whole.replace('"latent_dim"', '"latnt_dim"'))
    assert "latnt_dim: no such key of vae" in refused("evaluate", two_step_copy)
    config.write_text(whole.replace('"latent_dim": 2', '"latent_dim": 3'))
    assert "latent_dim of gae is 2 there and 3 here" in refused("evaluate", two_step_copy)
    config.unlink()
    assert "not the directory of a run" in refused("evaluate", two_step_copy)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_other_with_a_warning(twostep, refused, two_step_copy, damage):
    latest, best = (two_step_copy / "checkpoints" / f"{tag}.safetensors" for tag in ("latest", "best_valid"))
    damage(latest)
    outcome = twostep("train", "--load-dir", two_step_copy, "--only-test")
    assert outcome.status == 0
    assert outcome.err.startswith(f"{latest}: ")
    assert "taking best_valid.safetensors instead" in outcome.err
    quiet = twostep("train", "--load-dir", two_step_copy, "--only-test", "--load-best-valid-first")
    assert (quiet.status, quiet.err) == (0, "")
    damage(best)
    if damage is not Path.unlink:
        line = refused("train", "--load-dir", two_step_copy, "--only-test")
        assert f"{latest}: damaged" in line
        assert f"{best}: damaged" in line
        assert "start a new run without --load-dir" in line
    line = refused("sample", two_step_copy)
    assert str(latest) in line


def test_overrides_beside_load_dir_apply_or_are_refused_by_name(twostep, refused, two_step_copy, tmp_path):
    loaded = ("train", "--load-dir", two_step_copy, "--only-test")
    for flag, key, value in (
        ("--gae-config", "latent_dim", 3),
        ("--gae-config", "lr", 0.1),
        ("--gae-config", "max_epochs", 9),
        ("--de-config", "num_bins", 3),
        ("--shared-config", "seed", 1),
        ("--shared-config", "train_batch_size", 8),
        ("--shared-config", "logdir_root", tmp_path),
    ):
        line = refused(*loaded, flag, f"{key}={value}")
        assert line.startswith(f"{key}: can't be changed in a run that exists"), line
    assert "latnt_dim: no such key of vae; did you mean latent_dim?" in refused(*loaded, "--gae-config", "latnt_dim=3")
    assert "fid" not in refused(*loaded, "--gae-config", "test_metrics=fit").partition(";")[0]
    before = metrics(two_step_copy)
    given = ("test_metrics=['l2_reconstruction_error']", "test_batch_size=3", "data_root=elsewhere")
    outcome = twostep(
        *loaded,
        *repeated("--shared-config", given),
        "--gae-config",
        "k=50",
        "--gae-config",
        "test_metrics=['log_likelihood']",
    )
    assert outcome.status == 0, outcome.err
    after = metrics(two_step_copy)
    assert set(before["gae"]) == {"l2_reconstruction_error", "explained_variance", "loss"}
    assert set(after["gae"]) == {"log_likelihood", *before["gae"]}, "what the same weights had already is kept"
    assert set(after["two_step"]) == set(before["two_step"])
    assert set(after["de"]) == set(before["de"])
    assert after["two_step"]["l2_reconstruction_error"]["value"] == pytest.approx(
        before["two_step"]["l2_reconstruction_error"]["value"], rel=1e-5
    )
    one_sample = twostep(*loaded, "--gae-config", "test_metrics=['log_likelihood']")
    assert one_sample.status == 0
    assert metrics(two_step_copy)["gae"]["log_likelihood"]["value"] < after["gae"]["log_likelihood"]["value"]


def test_shared_keys_are_those_of_both_models_but_for_their_own(twostep, refused, two_step_run, own_images):
    shared = ("max_epochs=2", "early_stopping_metric=loss", "max_bad_valid_epochs=7", "max_grad_norm=2.0")
    run = (*shared, "valid_metrics=['loss']", "train_batch_size=16", "logdir_root=out")
    gae = (*SMALL_GAE[:3], "max_epochs=1")
    outcome = twostep(
        *("train", "--dataset", own_images, "--gae-model", "vae", "--de-model", "flow"),
        *repeated("--shared-config", run),
        *repeated("--gae-config", gae),
        *repeated("--de-config", ("hidden_units=4", "num_layers=1", "max_grad_norm=0.5")),
    )
    assert outcome.status == 0, outcome.err
    path = only_run("out")
    stored = {part: json.loads((path / f"{part}_config.json").read_text()) for part in ("gae", "de")}
    assert epochs(path) == {"gae": 1, "de": 2}
    assert (stored["gae"]["max_grad_norm"], stored["de"]["max_grad_norm"]) == (2.0, 0.5)
    for config in stored.values():
        assert (config["early_stopping_metric"], config["max_bad_valid_epochs"]) == ("loss", 7)
        assert config["valid_metrics"] == ["loss"]
    line = refused("train", "--load-dir", two_step_run, "--shared-config", "max_epochs=9")
    assert line.startswith("max_epochs: can't be changed")
    assert "--max-epochs-loaded" in line
    assert refused("train", "--load-dir", path, "--shared-config", "valid_metrics=nonsense").startswith("nonsense: ")


def test_overrides_of_a_loaded_single_run(twostep, refused, ae_copy):
    loaded = ("train-single", "--load-dir", ae_copy, "--only-test")
    for key in ("latent_dim", "train_batch_size"):
        assert refused(*loaded, "--config", f"{key}=4").startswith(f"{key}: can't be changed in a run that exists")
    assert "log_likelihood: ae has no such metric" in refused(*loaded, "--config", "test_metrics=log_likelihood")
    before = metrics(ae_copy)
    assert twostep(*loaded, "--config", "test_metrics=loss").status == 0
    assert metrics(ae_copy) == before


def test_data_that_changed_are_refused(refused, twostep, own_images):
    mine = shutil.copy(own_images, "mine.npz")
    assert twostep(*single_arguments(mine, "out")).status == 0
    np.savez(mine, train=np.eye(6, dtype=np.uint8).repeat(30, 0).reshape(-1, 6, 6), test=np.zeros((10, 6, 6), np.uint8))
    assert "does not hold the data" in refused("evaluate", only_run("out"))


def test_epoch_limits_of_a_loaded_run(twostep, two_step_copy):
    assert epochs(two_step_copy) == {"gae": 2, "de": 2}
    assert twostep("train", "--load-dir", two_step_copy, "--max-epochs-loaded-de", 3).status == 0
    assert epochs(two_step_copy) == {"gae": 2, "de": 3}
    outcome = twostep("train", "--load-dir", two_step_copy, "--max-epochs-loaded-gae", 3)
    assert outcome.status == 0
    assert "raise --max-epochs-loaded-de too" in outcome.err
    assert epochs(two_step_copy) == {"gae": 3, "de": 3}
    assert twostep("train", "--load-dir", two_step_copy, "--max-epochs-loaded", 4).status == 0
    assert epochs(two_step_copy) == {"gae": 4, "de": 4}


@pytest.mark.parametrize("by_epoch", [None, True, False])
def test_only_test_does_not_train_in_any_order_of_training(twostep, two_step_copy, own_images, by_epoch):
    run = two_step_copy
    if by_epoch is not None:
        in_turns = ("sequential_training=False", f"alternate_by_epoch={by_epoch}")
        assert twostep(*two_step_arguments(own_images, "out"), *repeated("--shared-config", in_turns)).status == 0
        run = only_run("out")
    latest = run / "checkpoints" / "latest.safetensors"
    before = latest.read_bytes(), latest.stat().st_mtime_ns
    (run / "metrics" / "test.json").unlink()
    outcome = twostep("train", "--load-dir", run, "--only-test", "--max-epochs-loaded", 5)
    assert outcome.status == 0
    assert "epoch" not in outcome.out
    assert "tested after 2 of 5 epochs" in outcome.err
    assert (latest.read_bytes(), latest.stat().st_mtime_ns) == before
    assert set(metrics(run)) == {"gae", "de", "two_step"}


def test_a_pretrained_autoencoder_is_trained_further_or_frozen(twostep, refused, ae_run):
    pretrained = ("train", "--load-dir", ae_run, "--load-pretrained-gae", "--de-model", "vae")
    small = [
        *repeated("--de-config", SMALL_GAE),
        *repeated("--shared-config", ("train_batch_size=16", "logdir_root=out")),
    ]
    frozen = (*pretrained, "--freeze-pretrained-gae")
    assert "--max-epochs-loaded-gae: conflicts with --freeze" in refused(*frozen, "--max-epochs-loaded-gae", 3)
    both = (*pretrained, "--max-epochs-loaded-de", 3, "--de-config", "max_epochs=3")
    assert "--max-epochs-loaded-de: conflicts" in refused(*both)
    assert "--only-test: the density is new" in refused(*pretrained, "--only-test")
    assert "--gae-model: not with --load-dir" in refused(*pretrained, "--gae-model", "ae")
    before = weights(ae_run, "model.best.")
    outcome = twostep(*frozen, *small)
    assert (outcome.status, outcome.err) == (0, "")
    first = only_run("out")
    assert epochs(first) == {"de": 2}
    assert same(weights(first, "gae.model."), before)
    assert (
        twostep(
            *frozen,
            *repeated("--shared-config", ["logdir_root=as_a_flag", "train_batch_size=16"]),
            *repeated("--de-config", [key for key in SMALL_GAE if "max_epochs" not in key]),
            "--max-epochs-loaded-de",
            1,
        ).status
        == 0
    )
    assert epochs(only_run("as_a_flag")) == {"de": 1}
    further = twostep("train", "--load-dir", first, "--max-epochs-loaded-gae", 3)
    assert (further.status, "is frozen and is not trained further" in further.err) == (2, True)
    shutil.rmtree("out")
    assert twostep(*pretrained, *small, "--max-epochs-loaded-gae", 3).status == 0
    second = only_run("out")
    assert epochs(second) == {"gae": 3, "de": 2}
    assert not same(weights(second, "gae.model."), before)
    assert same(weights(ae_run, "model.best."), before)


def weights(run, prefix, tag="latest"):
    tensors = load_file(run / "checkpoints" / f"{tag}.safetensors")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def same(first, second):
    return first.keys() == second.keys() and len(first) > 0 and all(np.array_equal(first[k], second[k]) for k in first)


# --- when something fails


def test_a_full_disk_ends_training_with_one_line(twostep, own_images, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "serialize", full)
    outcome = twostep(*single_arguments(str(own_images), "out"))
    run = only_run("out")
    line = f"{run}/checkpoints/best_valid.safetensors: can't be written (No space left on device); resume with: twostep"
    assert (outcome.status, outcome.err) == (3, f"{line} train-single --load-dir {run}\n")
    assert (only_run("out") / "stderr").read_text() == outcome.err


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_checkpoint(twostep, ae_copy, monkeypatch):
    monkeypatch.setattr("twostep.training.optim.set_rate", lambda rule, _: rule.param_groups[0].update(lr=1e38))
    latest = ae_copy / "checkpoints" / "latest.safetensors"
    before = latest.read_bytes()
    outcome = twostep("train-single", "--load-dir", ae_copy, "--max-epochs-loaded", 9)
    assert outcome.status == 3
    assert outcome.err.count("\n") == 1
    assert re.search(r"^model: the loss of ae is (nan|inf) at step \d+ \(epoch 3, training rows \[\d+, ", outcome.err)
    assert outcome.err.rstrip().endswith("the last checkpoint is intact")
    assert latest.read_bytes() == before
    assert twostep("evaluate", ae_copy).status == 0


def test_nothing_is_said_of_what_was_saved_where_nothing_was(twostep, own_images, monkeypatch):
    monkeypatch.setattr("twostep.training.optim.set_rate", lambda rule, _: rule.param_groups[0].update(lr=1e38))
    outcome = twostep(*single_arguments(str(own_images), "out"))
    assert outcome.status == 3
    assert re.search(r"^model: the loss of ae is (nan|inf) at step \d+ \(epoch 1, ", outcome.err)
    assert "saved" not in outcome.err


def test_a_validation_loss_that_is_not_finite_ends_training(twostep, own_images, monkeypatch):
    monkeypatch.setattr("twostep.experiment.evaluator.Evaluator.validate", lambda *_: {"loss": float("inf")})
    outcome = twostep(*single_arguments(str(own_images), "out"))
    assert outcome.status == 3
    assert outcome.err.startswith("model: the validation loss of ae is inf after epoch 1; ")
    assert outcome.err.count("\n") == 1


def test_a_crash_is_logged_in_full_in_the_run_too(own_images, monkeypatch, twostep):
    def crash(*_):
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(Lines, "epoch", crash)
    outcome = twostep(*single_arguments(str(own_images), "out"))
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError: by accident" in outcome.err
    assert (only_run("out") / "stderr").read_text() == outcome.err


@pytest.mark.parametrize("number", signals.ENDING)
def test_an_interrupted_run_is_resumed_by_the_command_that_it_names(twostep, own_images, monkeypatch, number):
    whole = two_step_arguments(str(own_images), "whole")
    assert twostep(*whole).status == 0
    epoch = Lines.epoch
    with monkeypatch.context() as patched:
        patched.setattr(Lines, "epoch", lambda *given: (epoch(*given), os.kill(os.getpid(), number)))
        outcome = twostep(*two_step_arguments(str(own_images), "with a blank"))
    assert outcome.status == 128 + number
    run = only_run("with a blank")
    name = signal.Signals(number).name
    assert outcome.err == f"interrupted by {name}; resume with: twostep train --load-dir '{run}'\n"
    assert not (run / "metrics" / "test.json").exists()
    resumed = twostep(*shlex.split(outcome.err.partition(": twostep ")[2]))
    assert (resumed.status, resumed.err) == (0, "")
    assert metrics(run) == metrics(only_run("whole"))
    assert same(weights(run, ""), weights(only_run("whole"), ""))


def test_a_second_signal_stops_at_once(twostep, own_images, monkeypatch):
    steps, before = [], signal.getsignal(signal.SIGINT)

    def twice(*_):
        steps.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        steps.append(1)

    monkeypatch.setattr(Lines, "step", twice)
    outcome = twostep(*single_arguments(str(own_images), "out"))
    assert (outcome.status, len(steps)) == (130, 1)
    assert "resume with: twostep train-single --load-dir out/" in outcome.err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_while_a_run_is_tested_names_what_resumes(twostep, own_images, monkeypatch, number):
    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "test", lambda *_: signal.raise_signal(number))
        outcome = twostep(*single_arguments(str(own_images), "out"))
    run = only_run("out")
    name = signal.Signals(number).name
    assert outcome.status == 128 + number
    assert outcome.err == f"interrupted by {name}; resume with: twostep train-single --load-dir {run}\n"
    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "test", lambda *_: signal.raise_signal(number))
        outcome = twostep("train-single", "--load-dir", run, "--only-test")
    line = f"interrupted by {name}; resume with: twostep train-single --load-dir {run} --only-test\n"
    assert (outcome.status, outcome.err) == (128 + number, line)


@pytest.mark.parametrize("number", signals.ENDING)
@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("twostep.data.load.read_arrays", ("train-single", "--dataset", "own.npy", "--model", "vae")),
        ("twostep.data.load.read_arrays", ("diagnose", "--dataset", "own.npy")),
        ("twostep.experiment.evaluator.Evaluator.measure", ("evaluate", "RUN", "--metrics", "l2_reconstruction_error")),
        ("twostep.experiment.load.build", ("sample", "RUN", "-n", "3")),
    ],
)
def test_a_signal_elsewhere_is_one_line_that_names_the_command(twostep, ae_run, monkeypatch, number, place, arguments):
    saved("own.npy", np.random.default_rng(0).random((30, 3)))
    words = [str(ae_run) if word == "RUN" else word for word in arguments]
    monkeypatch.setattr(place, lambda *_, **__: signal.raise_signal(number))
    before = [signal.getsignal(one) for one in signals.ENDING]
    outcome = twostep(*words)
    line = f"interrupted by {signal.Signals(number).name}; run it again with: {shlex.join(['twostep', *words])}\n"
    assert (outcome.status, outcome.err) == (128 + number, line)
    assert [signal.getsignal(one) for one in signals.ENDING] == before


# --- ranks, memory, names


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x: must be a number"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK=x: must be a number"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "-1"}, "LOCAL_WORLD_SIZE=-1: must be a number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 WORLD_SIZE=2 LOCAL_WORLD_SIZE=1: inconsistent"),
        ({"WORLD_SIZE": "0"}, "RANK=0 WORLD_SIZE=0 LOCAL_WORLD_SIZE=1: inconsistent"),
    ],
)
def test_variables_of_a_launcher_that_make_no_sense_are_refused(refused, own_images, monkeypatch, variables, says):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert refused(*single_arguments(str(own_images), "runs")).startswith(says)


def test_a_rank_without_others_is_the_first(twostep, own_images, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    outcome = twostep(*single_arguments(str(own_images), "out"))
    assert (outcome.status, outcome.err) == (0, "")
    assert "test model: " in outcome.out


def test_more_ranks_than_gpus_are_refused(refused, own_images, monkeypatch):
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    arguments = [word for word in single_arguments(str(own_images), "runs") if word != "device=cpu"][:-1]
    assert refused(*arguments).startswith("4 ranks on a machine with 2 GPUs")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4 TB")]
)
def test_too_little_memory_is_one_line(twostep, monkeypatch, error):
    monkeypatch.setattr("twostep.experiment.resolve.load_data", lambda *_, **__: (_ for _ in ()).throw(error))
    outcome = twostep(*SINGLE)
    assert (outcome.status, outcome.err.count("\n")) == (3, 1)
    assert outcome.err.startswith("not enough memory")


@pytest.mark.cmd
@pytest.mark.parametrize("name", ["costs $1 or $2^", b"caf\xe9".decode("utf-8", "surrogateescape"), "x" * 251])
def test_names_of_every_kind_train_test_and_are_drawn(twostep, name):
    rows = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    own, other = (str(saved(f"{name[:249]}{kind}.npy", rows + kind)) for kind in (0, 1))
    keys = ("--config", f"ood_dataset={other}")
    arguments = single_arguments(own, "out", "flow")
    outcome = twostep(*arguments, *keys, "--test-ood")
    assert (outcome.status, outcome.err) == (0, "")
    run = only_run("out")
    assert (run / "ood" / "log_prob.png").is_file()
    assert "To reproduce" in (run / "report.html").read_text()
    assert twostep("diagnose", "--dataset", own).status == 0


# --- help, words


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once_without_torch(command):
    program = (
        "import sys\nfrom twostep.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: twostep {command}" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_a_terminal_without_a_sign_gets_its_number(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    monkeypatch.setenv("TWOSTEP_DATA", "/±")
    with pytest.raises(SystemExit) as ended:
        cli.main(["datasets"])
    assert ended.value.code == 0
    assert written.getvalue().endswith(b"data_root: /\\xb1\n")


@pytest.mark.parametrize("script", FLAGS)
def test_the_scripts_have_every_flag(script):
    done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, env=environment())
    assert done.returncode == 0
    shown = set(re.findall(r"(?<!\S)--[a-z-]+", done.stdout))
    assert shown >= FLAGS[script] | FLAGS_OF_BOTH
    assert shown.isdisjoint(*(flags for other, flags in FLAGS.items() if other != script))


def environment():
    """Return this environment, in which the scripts run by this interpreter."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("single_main.py", "--modle", "ae"), r".*--modle.*--model.*\n"),
        pytest.param(
            ("main.py", *TWO_STEP[1:], "--gae-config", "latnt_dim=3"),
            r"latnt_dim: no such key of vae; .* latent_dim\?\n",
            marks=pytest.mark.cmd,
        ),
    ],
)
def test_the_scripts_refuse_in_one_line_too(tmp_path, arguments, says):
    done = subprocess.run([ROOT / arguments[0], *arguments[1:]], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(says, done.stderr), done.stderr
    assert not any(tmp_path.iterdir())


def test_version(twostep):
    outcome = twostep("--version")
    assert outcome.status == 0
    assert re.fullmatch(r"twostep \d+\.\d+\.\d+\S*\n", outcome.out)


def test_quiet_says_nothing_and_verbose_says_more(twostep, own_images):
    arguments = single_arguments(str(own_images), "out")
    normal, quiet, verbose = twostep(*arguments), twostep(*arguments, "-q"), twostep("-v", *arguments)
    assert [outcome.status for outcome in (normal, quiet, verbose)] == [0, 0, 0]
    assert (quiet.out, quiet.err) == ("", "")
    assert "model ae: epoch 2/2: loss " in normal.out
    assert "encoder_hidden_dims=(8,)" not in normal.out
    assert "encoder_hidden_dims=(8,)" in verbose.out
    assert "train_batch_size=16" in verbose.out
    assert len(verbose.out.splitlines()) > len(normal.out.splitlines())


def test_only_the_first_of_several_ranks_gives_information(twostep, refused, monkeypatch):
    monkeypatch.setattr(cli, "SECONDS_FOR_FIRST_RANK", 0.0)
    for rank, said in ((0, "removed 0 files, 0 MB\n"), (1, "")):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        assert twostep("datasets", "--clear-cache").out == said
    assert refused("train").startswith("missing: ")


def test_a_rank_reports_its_mistake_when_the_first_has_had_its_time(refused, monkeypatch):
    waited = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    refused("train")
    assert waited == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert refused("train").startswith("missing: ")
    assert waited == [cli.SECONDS_FOR_FIRST_RANK]


# --- a run's directory: who writes there, and what it says


def files(run):
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_run_that_another_process_writes_is_refused_untouched(refused, twostep, two_step_copy):
    other = Run.open(two_step_copy)
    other.claim()
    before = files(two_step_copy)
    for arguments in (("train", "--load-dir", two_step_copy), ("evaluate", two_step_copy)):
        assert refused(*arguments) == f"{two_step_copy}: another process writes into it; wait until it ends, or stop it"
    assert files(two_step_copy) == before
    assert twostep("sample", two_step_copy, "--to", "samples.npy").status == 0
    other.close()
    assert twostep("evaluate", two_step_copy).status == 0
    assert twostep("evaluate", two_step_copy).status == 0, "a command gives up its claim"


def test_a_run_that_cannot_be_written_is_refused(refused, two_step_copy, ae_copy, monkeypatch):
    access = os.access
    fixed = {two_step_copy / "stderr", two_step_copy, ae_copy / "metrics"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in fixed and access(path, mode))
    before = files(two_step_copy)
    for arguments in (("train", "--load-dir", two_step_copy), ("evaluate", two_step_copy), ("evaluate", ae_copy)):
        assert "can't be written, and this command writes into the run's directory" in refused(*arguments)
    assert files(two_step_copy) == before


def test_a_refused_command_leaves_no_claim_and_no_note(refused, twostep, two_step_copy):
    latest = two_step_copy / "checkpoints" / "latest.safetensors"
    for path in latest.parent.iterdir():
        path.rename(path.with_suffix(".away"))
    latest.write_bytes(b"damaged")
    refused("evaluate", two_step_copy)
    assert "later" not in Run.open(two_step_copy).read_environment()
    for path in latest.parent.glob("*.away"):
        path.rename(path.with_suffix(".safetensors"))
    assert twostep("evaluate", two_step_copy).status == 0
    assert len(Run.open(two_step_copy).read_environment()["later"]) == 1


def test_a_raised_limit_is_what_the_directory_says(twostep, two_step_copy):
    assert twostep("train", "--load-dir", two_step_copy, "--max-epochs-loaded-de", 3).status == 0
    assert json.loads((two_step_copy / "gae_config.json").read_text())["max_epochs"] == 2
    assert json.loads((two_step_copy / "de_config.json").read_text())["max_epochs"] == 3
    assert "&#34;max_epochs&#34;: 3" in (two_step_copy / "report.html").read_text()
    outcome = twostep("train", "--load-dir", two_step_copy, "--max-epochs-loaded", 1)
    assert outcome.status == 0
    assert "gae: has had 2 epochs already" in outcome.out
    assert "de: has had 3 epochs already" in outcome.out
    assert epochs(two_step_copy) == {"gae": 2, "de": 3}
    assert json.loads((two_step_copy / "de_config.json").read_text())["max_epochs"] == 3


# --- evaluate, sample


def test_evaluate_tests_again(twostep, refused, two_step_copy, ae_copy):
    before = metrics(two_step_copy)
    (two_step_copy / "metrics" / "test.json").unlink()
    (two_step_copy / "report.html").unlink()
    assert twostep("evaluate", two_step_copy).status == 0
    assert metrics(two_step_copy) == before
    assert (two_step_copy / "report.html").exists()
    assert twostep("evaluate", two_step_copy, "--de-config", "test_metrics=loss").status == 0
    assert metrics(two_step_copy) == before
    assert "--config is for a single model" in refused("evaluate", two_step_copy, "--config", "test_metrics=loss")
    assert "single model: use --config" in refused("evaluate", ae_copy, "--gae-config", "test_metrics=loss")
    assert twostep("evaluate", ae_copy, "--config", "test_metrics=loss").status == 0


def test_samples_are_written_in_three_ways_and_follow_the_seed(twostep, two_step_run):
    for name in ("one.npy", "two.npy", "one.npz", "one.png", "new/one.npy"):
        assert twostep("sample", two_step_run, "-n", 8, "--to", name, "--seed", 3).status == 0
    assert twostep("sample", two_step_run, "-n", 8, "--to", "other.npy", "--seed", 4).status == 0
    one = np.load("one.npy")
    assert one.shape == (8, 1, 6, 6)
    assert np.isfinite(one).all()
    assert np.array_equal(one, np.load("two.npy"))
    assert np.array_equal(one, np.load("one.npz")["samples"])
    assert np.array_equal(one, np.load("new/one.npy"))
    assert not np.array_equal(one, np.load("other.npy"))
    with Image.open("one.png") as image:
        assert image.size == (
            20 * 10,
            20 * 10,
        )  # 3 x 3 tiles of 6 pixels and a line between, magnified to 56 at least
        assert image.mode == "L"


def test_samples_that_cannot_be_are_refused(refused, twostep, two_step_run, ae_run, tmp_path):
    assert refused("sample", two_step_run, "--to", "new/x.jpg").startswith("new/x.jpg: write to a .png, ")
    assert not (tmp_path / "new").exists()
    assert "does not sample" in refused("sample", ae_run)
    assert "--seed" in refused("sample", two_step_run, "--seed", 2**64)
    (tmp_path / "file").write_text("")
    for name in ("file/x.npy", "file/x.png", "file/x.npz"):
        assert refused("sample", two_step_run, "--to", name).startswith(f"{name}: can't be written")
    vectors = saved("vectors.npy", np.random.default_rng(0).normal(size=(60, 3)))
    assert twostep(*single_arguments(vectors, "out", "flow")).status == 0
    run = only_run("out")
    assert refused("sample", run).startswith("samples.png: ")
    assert twostep("sample", run, "--to", "x.npy", "-n", 5).status == 0
    assert np.load("x.npy").shape == (5, 3)


def test_every_command_of_the_app_is_tested_for_its_help():
    assert {name for name in cli.app if not name.startswith("-")} == set(COMMANDS)


# ---- links inside of a run


@pytest.mark.parametrize("name", ["metrics", "samples", "checkpoints"])
def test_nothing_is_written_through_a_link_to_a_folder(refused, two_step_copy, tmp_path, name):
    outside = (two_step_copy / name).rename(tmp_path / "outside")
    (two_step_copy / name).symlink_to(outside, target_is_directory=True)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    for command in (("evaluate", two_step_copy), ("train", "--load-dir", two_step_copy), ("report", two_step_copy)):
        assert f"{name}: is a symbolic link" in refused(*command)
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


@pytest.mark.parametrize("name", ["stdout", "lock", "report.html", "dimension.json", "samples/samples.png"])
def test_no_file_is_written_or_shown_through_a_link(refused, two_step_copy, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("of the reader alone")
    (two_step_copy / name).unlink(missing_ok=True)
    (two_step_copy / name).symlink_to(secret)
    for command in (("evaluate", two_step_copy), ("report", two_step_copy), ("sample", two_step_copy)):
        assert f"{name}: is a symbolic link" in refused(*command)
    assert secret.read_text() == "of the reader alone"


def test_a_run_may_itself_be_reached_by_a_link(twostep, two_step_copy, tmp_path):
    (tmp_path / "link").symlink_to(two_step_copy, target_is_directory=True)
    assert twostep("report", tmp_path / "link").status == 0


# ---- files that are there


def test_no_file_is_replaced_unless_forced(twostep, refused, two_step_run, own_images):
    np.save("rows.npy", np.load(own_images)["test"])
    np.save("circle.npy", np.random.default_rng(0).normal(size=(60, 2)))
    for command, files in (
        (("sample", two_step_run, "--to", "x.npy", "-n", 3), ["x.npy"]),
        (("score", two_step_run, "rows.npy", "--to", "x.csv"), ["x.csv"]),
        (("diagnose", "--dataset", "circle.npy", "--to", "d"), ["d/diagnosis.json", "d/diagnosis.png"]),
    ):
        for file in files:
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text("mine")
        assert refused(*command).startswith(f"{files[0]}: exists")
        assert [Path(file).read_text() for file in files] == ["mine"] * len(files)
        assert twostep(*command, "--force").status == 0
        assert all(Path(file).read_bytes() != b"mine" for file in files)


def test_what_cannot_be_written_is_refused_before_the_work(refused, two_step_run, monkeypatch, tmp_path):
    for work in ("analysis.score.load_finished", "diagnosis.diagnose", "models.two_step.TwoStep.sample"):
        monkeypatch.setattr(f"twostep.{work}", lambda *_, **__: pytest.fail("the work was begun"))
    np.save("circle.npy", np.zeros((60, 2)))
    Path("file").touch()
    for command in (
        ("sample", two_step_run, "--to", "file/x.npy"),
        ("score", two_step_run, "circle.npy", "--to", "file/x.csv"),
        ("diagnose", "--dataset", "circle.npy", "--to", "file/d"),
    ):
        assert "can't be written" in refused(*command)


def test_a_diagnosis_is_printed_and_kept_though_its_figure_fails(twostep, monkeypatch):
    np.save("circle.npy", np.random.default_rng(0).normal(size=(60, 2)))

    def fails(*_):
        raise UserError("no figure")

    monkeypatch.setattr("twostep.diagnosis.diagnosis.Diagnosis.plot", fails)
    outcome = twostep("diagnose", "--dataset", "circle.npy", "--to", "d")
    assert (outcome.status, outcome.err) == (2, "no figure\n")
    assert outcome.out.startswith("intrinsic dimension")
    assert json.loads(Path("d/diagnosis.json").read_text())


def test_many_samples_are_drawn_in_blocks(twostep, two_step_run, monkeypatch):
    assert twostep("sample", two_step_run, "-n", 7, "--to", "whole.npy").status == 0
    sizes = []
    drawn = TwoStep.sample
    monkeypatch.setattr("twostep.cli.show.AT_ONCE", 3)
    monkeypatch.setattr(TwoStep, "sample", lambda self, n, generator=None: sizes.append(n) or drawn(self, n, generator))
    assert twostep("sample", two_step_run, "-n", 7, "--to", "blocks.npy").status == 0
    assert sizes == [3, 3, 1]
    assert np.load("blocks.npy").shape == np.load("whole.npy").shape
