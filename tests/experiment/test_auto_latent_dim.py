"""`latent_dim=auto` is the number that it stands for: in stored configs, in training, after a resume, on every rank."""

import json

import numpy as np
import pytest
import torch

from helpers.arguments import two_step_arguments
from helpers.experiments import GAES, asked, break_off, differences, trained
from twostep.analysis.report import write_report
from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.data.batches import LazyRows
from twostep.data.synthetic import distribution
from twostep.experiment import auto_latent_dim as latent_size
from twostep.experiment.auto_latent_dim import with_latent_dim
from twostep.experiment.prepare import resume, start
from twostep.runs.overrides import Request
from twostep.training.engine import Engine

AUTO = {"latent_dim": "auto"}


@pytest.fixture
def plane(tmp_path):
    """Give a file of 100 training and 20 test points of a plane in R^4."""
    rows = np.random.default_rng(0).normal(size=(120, 2)) @ [[1, 0, 2, 0], [0, 1, 0, 2]]
    np.savez(tmp_path / "plane.npz", train=rows[:100].astype(np.float32), test=rows[100:].astype(np.float32))
    return tmp_path / "plane.npz"


def stored_in(run):
    return json.loads((run.path / "dimension.json").read_text())


def stored(run):
    return json.loads((run.path / "gae_config.json").read_text())["latent_dim"]


def estimated(keys, splits, engine, seed):
    """Resolve the keys of an autoencoder on its own."""
    request = Request({"model": "ae"}, {"model": keys, "run": {"dataset": "mine"}}, is_gae=True)
    return with_latent_dim(request.model_config("model", splits.spec), splits, engine, seed)


def never(*_, **__):
    raise AssertionError("estimated again")


# ---- the number


@pytest.mark.parametrize(
    ("name", "keys", "may_be_closed"),
    [
        ("von-mises-circle", {}, True),
        ("uniform_sphere", {"manifold_dim": 2}, True),
        ("uniform_sphere", {"manifold_dim": 3, "ambient_dim": 10}, True),
        ("torus", {}, True),
        ("affine", {"manifold_dim": 3, "ambient_dim": 12}, False),
    ],
)
def test_it_is_the_dimension_of_a_known_manifold(tmp_path, name, keys, may_be_closed):
    request = asked(("ae", "flow"), name, tmp_path, run={"dataset_kwargs": {**keys, "n": 700}}, gae=AUTO)
    experiment = start(request)
    experiment.run.close()
    found, d = stored_in(experiment.run), distribution(name, keys).intrinsic_dim
    assert found["latent_dim"] == stored(experiment.run) == experiment.module.gae.latent_dim == d
    assert experiment.module.de.event_shape == (d,)
    assert found["low"] <= d <= found["high"]
    assert found["rows"] == len(experiment.splits.train) == 630
    assert any(f"latent_dim={d + 1} may avoid it" in reason for reason in found["reasons"]) == may_be_closed


