"""From a request to results: what is refused, what a loaded run does, what the test set is for."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.experiments import asked, break_off, differences, snapshot, trained
from twostep import load_module, load_run
from twostep.core import checkpoint
from twostep.core.checkpoint import CheckpointError
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import Batches
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.load import load_finished
from twostep.experiment.prepare import resume, start
from twostep.models.two_step import TwoStep
from twostep.runs.overrides import Request
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- what is refused before anything is made

STOP = {"early_stopping_metric": "loss"}
WRONG = {
    "a misspelt key": ({"de": {"hiden_units": 4}}, "hiden_units: no such key of flow; did you mean hidden_units?"),
    "a wrong type": ({"gae": {"latent_dim": "two"}}, "latent_dim = 'two': "),
    "out of range": ({"run": {"train_batch_size": 0}}, "train_batch_size = 0: "),
    "a misspelt metric": ({"de": {"valid_metrics": ("los",)}}, "los: no such metric; did you mean loss?"),
    "samples of an autoencoder": ({"gae": {"test_metrics": ("fid",)}}, "fd: ae has no such metric: it does not sample"),
    "a metric of others": (
        {"de": {"test_metrics": ("l2_reconstruction_error",)}},
        "l2_reconstruction_error: flow has no",
    ),
    "stopping by a metric of others": (
        {"gae": {"early_stopping_metric": "log_likelihood"}},
        "log_likelihood: ae has no such metric: it has no density",
    ),
    "stopping by no metric": ({"gae": {"early_stopping_metric": "lss"}}, "lss: no such metric; did you mean loss?"),
    "a metric of one model for both": (
        {"run": {"test_metrics": ("loss",)}},
        "loss: a two-step model has no such metric",
    ),
    "stopping without validation rows": (
        {"gae": STOP, "run": {"make_valid_loader": False}},
        "early_stopping_metric=loss of ae needs validation rows, and the test rows are not for that",
    ),
    "stopping the density without validation rows": (
        {"de": STOP, "run": {"make_valid_loader": False}},
        "early_stopping_metric=loss of flow needs validation rows",
    ),
    "a batch larger than the set": (
        {"run": {"train_batch_size": 46}},
        "train_batch_size=46 is more than the 45 training rows of ",
    ),
    "an unknown data set": ({"run": {"dataset": "digitz"}}, "digitz: no such dataset; did you mean digits?"),
    "a file that is not there": ({"run": {"dataset": "none.npy"}}, f"{Path.cwd()}/none.npy: no such file"),
    "a network that contradicts": ({"gae": {"flatten": False}}, "flatten=False: "),
    "bins where there are none": ({"de": {"dequantize": True}}, "dequantize=True: embeddings of "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_leaves_no_directory(own_images, tmp_path, case):
    changes, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        start(asked(("ae", "flow"), own_images, tmp_path / "runs", **changes))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("models", [("flo",), ("ae", "ae"), ("flow", "flow"), ("ebmm",)])
def test_models_that_cannot_be_are_refused(own_images, tmp_path, models):
    parts = ("model",) if len(models) == 1 else ("gae", "de")
    run = {"dataset": str(own_images), "logdir_root": tmp_path / "runs"}
    with pytest.raises(UserError):
        start(Request(dict(zip(parts, models, strict=True)), {"run": run}))
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_root_is_one_line(own_images, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"logdir_root=.*file: can't make a run directory there"):
        start(asked(("ae",), own_images, tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_more_ranks_than_rows_of_a_batch_are_refused(own_images, tmp_path, monkeypatch):
    class Three(Engine):
        def __init__(self, *given):
            super().__init__(*given)
            self.world_size = 3

    monkeypatch.setattr("twostep.experiment.prepare.Engine", Three)
    for key in ("train_batch_size", "valid_batch_size", "test_batch_size"):
        with pytest.raises(
            UserError, match=r"^3 ranks are more than there are rows in a split \(5\) or in a batch \(2\)"
        ):
            start(asked(("ae",), own_images, tmp_path / "runs", run={key: 2}))
    assert not (tmp_path / "runs").exists()


def test_a_default_of_early_stopping_is_left_out_without_validation_rows(own_images, tmp_path):
    for make_valid, expected in ((True, "loss"), (False, None)):
        request = asked(("ae", "flow"), own_images, tmp_path, run={"make_valid_loader": make_valid})
        request.overrides["de"].pop("early_stopping_metric")
        assert start(request).settings.models["de"].early_stopping_metric == expected


# ---- a run from beginning to end


@pytest.mark.parametrize("models", [("ae",), ("vae",), ("flow",), ("ae", "flow"), ("vae", "vae")])
def test_a_run_leaves_results_curves_and_images(own_images, tmp_path, models):
    request = asked(models, own_images, tmp_path)
    if models == ("vae", "vae"):
        request.overrides["de"].pop("latent_dim")
    experiment = trained(request)
    results = experiment.test()
    experiment.draw()
    experiment.run.close()
    path = experiment.run.path
    parts = {"model"} if len(models) == 1 else {"gae", "de", "two_step"}
    assert results.keys() == parts
    assert experiment.run.read_metrics("test") == results
    assert {result.n for part in results.values() for result in part.values()} == {10}
    history = experiment.run.read_history()
    assert {part: len(epochs) for part, epochs in history.items()} == dict.fromkeys(parts - {"two_step"}, 4)
    images = {"samples.png", "reconstructions.png"}
    if models == ("ae",):
        images = {"reconstructions.png"}
    elif models == ("flow",):
        images = {"samples.png"}
    assert {file.name for file in (path / "samples").iterdir()} == images
    assert not [file for file in path.rglob("*") if "tmp" in file.name.removeprefix(path.name)]


def test_results_are_those_of_the_metrics_asked_for(own_images, tmp_path):
    changes = {
        "gae": {"test_metrics": ("loss", "l2_reconstruction_error", "loss")},
        "de": {"test_metrics": ()},
        "run": {"test_metrics": ("log_likelihood",)},
    }
    results = trained(asked(("vae", "flow"), own_images, tmp_path, **changes)).test()
    assert {part: list(found) for part, found in results.items()} == {
        "gae": ["loss", "l2_reconstruction_error", "explained_variance"],
        "de": [],
        "two_step": ["log_likelihood"],
    }
    assert results["two_step"]["log_likelihood"].measure == "volume of the learned manifold"


@pytest.mark.parametrize("name", ["wae", "bigan"])
def test_an_autoencoder_with_a_prior_is_tested_by_its_samples_as_in_the_reference(name, own_images, tmp_path):
    few = {"preset": "reference", "max_epochs": 1, "metric_kwargs": {"gen_samples": 40, "features": "pca"}}
    experiment = trained(asked((name,), own_images, tmp_path, model=few))
    results = experiment.test()["model"]
    assert list(results)[:2] == ["fd", "l2_reconstruction_error"], "fid, as it is called without Inception's weights"
    assert results["fd"].n == len(experiment.splits.test), "as many samples as test rows, which are fewer than 40"


def test_the_density_is_tested_on_embeddings_of_test_rows(own_images, tmp_path):
    experiment = trained(asked(("ae", "flow"), own_images, tmp_path))
    result = experiment.test()["de"]["log_likelihood"]
    with torch.no_grad():
        z = experiment.module.gae.eval().encode(experiment.splits.test.float())
        logs = experiment.module.de.eval().log_prob(z)
    assert result.value == pytest.approx(logs.mean().item(), rel=1e-5)


def test_the_best_weights_are_tested(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path, model={**STOP, "lr": 0.1}))
    trainer = experiment.trainer
    values, kept = iter([3.0, 1.0, 2.0, 2.0]), []
    trainer.validate = lambda *_: (kept.append(weights(trainer.model)), {"loss": next(values)})[1]
    experiment.fit()
    error = experiment.test()["model"]["l2_reconstruction_error"].value
    assert same(weights(trainer.model), kept[1])
    again = resume(experiment.run.path)
    assert again.test()["model"]["l2_reconstruction_error"].value == error


def test_an_unfinished_run_says_so_when_it_is_tested(own_images, tmp_path, caplog):
    experiment = start(asked(("ae",), own_images, tmp_path))
    assert break_off(experiment, "epoch model 2")
    resume(experiment.run.path).test()
    assert "model: tested after 2 of 4 epochs" in caplog.text


def test_test_figures_that_are_not_finite_are_warned_of(own_images, tmp_path, caplog):
    experiment = trained(asked(("ae", "flow"), own_images, tmp_path, de={"ema_decay": None}))
    assert experiment.test()
    assert not [record for record in caplog.records if "is not a number" in record.message]
    with torch.no_grad():
        experiment.module.de.transform.parts[-1].std.fill_(torch.nan)
    experiment.test()
    found = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert {message for message in found if message.startswith("test ")} == {
        "test de: log_likelihood is not a number, loss is not a number",
        "test two_step: log_likelihood is not a number",
    }


def test_results_repeat(own_images, tmp_path):
    experiment = trained(asked(("vae", "flow"), own_images, tmp_path))
    first = experiment.test()
    torch.rand(5)
    assert experiment.test() == first
    assert resume(experiment.run.path).test() == first


# ---- the test set


@pytest.mark.parametrize("models", [("flow",), ("vae", "flow")])
def test_test_rows_touch_nothing_that_is_trained(tmp_path, models):
    pixels = np.random.default_rng(0).integers(50, 200, (60, 4, 4), dtype=np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    states = []
    for name, test in (("one", pixels[50:]), ("other", noise), ("single", noise[:1])):
        np.savez(tmp_path / f"{name}.npz", train=pixels[:50], test=test)
        keys = {**STOP, "max_bad_valid_epochs": 1}
        parts = dict.fromkeys(("model",) if len(models) == 1 else ("gae", "de"), keys)
        states.append(snapshot(trained(asked(models, tmp_path / f"{name}.npz", tmp_path / "runs", **parts))))
    assert differences(states[0], states[1]) == differences(states[0], states[2]) == []


def test_range_and_transform_do_not_see_float_test_rows(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    states = []
    for factor in (1, 100):
        np.savez(tmp_path / f"{factor}.npz", train=rows[:30], test=factor * rows[30:])
        experiment = trained(asked(("flow",), tmp_path / f"{factor}.npz", tmp_path / "runs"))
        states.append(snapshot(experiment))
        assert experiment.splits.spec.high == rows[:30].max()
    assert differences(*states) == []


@pytest.mark.parametrize("models", [("vae",), ("ae", "flow")])
def test_early_stopping_sees_the_validation_rows_alone(own_images, tmp_path, monkeypatch, models):
    seen = []
    measure = Evaluator.validate

    def watch(evaluator, component, train, valid):
        seen.append((component.name, valid.data))
        return measure(evaluator, component, train, valid)

    monkeypatch.setattr(Evaluator, "validate", watch)
    parts = dict.fromkeys(("model",) if len(models) == 1 else ("gae", "de"), STOP)
    experiment = trained(asked(models, own_images, tmp_path, **parts))
    assert len(seen) == 4 * len(models)
    for _, rows in seen[:4]:
        assert torch.equal(rows, experiment.splits.valid)
    for _, rows in seen[4:]:
        assert torch.allclose(rows, experiment.module.gae.encode(experiment.splits.valid.float()).detach(), atol=1e-5)


# ---- runs that are resumed


def test_keys_that_can_change_do_and_the_others_are_refused_by_name(own_images, tmp_path):
    path = trained(asked(("vae", "flow"), own_images, tmp_path)).run.path
    changed = resume(
        path,
        {"run": {"test_batch_size": 3, "test_metrics": ()}, "gae": {"k": 5}, "de": {"test_metrics": ("loss",)}},
    )
    assert changed.settings.run.test_batch_size == 3
    assert list(changed.test()["de"]) == ["loss"]
    for part, key, value in (
        ("run", "seed", 1),
        ("run", "train_batch_size", 8),
        ("run", "make_valid_loader", False),
        ("gae", "latent_dim", 3),
        ("de", "lr", 1.0),
        ("de", "max_epochs", 9),
    ):
        with pytest.raises(UserError) as caught:
            resume(path, {part: {key: value}})
        assert str(caught.value).startswith(f"{key}: can't be changed in a run that exists")
    with pytest.raises(UserError, match="did you mean test_batch_size"):
        resume(path, {"run": {"test_batch_sise": 3}})


@pytest.mark.parametrize("change", ["fewer rows", "another shape", "another range", "another order"])
def test_data_that_have_changed_are_refused(tmp_path, change):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    file = tmp_path / "mine.npy"
    np.save(file, rows)
    path = trained(asked(("flow",), file, tmp_path / "runs")).run.path
    resume(path)
    others = {
        "fewer rows": rows[:-1],
        "another shape": rows[:, :2],
        "another range": 2 * rows,
        "another order": rows[::-1],
    }
    np.save(file, others[change])
    with pytest.raises(UserError) as caught:
        resume(path)
    assert str(caught.value).startswith(f"{path}: {file} does not hold the data")


def test_data_that_are_gone_are_one_line(tmp_path):
    file = tmp_path / "mine.npy"
    np.save(file, np.random.default_rng(0).normal(size=(40, 3)))
    path = trained(asked(("flow",), file, tmp_path / "runs")).run.path
    file.unlink()
    with pytest.raises(UserError, match=r"mine\.npy: no such file or folder; .*--config dataset=PATH"):
        resume(path, writing=True)


def test_data_that_have_moved_are_found_by_their_new_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(40, 3))
    np.save("mine.npy", rows)
    first = trained(asked(("flow",), "mine.npy", tmp_path / "runs"))
    path, expected = first.run.path, first.splits.test
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(resume(path).splits.test, expected), "a relative path is kept as an absolute one"
    (tmp_path / "mine.npy").rename("moved.npy")
    assert resume(path, {"run": {"dataset": "moved.npy"}}).trainer.finished
    np.save("moved.npy", rows + 1)
    with pytest.raises(UserError, match="does not hold the data"):
        resume(path, {"run": {"dataset": "moved.npy"}})


def test_an_autoencoder_of_few_columns_has_fewer_latents_than_those(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "mine.npy", rows)
    experiment = start(
        Request({"gae": "ae", "de": "flow"}, {"run": {"dataset": str(tmp_path / "mine.npy"), "logdir_root": tmp_path}})
    )
    assert experiment.module.gae.latent_dim == 2
    experiment.run.close()


def test_a_run_without_a_checkpoint_starts_from_the_beginning(own_images, tmp_path, caplog):
    whole = trained(asked(("ae",), own_images, tmp_path / "whole"))
    path = start(asked(("ae",), own_images, tmp_path / "bare")).run.path
    again = resume(path)
    assert f"{path}: no checkpoint yet; starting from the beginning" in caplog.messages
    again.fit()
    again.run.close()
    assert differences(again.state(), whole.state()) == []


def test_a_damaged_latest_falls_back_to_the_best(own_images, tmp_path, caplog):
    experiment = start(asked(("ae",), own_images, tmp_path, model=STOP))
    values = iter([3.0, 1.0, 2.0, 2.0])
    experiment.trainer.validate = lambda *_: {"loss": next(values)}
    assert break_off(experiment, "epoch model 4")
    folder = experiment.run.path / "checkpoints"
    (folder / "latest.safetensors").write_bytes(b"damaged")
    again = resume(experiment.run.path)
    assert again.trainer.epochs_done == 2
    assert "taking best_valid.safetensors instead" in caplog.text
    (folder / "best_valid.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        resume(experiment.run.path)


def test_the_best_can_be_loaded_first(own_images, tmp_path):
    experiment = start(asked(("ae",), own_images, tmp_path, model=STOP))
    values = iter([3.0, 1.0, 2.0, 2.0])
    experiment.trainer.validate = lambda *_: {"loss": next(values)}
    assert break_off(experiment, "epoch model 3")
    assert resume(experiment.run.path).trainer.epochs_done == 3
    assert resume(experiment.run.path, best_first=True).trainer.epochs_done == 2


def untied(path):
    """Rewrite a run's checkpoints as earlier versions wrote them, which named no settings."""
    for file in (path / "checkpoints").iterdir():
        state = checkpoint.load(file)
        for key in ("settings", "data_sha256"):
            del state.values[key]
        checkpoint.save(file, state)


