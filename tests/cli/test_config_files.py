"""Config files and flags of the most used keys: what they give, what wins, what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from twostep.cli.config_file import read_config_files
from twostep.core.schema import UserError

BASE = {"dataset": "two_moons", "gae_model": "ae", "de_model": "flow", "dataset_kwargs": {"n": 200}}
NEW = ("train", "--dataset", "two_moons", "--gae-model", "ae", "--de-model", "flow")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(twostep):
    """Give a function that returns all keys that a command would train with, and that it makes no run."""

    def call(*arguments):
        outcome = twostep(*arguments, "--print-config", "--json")
        assert outcome.status == 0, outcome.err
        assert not Path("runs").exists()
        return json.loads(outcome.out)

    return call


def write(name, values):
    text = json.dumps(values) if name.endswith("json") else yaml.safe_dump(values)
    Path(name).write_text(text)
    return name


@pytest.mark.parametrize("ending", ["yaml", "json", "toml"])
def test_the_same_keys_from_every_format(ending, printed):
    values = {**BASE, "epochs": 3, "seed": 5, "gae_config": {"latent_dim": 1}}
    if ending == "toml":
        lines = (
            'dataset = "two_moons"\ngae_model = "ae"\nde_model = "flow"\nepochs = 3\nseed = 5\n'
            "[dataset_kwargs]\nn = 200\n[gae_config]\nlatent_dim = 1\n"
        )
        Path("run.toml").write_text(lines)
    else:
        write(f"run.{ending}", values)
    found = printed("train", "--config-file", f"run.{ending}")
    assert (found["gae_model"], found["de_model"]) == ("ae", "flow")
    assert found["shared_config"]["seed"] == 5
    assert found["shared_config"]["dataset"] == "two_moons"
    assert found["gae_config"]["latent_dim"] == 1
    assert found["gae_config"]["max_epochs"] == found["de_config"]["max_epochs"] == 3


def test_flags_win_over_files_and_later_files_over_earlier(printed):
    first = write("a.yaml", {**BASE, "gae_config": {"latent_dim": 2, "max_epochs": 9}, "seed": 1})
    second = write("b.yaml", {"seed": 2, "gae_config": {"lr": 0.5}})
    found = printed("train", "--config-file", first, "--config-file", second, "--epochs", "4", "--latent-dim", "1")
    assert (found["gae_config"]["max_epochs"], found["de_config"]["max_epochs"]) == (4, 4)
    assert (found["gae_config"]["latent_dim"], found["gae_config"]["lr"]) == (1, 0.5)
    assert found["shared_config"]["seed"] == 2


def test_what_is_printed_is_a_config_file(printed, twostep):
    Path("again.yaml").write_text(
        twostep(*NEW, "--seed", "7", "--shared-config", "dataset_kwargs={'n': 200}", "--print-config").out
    )
    first = printed("train", "--config-file", "again.yaml")
    assert first["shared_config"]["seed"] == 7
    assert first == yaml.safe_load(Path("again.yaml").read_text())


def test_the_files_of_a_run_are_config_files(two_step_run, ae_run):
    names, keys = read_config_files([two_step_run], two_step=True)
    stored = {name: json.loads((two_step_run / f"{name}.json").read_text()) for name in keys}
    assert names == {"gae_model": stored["gae_config"].pop("name"), "de_model": stored["de_config"].pop("name")}
    assert keys["gae_config"] == stored["gae_config"]
    assert keys["shared_config"].items() <= stored["shared_config"].items()
    assert read_config_files([two_step_run / "de_config.json"], two_step=True).names == {"de_model": names["de_model"]}
    single = read_config_files([ae_run], two_step=False)
    assert single.names == {"model": "ae", "is_gae": True}
    assert "latent_dim" in single.keys["config"]
    with pytest.raises(UserError, match="a run of `twostep train-single`"):
        read_config_files([ae_run], two_step=True)


def test_numbers_of_yaml_are_numbers():
    Path("x.yaml").write_text("lr: 1e-3\nepochs: 3\nname: vae\n")
    assert read_config_files([Path("x.yaml")], two_step=False).keys["config"] == {"lr": 0.001, "max_epochs": 3}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.ini", "", "give a .yaml, .json or .toml file"),
        ("x.json", "{", "not valid JSON"),
        ("x.yaml", "a: [", "not valid YAML"),
        ("x.toml", "a =", "not valid TOML"),
        ("x.yaml", "- a", "write keys and values"),
        ("x.yaml", "model: vae", "model is for `twostep train-single`"),
        ("x.yaml", "gae_config: 3", "gae_config: write keys and values below it"),
        ("x.yaml", "!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("none.yaml", None, "can't be read"),
        ("x.yaml", "sed: 3", "sed: no such key of the run; did you mean seed?"),
        ("x.yaml", "gae_config: {latnt_dim: 3}", "latnt_dim: no such key of ae; did you mean latent_dim?"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_line(twostep, name, text, says):
    if text is not None:
        Path(name).write_text(text)
    outcome = twostep(*NEW, "--config-file", name)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert says in outcome.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--seed", "1", "--shared-config", "seed=2"), "--seed: not with --shared-config seed=2: give one of them"),
        (("--epochs", "1", "--de-config", "max_epochs=2"), "--epochs: not with --de-config max_epochs=2"),
        (("--epochs", "1", "--shared-config", "max_epochs=2"), "--epochs: not with --shared-config max_epochs=2"),
        (("--latent-dim", "1", "--gae-config", "latent_dim=2"), "--latent-dim: not with --gae-config latent_dim=2"),
        (("--batch-size", "1", "--shared-config", "train_batch_size=2"), "--batch-size: not with"),
        (("--latent-dim", "many"), "must be a positive integer, or auto"),
        (("--to", "."), "exists: give another path by --to"),
    ],
)
def test_a_key_given_twice_is_refused(twostep, flags, says):
    outcome = twostep(*NEW, *flags)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert says in outcome.err


def test_flags_of_new_runs_name_those_of_runs_that_exist(twostep, two_step_run):
    loaded = ("train", "--load-dir", two_step_run)
    assert "--max-epochs-loaded N" in twostep(*loaded, "--epochs", "3").err
    assert "--max-epochs-loaded-de N" in twostep(*loaded, "--de-config", "max_epochs=3").err
    assert "can't be changed in a run that exists" in twostep(*loaded, "--lr", "3").err


def test_one_model_alone_takes_the_same_flags_and_a_directory(twostep):
    given = (
        "--seed",
        "3",
        "--epochs",
        "1",
        "--batch-size",
        "32",
        "--lr",
        "0.002",
        "--config",
        "dataset_kwargs={'n':90}",
    )
    outcome = twostep("train-single", "--dataset", "two_moons", "--model", "flow", *given, "--to", "a/place", "--json")
    assert outcome.status == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["run"] == "a/place"
    assert "log_likelihood" in result["test"]["model"]
    keys = json.loads(Path("a/place/config.json").read_text())
    assert (keys["seed"], keys["max_epochs"], keys["train_batch_size"], keys["lr"]) == (3, 1, 32, 0.002)