@pytest.mark.parametrize(
    ("dim", "latent", "warned"), [(6, 6, True), (2, 2, True), (10, 9, True), (10, 5, False), (1, 1, True)]
)
def test_half_of_the_coordinates_are_taken_where_the_data_vary_in_nearly_all(dim, latent, warned):
    random = np.random.default_rng(0)
    turned = np.linalg.qr(random.normal(size=(dim, dim)))[0][:latent]
    rows = torch.tensor(random.normal(size=(800, latent)) @ turned, dtype=torch.float32)
    spec = DataSpec(name="mine", shape=(dim,), size=800, low=-9, high=9)
    _, size = estimated(AUTO, Splits(spec, rows, None, rows), Engine("cpu"), 0)
    assert size.latent_dim == ((dim + 1) // 2 if warned else latent)
    assert size.low <= latent <= size.high
    assert any("can copy any input" in warning for warning in size.warnings) == warned


@pytest.mark.parametrize("name", GAES)
def test_every_autoencoder_trains_as_with_the_number_to_the_last_bit(plane, tmp_path, name):
    by_word, by_number = (
        trained(asked((name,), plane, tmp_path / root, model={"latent_dim": latent_dim, "max_epochs": 2}))
        for root, latent_dim in (("word", "auto"), ("number", 2))
    )
    assert not differences(by_word.state(), by_number.state())
    files = [
        {file.name: file.read_text() for file in one.run.path.glob("*config.json")} for one in (by_word, by_number)
    ]
    assert files[0] == {key: text.replace("/number", "/word") for key, text in files[1].items()}
    assert all('"auto"' not in text for text in files[0].values())
    assert not (by_number.run.path / "dimension.json").exists()


def test_a_density_alone_may_take_the_dimension_too(plane, tmp_path):
    request = asked(("vae",), plane, tmp_path / "runs", model=AUTO)
    experiment = start(Request(request.models, request.overrides, is_gae=False))
    experiment.run.close()
    assert experiment.module.latent_dim == stored_in(experiment.run)["latent_dim"] == 2


def test_few_rows_show_linear_dimensions(tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(40, 2)) @ [[1, 0, 2, 0], [0, 1, 0, 2]])
    run = start(asked(("ae",), tmp_path / "few.npy", tmp_path / "runs", model=AUTO)).run
    run.close()
    found = stored_in(run)
    assert (found["latent_dim"], found["low"], found["high"], found["rows"]) == (2, 1, 4, 29)
    assert "too few" in found["reasons"][0]


def test_images_are_estimated_flat_and_twice_alike(blobs, tmp_path):
    """A blob has two coordinates, and noise on each pixel above the distance of neighbours."""
    runs = [start(asked(("ae",), blobs, tmp_path / str(seed), model=AUTO)).run for seed in range(2)]
    for run in runs:
        run.close()
    assert stored_in(runs[0]) == stored_in(runs[1])
    assert 2 <= stored_in(runs[0])["latent_dim"] <= 100


@pytest.mark.parametrize(("whitened", "d"), [(False, 1), (True, 2)])
def test_columns_of_small_scale_count_if_the_network_sees_them_whitened(tmp_path, whitened, d):
    file = tmp_path / "table.npy"
    np.save(file, np.random.default_rng(0).normal(size=(300, 2)) * [1, 1e-4] @ [[1, 0, 2, 0], [0, 1, 0, 2]])
    keys = {**AUTO, "whitening_transform": whitened, "scale_data": not whitened}
    run = start(asked(("ae",), file, tmp_path / "runs", model=keys)).run
    run.close()
    assert stored_in(run)["latent_dim"] == d


def test_only_training_rows_are_looked_at(plane, tmp_path):
    rows = dict(np.load(plane))
    other = tmp_path / "other.npz"
    np.savez(other, train=rows["train"], test=np.random.default_rng(1).normal(size=(500, 4)))
    runs = [start(asked(("ae",), file, tmp_path / file.stem, model=AUTO)).run for file in (plane, other)]
    for run in runs:
        run.close()
    assert stored_in(runs[0]) == stored_in(runs[1])


def test_large_data_are_thinned_and_the_seed_is_the_runs(monkeypatch):
    seen = []

    def watched(x, seed):
        seen.append((x, seed))
        raise UserError("enough")

    monkeypatch.setattr(latent_size, "dimension_of", watched)
    monkeypatch.setattr(latent_size, "shows_dimension", lambda _: True)
    monkeypatch.setattr(latent_size, "ROWS", 5)
    data = torch.arange(60.0).view(20, 3)
    spec = DataSpec(name="mine", shape=(3,), size=10, low=0, high=60)
    splits = Splits(spec, LazyRows(data, torch.arange(0, 20, 2)), None, data)
    with pytest.raises(UserError, match=r"^latent_dim=auto: enough; or set latent_dim to a number$"):
        estimated(AUTO, splits, Engine("cpu"), 7)
    ((rows, seed),) = seen
    assert seed == 7
    assert torch.equal(rows, data[[0, 4, 8, 12, 16]])


# ---- once