def edited(path, name, **values):
    """Change a config by hand, and return what it said before."""
    before = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**before, **values}))
    return before


@pytest.mark.parametrize("load", [resume, load_module])
def test_a_checkpoint_of_another_model_is_one_line(own_images, tmp_path, load):
    one = trained(asked(("ae",), own_images, tmp_path)).run.path
    other = trained(asked(("ae",), own_images, tmp_path, model={"encoder_hidden_dims": (5,)})).run.path
    shutil.copy(other / "checkpoints" / "latest.safetensors", one / "checkpoints" / "latest.safetensors")
    with pytest.raises(UserError, match=r"encoder_hidden_dims of model is \(5,\) there and \(8,\) here") as caught:
        load(one)
    assert "\n" not in str(caught.value)
    untied(one)
    with pytest.raises(CheckpointError, match=r"the checkpoint is of (another|other) model") as caught:
        load(one)
    assert "\n" not in str(caught.value)


LOADERS = [resume, load_module, load_run, load_finished]


@pytest.fixture(scope="module")
def pair_run(own_images, tmp_path_factory):
    """Give the directory of a two-step run; copy it before changing it."""
    return trained(asked(("ae", "flow"), own_images, tmp_path_factory.mktemp("pair"))).run.path


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("gae_config.json", "decoder_activation", "tanh"),
        ("gae_config.json", "clamp_samples", True),
        ("de_config.json", "whitening_transform", False),
        ("de_config.json", "lr", 0.5),
        ("shared_config.json", "seed", 1),
    ],
)
def test_a_config_that_was_changed_by_hand_is_refused_by_its_key(pair_run, tmp_path, load, file, key, value):
    path = tmp_path / "run"
    shutil.copytree(pair_run, path)
    before = edited(path, file, **{key: value})
    if key == "seed":  # other rows would be refused before
        load = load_module
    with pytest.raises(
        UserError, match=f"{key} of .* is {before[key]} there and {value} here|{key} of .*'{value}' here"
    ):
        load(path)
    (path / file).write_text(json.dumps(before))
    load(path)


