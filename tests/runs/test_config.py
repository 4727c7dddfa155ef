"""Configs: what `key=value` strings mean, what files hold, what can change in a run that exists."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostep.core.schema import DataSpec, UserError
from twostep.models import MODELS
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.overrides import config_class, parse_overrides, split_single

SPEC = DataSpec(name="data", shape=(1, 8, 8), size=100, low=0, high=255, discrete=True)
VECTORS = DataSpec(name="data", shape=(20,), size=100, low=-1, high=1)


def single(is_gae=False, **keys):
    return Settings(RunConfig(dataset="digits"), {"model": MODELS["vae"].for_data(SPEC, "gae", **keys)}, is_gae)


def two_step(**keys):
    models = {"gae": MODELS["ae"].for_data(SPEC, "gae"), "de": MODELS["flow"].for_data(VECTORS, "de")}
    return Settings(TwoStepRunConfig(dataset="digits", **keys), models)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("-0.5", -0.5),
        ("True", True),
        ("None", None),
        ("true", "true"),
        ("[1, 2]", [1, 2]),
        ("['fid','loss']", ["fid", "loss"]),
        ("(8,)", (8,)),
        ("{'nearest_k': 5}", {"nearest_k": 5}),
        ("'3'", "3"),
        ('"a b"', "a b"),
        ("adam", "adam"),
        ("2spirals", "2spirals"),
        ("fashion-mnist", "fashion-mnist"),
        ("/abs/path", "/abs/path"),
        ("../a folder/with blanks", "../a folder/with blanks"),
        ("a=b", "a=b"),
        ("'a=b'", "a=b"),
        ("", ""),
        (" adam ", "adam"),
        (" 3 ", 3),
        ("[1, 2", "[1, 2"),
        ("{[]: 1}", "{[]: 1}"),
        ("{{}}", "{{}}"),
        ("os.remove('x')", "os.remove('x')"),
        ("(" * 500, "(" * 500),
    ],
)
def test_values_are_literals_or_else_strings(text, value):
    (parsed,) = parse_overrides([f"key={text}"]).values()
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_every_literal_comes_back(value):
    assert parse_overrides([f"key={value!r}"]) == {"key": value}


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_no_text_is_too_odd(text):
    assert list(parse_overrides([f"key={text}"])) == ["key"]


def test_blanks_around_keys_do_not_count_and_the_last_one_wins():
    assert parse_overrides([" lr =0.1", "lr= 0.2", "k=1"]) == {"lr": 0.2, "k": 1}
    assert parse_overrides([]) == {}


@pytest.mark.parametrize("item", ["lr", "", "=3", " =3"])
def test_what_is_no_pair_is_refused(item):
    with pytest.raises(UserError, match="write key=value"):
        parse_overrides(["k=1", item])


def test_true_and_false_can_be_written_in_small_letters():
    given = parse_overrides(["make_valid_loader=false", "precision=32", "data_root=a folder/data"])
    config = RunConfig.parse({"dataset": "digits", **given}, "the run")
    assert config.make_valid_loader is False
    assert config.precision == "32"
    assert config.data_root == Path("a folder/data").absolute()


def test_one_metric_may_be_written_without_a_list():
    assert TwoStepRunConfig.parse({"dataset": "x", "test_metrics": "loss"}, "the run").test_metrics == ("loss",)
    assert MODELS["ae"].parse({"valid_metrics": "loss"}, "ae").valid_metrics == ("loss",)


def test_a_list_of_metrics_that_lost_its_quotes_to_the_shell_is_reported():
    with pytest.raises(UserError, match="quote each name"):
        MODELS["ae"].parse(parse_overrides(["test_metrics=[loss, fd]"]), "ae")


def test_overrides_of_a_single_run_are_split_between_run_and_model():
    parts = split_single({"lr": 0.1, "seed": 3, "latent_dim": 2, "dataset": "x"}, MODELS["vae"], "vae")
    assert parts == {"run": {"seed": 3, "dataset": "x"}, "model": {"lr": 0.1, "latent_dim": 2}}
    with pytest.raises(UserError, match="sed: no such key of vae; did you mean seed"):
        split_single({"sed": 3}, MODELS["vae"], "vae")


def test_no_key_of_a_run_is_a_key_of_a_model_too():
    for name in MODELS:
        assert set(RunConfig.keys()).isdisjoint(MODELS[name].keys()), name


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (single(), {"config.json"}),
        (single(is_gae=True), {"gae_config.json"}),
        (two_step(data_root="a/b"), {"gae_config.json", "de_config.json", "shared_config.json"}),
    ],
)
def test_settings_come_back_from_their_files(settings, names):
    files = json.loads(json.dumps(settings.files()))
    assert set(files) == names
    assert Settings.from_files(files) == settings


def test_files_with_keys_of_another_version_are_refused():
    files = single().files()
    with pytest.raises(UserError, match="latnt_dim: no such key of vae; did you mean latent_dim"):
        Settings.from_files({"config.json": {**files["config.json"], "latnt_dim": 3}})
    with pytest.raises(UserError, match="no such model"):
        Settings.from_files({"config.json": {**files["config.json"], "name": "what"}})
    with pytest.raises(UserError, match="dataset"):
        Settings.from_files({"config.json": {k: v for k, v in files["config.json"].items() if k != "dataset"}})


def test_adjusting_changes_what_may_change_and_nothing_else():
    before = two_step()
    after = before.adjusted(
        {"run": {"test_metrics": ("log_likelihood",), "data_root": "x"}, "de": {"test_metrics": "loss"}},
        is_image=True,
    )
    assert after.run.test_metrics == ("log_likelihood",)
    assert after.models["de"].test_metrics == ("loss",)
    assert after.models["gae"] == before.models["gae"]
    assert after.run.model_copy(update={"test_metrics": before.run.test_metrics, "data_root": None}) == before.run
    assert before.adjusted({}, is_image=True) == before


def test_what_may_not_change_is_named_with_what_may():
    with pytest.raises(
        UserError, match=r"^lr, latent_dim: can't be changed in a run that exists \(key of vae; .*test_metr"
    ):
        single().adjusted({"model": {"lr": 1.0, "test_metrics": "loss", "latent_dim": 2}}, is_image=True)
    with pytest.raises(UserError, match="latnt_dim: no such key of vae; did you mean latent_dim"):
        single().adjusted({"model": {"latnt_dim": 2}}, is_image=True)
    with pytest.raises(UserError, match="test_batch_size = 0: input should be greater than 0"):
        single().adjusted({"run": {"test_batch_size": 0}}, is_image=True)


def test_keys_that_may_change_exist():
    for config in (RunConfig, TwoStepRunConfig, *(MODELS[name] for name in MODELS)):
        assert config.adjustable <= set(config.model_fields)


def test_models_are_taken_in_roles_that_they_can_play():
    assert config_class("vae", "de") is config_class("vae", "gae")
    with pytest.raises(UserError, match=r"flow is not an autoencoder; these are: ae, avb, .*vae"):
        config_class("flow", "gae")
    with pytest.raises(UserError, match=r"ae is not a density; these are: arm, avb, ebm, flow, fm, gmm, kde, vae"):
        config_class("ae", "de")


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig(dataset="x").seed = 3


@pytest.mark.parametrize("settings", [single(), two_step(dataset_kwargs={"image_size": (8, 8)})])
def test_settings_differ_from_none_that_came_back_from_a_file(settings):
    assert settings.differences(json.loads(json.dumps(settings.files())), True) == []


def test_settings_differ_in_keys_that_may_not_change_and_that_both_have():
    mine = two_step(seed=1)
    files = two_step(seed=2, device="cpu", logdir_root="elsewhere").files()
    files["gae_config.json"] |= {"max_epochs": 3, "test_metrics": [], "latent_dim": 7}
    del files["de_config.json"]["num_layers"]
    mine.models["de"] = mine.models["de"].model_copy(update={"num_layers": 9})
    assert mine.differences(files, True) == [
        "seed of the run is 2 there and 1 here",
        "latent_dim of gae is 7 there and 20 here",
    ]
    (kind,) = mine.differences(single().files(), True)
    assert "config.json" in kind


def test_settings_differ_in_the_model():
    files = single().files()
    files["config.json"] = {
        **MODELS["ae"].for_data(SPEC, "gae").model_dump(mode="json"),
        **single().run.model_dump(mode="json"),
    }
    assert "name of model is 'ae' there and 'vae' here" in single().differences(files, True)