def test_a_run_that_was_stopped_resumes_without_estimating_again(plane, tmp_path, monkeypatch):
    whole = trained(asked(("vae", "flow"), plane, tmp_path / "whole", gae=AUTO))
    broken = start(asked(("vae", "flow"), plane, tmp_path / "broken", gae=AUTO))
    assert break_off(broken, "step 3")
    before = stored_in(broken.run)
    monkeypatch.setattr(latent_size, "dimension_of", never)
    again = resume(broken.run.path, writing=True)
    again.fit()
    again.run.close()
    assert not differences(again.state(), whole.state())
    assert stored_in(again.run) == before == stored_in(whole.run)


def test_a_number_asks_for_no_estimate(plane, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_size, "dimension_of", never)
    start(asked(("ae", "flow"), plane, tmp_path / "runs")).run.close()


def test_another_rank_takes_what_the_first_has_found(plane, tmp_path, monkeypatch, caplog):
    """That of an engine whose first rank has found 3, though its own rows would say 2."""
    experiment = start(asked(("ae",), plane, tmp_path / "runs", model=AUTO))
    experiment.run.close()
    found = latent_size.LatentSize(3, 2, 4, 90, 0, (), ("odd",))

    class Second:
        is_main = False

        def on_first(self, _):
            return found

    monkeypatch.setattr(latent_size, "dimension_of", never)
    caplog.clear()
    config, size = estimated({**AUTO, "lr": 0.1}, experiment.splits, Second(), 0)
    assert size is found
    assert (config.latent_dim, config.lr) == (3, 0.1)
    assert not caplog.messages


# ---- on screen, in files


def replaced(arguments, old, new):
    return [new if item == old else item for item in arguments]


def test_the_command_prints_the_number_its_range_and_reasons(plane, tmp_path, twostep):
    root = tmp_path / "runs"
    done = twostep(*replaced(two_step_arguments(plane, root), "latent_dim=2", "latent_dim=auto"))
    assert done.status == 0, done.err
    assert "latent_dim=auto of vae: 2 (dimension 2 to 2), estimated from 90 training rows (dimension.json)" in done.out
    (path,) = root.iterdir()
    assert all(f"  {reason}\n" in done.out for reason in json.loads((path / "dimension.json").read_text())["reasons"])
    assert "latent_dim=auto of vae: 2" in (path / "stdout").read_text()
    assert "intrinsic dimension of the training rows" in (path / "report.html").read_text()


def test_the_report_of_a_run_with_a_number_names_no_estimate(ae_run):
    from twostep.runs.directory import Run

    assert "intrinsic dimension of the training rows" not in write_report(Run.open(ae_run)).read_text()


# ---- refused


def test_a_run_that_exists_keeps_its_number(two_step_run, ae_run, twostep):
    for command in (
        ("train", "--load-dir", two_step_run, "--gae-config", "latent_dim=auto"),
        ("train-single", "--load-dir", ae_run, "--config", "latent_dim=auto"),
        (
            *("train", "--load-dir", ae_run, "--load-pretrained-gae"),
            *("--de-model", "flow", "--gae-config", "latent_dim=auto"),
        ),
    ):
        done = twostep(*command)
        assert done.status == 2
        assert done.err.startswith("latent_dim: can't be changed in a run that exists")


@pytest.mark.parametrize(
    ("models", "keys", "says"),
    [
        (
            ("ae", "vae"),
            {"de": AUTO},
            "latent_dim=auto of vae: it models embeddings",
        ),
        (("flow",), {"model": AUTO}, "latent_dim: no such key of flow"),
        (("ae",), {"model": {"latent_dim": "atuo"}}, "latent_dim = 'atuo': input should be a valid integer, or auto"),
        (("ae",), {"model": {**AUTO, "encoder_net": "cnn", "decoder_net": "cnn"}}, "a cnn needs images"),
    ],
)
def test_what_can_not_be_estimated_is_refused_before_there_is_a_directory(tmp_path, models, keys, says):
    file = tmp_path / "few.npy"
    np.save(file, np.random.default_rng(0).normal(size=(60, 3)))
    with pytest.raises(UserError) as caught:
        start(asked(models, file, tmp_path / "runs", **keys))
    assert str(caught.value).startswith(says)
    assert not (tmp_path / "runs").exists()