def test_the_checkpoint_of_another_seed_is_refused(own_images, tmp_path):
    runs = [trained(asked(("ae",), own_images, tmp_path, run={"seed": seed})).run.path for seed in (0, 1)]
    shutil.copytree(runs[1] / "checkpoints", runs[0] / "checkpoints", dirs_exist_ok=True)
    for load in LOADERS:
        with pytest.raises(UserError, match="seed of the run is 1 there and 0 here; other data"):
            load(runs[0])


def test_the_checkpoint_of_another_kind_of_run_is_refused(pair_run, own_images, tmp_path):
    single = trained(asked(("ae",), own_images, tmp_path)).run.path
    shutil.copytree(pair_run / "checkpoints", single / "checkpoints", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"of a run with de_config\.json, gae_config\.json, shared_config\.json"):
        load_module(single)


def test_a_checkpoint_of_an_earlier_version_is_loaded(pair_run, tmp_path):
    """It names no settings, or lacks keys that came later."""
    older, newer = tmp_path / "older", tmp_path / "newer"
    shutil.copytree(pair_run, older)
    untied(older)
    shutil.copytree(pair_run, newer)
    file = newer / "checkpoints" / "latest.safetensors"
    state = checkpoint.load(file)
    del state.values["settings"]["gae_config.json"]["decoder_activation"]
    del state.values["settings"]["shared_config.json"]["precision"]
    checkpoint.save(file, state)
    edited(newer, "gae_config.json", decoder_activation="tanh")
    for path in (older, newer):
        for load in LOADERS:
            load(path)


def test_the_checkpoint_of_a_pretrained_autoencoder_belongs_to_its_own_run(pretrained, own_images, tmp_path):
    edited(pretrained.run.path, "gae_config.json", decoder_activation="tanh")
    with pytest.raises(UserError, match="decoder_activation of model is 'swish' there and 'tanh' here"):
        start(on_top(pretrained, tmp_path / "runs", own_images, frozen=True))
    assert not (tmp_path / "runs").exists()


# ---- a pretrained autoencoder


@pytest.fixture
def pretrained(own_images, tmp_path):
    """Give an autoencoder alone, best after its second of four epochs."""
    experiment = start(asked(("ae",), own_images, tmp_path / "gae", model={**STOP, "max_bad_valid_epochs": 9}))
    values = iter([3.0, 1.0, 2.0, 2.0])
    experiment.trainer.validate = lambda *_: {"loss": next(values)}
    experiment.fit()
    experiment.run.close()
    return experiment


def on_top(pretrained, root, dataset, frozen, **run):
    request = asked(("ae", "flow"), dataset, root, run=run)
    request.overrides["run"] |= {"pretrained_gae": pretrained.run.path, "freeze_pretrained_gae": frozen}
    return Request({"de": "flow"}, {"run": request.overrides["run"], "de": request.overrides["de"]})


def test_a_frozen_autoencoder_stays_as_it_is(pretrained, own_images, tmp_path):
    best = weights(pretrained.module)
    experiment = trained(on_top(pretrained, tmp_path, own_images, frozen=True))
    assert [one.name for one in experiment.trainers] == ["de"]
    assert same(weights(experiment.module.gae), best)
    assert experiment.trainer.de.epochs_done == 4
    again = resume(experiment.run.path)
    assert [one.name for one in again.trainers] == ["de"]
    assert same(weights(again.module.gae), best)
    assert again.test() == experiment.test()
    assert same(weights(load_module(experiment.run.path).gae), best)


def test_an_autoencoder_that_is_not_trained_needs_no_validation_rows_to_stop_by(pretrained, own_images, tmp_path):
    without = {"make_valid_loader": False}
    request = on_top(pretrained, tmp_path / "runs", own_images, frozen=True, **without)
    request.overrides["de"]["early_stopping_metric"] = None
    assert [one.name for one in start(request).trainers] == ["de"]
    with pytest.raises(UserError, match="early_stopping_metric=loss of ae needs validation rows"):
        start(on_top(pretrained, tmp_path / "other", own_images, frozen=False, **without))


def test_a_split_that_the_autoencoder_was_not_trained_on_is_warned_of(pretrained, own_images, tmp_path, caplog):
    start(on_top(pretrained, tmp_path / "same", own_images, frozen=True))
    assert "may have seen rows" not in caplog.text
    start(on_top(pretrained, tmp_path / "other", own_images, frozen=True, seed=1))
    assert "may have seen rows that this run holds out" in caplog.text


def test_a_frozen_run_is_resumed_to_the_bit(pretrained, own_images, tmp_path):
    whole = trained(on_top(pretrained, tmp_path / "whole", own_images, frozen=True))
    first = start(on_top(pretrained, tmp_path / "broken", own_images, frozen=True))
    assert break_off(first, "step 5")
    shutil.rmtree(pretrained.run.path)
    second = resume(first.run.path)
    second.fit()
    second.run.close()
    assert differences(second.state(), whole.state()) == []


def test_an_autoencoder_with_epochs_left_is_trained_further(pretrained, own_images, tmp_path):
    experiment = start(on_top(pretrained, tmp_path, own_images, frozen=False), max_epochs={"gae": 6})
    gae = experiment.trainer.gae
    assert (gae.epochs_done, gae.max_epochs) == (4, 6)
    gae.validate = lambda *_: {"loss": 0.5}
    experiment.fit()
    assert gae.epochs_done == 6
    before = weights(pretrained.module)
    assert not same(weights(experiment.module.gae), before)
    assert experiment.trainer.de.epochs_done == 4


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_has_its_pretrained_autoencoder_from_the_start(pretrained, own_images, tmp_path, frozen):
    first = start(on_top(pretrained, tmp_path, own_images, frozen), max_epochs={"gae": 6})
    state = snapshot(first)
    shutil.rmtree(pretrained.run.path)
    second = resume(first.run.path)
    assert differences(second.state(), state) == []
    assert len(second.trainers) == len(first.trainers)
    (first.run.path / "checkpoints" / "latest.safetensors").unlink()
    with pytest.raises(UserError, match="stopped before its pretrained autoencoder was copied into it"):
        resume(first.run.path)


def test_an_autoencoder_without_epochs_left_says_how_to_give_it_some(pretrained, own_images, tmp_path, caplog):
    experiment = trained(on_top(pretrained, tmp_path, own_images, frozen=False))
    assert "raise them by --max-epochs-loaded-gae, or add --freeze-pretrained-gae" in caplog.text
    assert same(weights(experiment.module.gae), weights(pretrained.module))


def test_an_autoencoder_of_other_data_is_refused_before_a_directory_is_made(pretrained, tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(60, 5)))
    for frozen in (True, False):
        with pytest.raises(UserError) as caught:
            start(on_top(pretrained, tmp_path / "runs", tmp_path / "vectors.npy", frozen=frozen))
        assert str(caught.value).startswith(f"{pretrained.run.path}: the autoencoder is for other data (")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_what_is_no_autoencoder_is_refused(own_images, tmp_path):
    flow = trained(asked(("flow",), own_images, tmp_path / "flow"))
    with pytest.raises(UserError, match="not a run of an autoencoder alone"):
        start(on_top(flow, tmp_path / "runs", own_images, frozen=True))
    assert not (tmp_path / "runs").exists()


def test_an_autoencoder_without_a_whole_checkpoint_is_refused(pretrained, own_images, tmp_path):
    for file in (pretrained.run.path / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(CheckpointError):
        start(on_top(pretrained, tmp_path / "runs", own_images, frozen=True))
    assert not (tmp_path / "runs").exists()


# ---- runs in Python


def test_a_single_run_is_loaded_with_its_trainer_and_data(pretrained):
    module, trainer, (train, valid, test) = load_run(pretrained.run.path)
    assert same(weights(module), weights(pretrained.module)), "the best weights"
    assert not module.training
    assert isinstance(trainer, Trainer)
    assert trainer.finished
    for loader, rows in ((train, "train"), (valid, "valid"), (test, "test")):
        assert isinstance(loader, Batches)
        assert torch.equal(loader.data, getattr(pretrained.splits, rows))
    assert (train.batch_size, valid.batch_size, test.batch_size) == (16, 128, 128)


def test_a_two_step_run_is_loaded_with_both_trainers(own_images, tmp_path):
    experiment = trained(asked(("vae", "flow"), own_images, tmp_path, run={"make_valid_loader": False}))
    loaded = load_run(str(experiment.run.path))
    assert isinstance(loaded.module, TwoStep)
    assert loaded["module"] is loaded[0] is loaded.module
    with pytest.raises(KeyError):
        loaded["nothing"]
    assert loaded.loaders[1] is None
    assert loaded.trainer.gae.epochs_done == loaded.trainer.de.epochs_done == 4
    assert same(weights(loaded.module), weights(experiment.module))
    assert same(weights(load_module(experiment.run.path)), weights(experiment.module))


def test_log_prob_of_a_loaded_density_of_pixels_is_that_of_its_test(own_images, tmp_path):
    experiment = trained(asked(("flow",), own_images, tmp_path, model={"test_metrics": "log_likelihood"}))
    tested = experiment.test()["model"]["log_likelihood"]
    module, _, (_, _, test) = load_run(experiment.run.path)
    torch.manual_seed(derive(0, "test", 0))
    with torch.no_grad():
        log_probs = torch.cat([module.log_prob(x) for x in test])
        at_the_edge = torch.cat([module.log_density(x) for x in test])
    assert log_probs.double().mean().item() == pytest.approx(tested.value, rel=1e-6)
    assert abs(at_the_edge.double().mean().item() - tested.value) > 1e-3


def test_test_figures_are_in_tensorboard_beside_the_training_curves(own_images, tmp_path):
    experiment = trained(asked(("ae",), own_images, tmp_path))
    results = experiment.test()["model"]
    experiment.run.close()
    events = EventAccumulator(str(experiment.run.path)).Reload()
    for name, result in results.items():
        (figure,) = events.Scalars(f"model/test/{name}")
        assert figure.value == pytest.approx(result.value)
        assert figure.step == experiment.trainer.steps_done
    epochs = len(events.Scalars("model/epoch/loss"))
    again = resume(experiment.run.path)
    again.test()
    again.run.close()
    assert len(EventAccumulator(str(experiment.run.path)).Reload().Scalars("model/epoch/loss")) == epochs


def test_a_frozen_autoencoder_has_no_trainer(pretrained, own_images, tmp_path):
    path = trained(on_top(pretrained, tmp_path, own_images, frozen=True)).run.path
    assert load_run(path).trainer.gae is None


def test_loading_a_run_writes_nothing_into_it(own_images, tmp_path):
    path = trained(asked(("ae",), own_images, tmp_path)).run.path
    logger = logging.getLogger("twostep")
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    load_run(path)
    load_module(path)
    logger.warning("said by someone else")
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_what_cannot_be_loaded_is_one_line(tmp_path, own_images):
    path = start(asked(("ae",), own_images, tmp_path)).run.path
    with pytest.raises(CheckpointError):
        load_module(path)
    with pytest.raises(UserError, match="no such directory"):
        load_run(tmp_path / "none")
    (path / "data.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(UserError, match=r"missing \(key of data\.json\)"):
        load_run(path)
