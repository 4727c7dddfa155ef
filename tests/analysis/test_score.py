"""`twostep score`: the model's own scores by row, a verdict at the announced rate, one line for each mistake."""

import csv
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers.arguments import only_run, single_arguments, two_step_arguments
from helpers.experiments import asked
from twostep.analysis.evaluate import evaluate_run
from twostep.analysis.score import score
from twostep.core.columns import write_columns
from twostep.core.schema import UserError
from twostep.data.load import read_rows
from twostep.experiment.load import load_finished, load_module
from twostep.experiment.prepare import start
from twostep.metrics.ood.many import q_values

TWO_STEP = ("row", "log_prob", "log_prob_latent", "distance")
NEAR = "nearest_training_distance"
P_VALUES = ("p_value", "q_value")


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """Give files of 1,000 training rows and 600 others on a plane in R^5, and of 50 rows off it."""
    folder, random = tmp_path_factory.mktemp("plane"), np.random.default_rng(0)
    axes = random.normal(size=(2, 5))
    rows = random.normal(size=(1600, 2)) @ axes + 0.05 * random.normal(size=(1600, 5))
    np.savez(folder / "plane.npz", train=rows[:1000], test=rows[1000:])
    np.save(folder / "more.npy", rows[1000:])
    np.save(folder / "off.npy", rows[:50] + 2 * random.normal(size=(50, 5)))
    return folder


@pytest.fixture(scope="module")
def plane_run(plane, tmp_path_factory):
    """Give the directory of a two-step run on the plane."""
    keys = {"max_epochs": 12, "encoder_hidden_dims": (16,), "decoder_hidden_dims": (16,)}
    root = tmp_path_factory.mktemp("plane-run")
    experiment = start(asked(("ae", "flow"), plane / "plane.npz", root, gae=keys | {"denoising_sigma": 0.0}))
    experiment.fit()
    experiment.run.close()
    return experiment.run.path


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_models_own_scores_in_order(twostep, plane_run, plane, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in plane_run.rglob("*")}
    done = twostep("score", plane_run, plane / "more.npy", "--to", tmp_path / "new" / "scores.csv")
    assert done.status == 0, done.err
    assert (
        "of 600 rows are out at 0.05 (two_part, calibrated on 50 validation rows, smallest p-value 0.0196)" in done.out
    )
    rows = table(tmp_path / "new" / "scores.csv")
    assert list(rows[0]) == [*TWO_STEP, "two_part", NEAR, *P_VALUES, "verdict"]
    assert [int(row["row"]) for row in rows] == list(range(600))
    module, x = load_module(plane_run), torch.tensor(np.load(plane / "more.npy"), dtype=torch.float32)
    with torch.no_grad():
        expected = module.log_prob(x), module.log_prob_latent(x), module.reconstruction_error(x).sqrt()
    for name, values in zip(("log_prob", "log_prob_latent", "distance"), expected, strict=True):
        assert np.allclose([float(row[name]) for row in rows], values, rtol=1e-3, atol=1e-3)
    for row in rows:
        assert row["verdict"] == ("out" if float(row["p_value"]) <= 0.05 else "in")
    assert before == {path: path.stat().st_mtime_ns for path in plane_run.rglob("*")}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.csv"]


def test_the_verdict_keeps_its_rate_and_finds_rows_off_the_plane(plane_run, plane):
    # given 50 calibration rows, the rate is a Beta variable with standard deviation 0.06
    assert score(plane_run, plane / "more.npy", alpha=0.25).out / 600 == pytest.approx(0.25, abs=0.18)
    assert score(plane_run, plane / "off.npy").out > 40


def test_rows_that_differ_as_a_whole_are_reported_and_others_are_not(plane_run, plane, tmp_path, caplog):
    assert not score(plane_run, plane / "more.npy").shift.differs
    assert "as a whole" not in caplog.text
    np.save(tmp_path / "moved.npy", 1.6 * np.load(plane / "more.npy"))
    assert score(plane_run, tmp_path / "moved.npy").shift.differs
    assert "the rows as a whole differ" in caplog.text
    assert "where 5.0 % are expected" in caplog.text
    np.save(tmp_path / "known.npy", np.load(plane / "plane.npz")["train"])
    score(plane_run, tmp_path / "known.npy")
    assert "are training rows" in caplog.text


def test_nearest_rows_q_values_and_local_dimension_are_those_of_the_definition(plane_run, plane):
    x, train = (np.load(plane / name) for name in ("more.npy", "plane.npz"))
    columns = score(plane_run, plane / "more.npy", local=True).columns
    known = load_finished(plane_run).evaluator.splits.train[:].numpy()
    assert len(known) < len(train["train"])
    nearest = np.sqrt(((x[:50, None] - known[None]) ** 2).sum(2)).min(1)
    assert columns[NEAR][:50] == pytest.approx(nearest, rel=1e-4)
    assert columns["q_value"] == pytest.approx(q_values(columns["p_value"]))
    assert np.median(columns["local_dimension"]) == pytest.approx(2, abs=0.3)


def test_each_ending_has_its_form(plane_run, plane, tmp_path):
    scored = score(plane_run, plane / "off.npy")
    for name in ("s.csv", "s.parquet", "s.json"):
        write_columns(scored.columns, tmp_path / name)
    frames = pd.read_csv(tmp_path / "s.csv"), pd.read_parquet(tmp_path / "s.parquet"), pd.read_json(tmp_path / "s.json")
    for frame in frames:
        assert list(frame) == list(scored.columns)
        for column, values in scored.columns.items():
            assert (frame[column] == values).all() or frame[column].to_numpy() == pytest.approx(values, rel=1e-9)


def test_scores_repeat_to_the_last_digit(plane_run, plane, tmp_path):
    for name in ("one.csv", "two.csv"):
        write_columns(score(plane_run, plane / "off.npy").columns, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_an_autoencoder_alone_gives_distances(twostep, ae_run, own_images, tmp_path):
    np.save(tmp_path / "rows.npy", np.load(own_images)["test"])
    done = twostep("score", ae_run, tmp_path / "rows.npy", "--to", tmp_path / "s.csv", "--alpha", "0.2")
    assert done.status == 0, done.err
    assert "(reconstruction_error, calibrated on 5 validation rows, smallest p-value 0.167)" in done.out
    assert list(table(tmp_path / "s.csv")[0]) == ["row", "distance", "relative_distance", NEAR, *P_VALUES, "verdict"]


def test_a_density_alone_is_asked_on_both_sides(twostep, own_images, tmp_path):
    assert twostep(*single_arguments(own_images, tmp_path / "runs", "flow")).status == 0
    run = only_run(tmp_path / "runs")
    np.save(tmp_path / "rows.npy", np.load(own_images)["test"])
    scored = score(run, tmp_path / "rows.npy", alpha=0.4)
    assert list(scored.columns) == ["row", "log_prob", NEAR, *P_VALUES, "verdict"]
    assert set(np.round(scored.columns["p_value"] * 3, 6)) <= {1.0, 2.0, 3.0}


def test_images_of_another_size_are_brought_to_the_runs(two_step_run, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 9, 12), dtype=np.uint8)):
        Image.fromarray(pixels[: 9 - number % 2]).save(folder / f"{number}.png")
    np.save(tmp_path / "resized.npy", read_rows(folder, (6, 6)).numpy())
    found, expected = (score(two_step_run, path, alpha=0.5) for path in (folder, tmp_path / "resized.npy"))
    assert found.columns["distance"].tolist() == expected.columns["distance"].tolist()
    assert found.columns["name"].tolist() == [f"{number}.png" for number in range(5)]
    results, _ = evaluate_run(shutil.copytree(two_step_run, tmp_path / "run"), ood=(str(folder),))
    assert results["distance_ood_auroc"].n == 10 + 1  # test rows of both


# ---- few validation rows


def test_where_no_row_can_be_out_there_are_p_values_and_no_verdict(twostep, two_step_run, own_images, tmp_path):
    np.save(tmp_path / "rows.npy", np.load(own_images)["test"])
    done = twostep("score", two_step_run, tmp_path / "rows.npy", "--to", tmp_path / "s.csv")
    assert done.status == 0, done.err
    assert "5 validation rows give no p-value below 0.333" in done.err
    rows = table(tmp_path / "s.csv")
    assert list(rows[0]) == [*TWO_STEP, "relative_distance", "two_part", NEAR, *P_VALUES]
    larger = score(two_step_run, tmp_path / "rows.npy", alpha=0.34)
    assert larger.calibrator.smallest == pytest.approx(1 / 3)
    assert [float(row["p_value"]) for row in rows] == larger.columns["p_value"].tolist()
    assert "verdict" in larger.columns


def test_runs_that_cannot_calibrate_give_scores(twostep, own_images, tmp_path):
    keys = ("--shared-config", "make_valid_loader=False", "--de-config", "early_stopping_metric=None")
    assert twostep(*two_step_arguments(own_images, tmp_path / "runs"), *keys).status == 0
    np.save(tmp_path / "rows.npy", np.load(own_images)["test"])
    few = tmp_path / "few.npy"
    np.save(few, np.load(own_images)["train"][:24])
    assert twostep(*single_arguments(few, tmp_path / "few")).status == 0
    for runs, rows, names in (
        ("runs", 0, [*TWO_STEP, "relative_distance", NEAR]),
        ("few", 2, ["row", "distance", "relative_distance", NEAR]),
    ):
        run = only_run(tmp_path / runs)
        done = twostep("score", run, tmp_path / "rows.npy", "--to", tmp_path / "s.csv", "--force")
        assert done.status == 0, done.err
        assert f"has {rows} validation rows" in done.err
        assert list(table(tmp_path / "s.csv")[0]) == names


# ---- mistakes


@pytest.fixture
def refused(twostep, tmp_path):
    """Give the one line that a command is refused with; it must leave no file."""

    def line(*arguments, to=tmp_path / "out" / "scores.csv"):
        done = twostep("score", *arguments, "--to", to)
        assert done.status == 2, done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return done.err

    return line


def test_each_mistake_has_its_line(refused, two_step_run, plane, tmp_path):
    images = tmp_path / "images.npy"
    np.save(images, np.full((3, 6, 6), 200, dtype=np.uint8))
    assert "its rows have the shape 5, those of the run 1x6x6" in refused(two_step_run, plane / "more.npy")
    assert "no such file or folder" in refused(two_step_run, tmp_path / "none.npy")
    (tmp_path / "words.csv").write_text("name,size\n" + "".join(f"n{row},{row}\n" for row in range(60)))
    assert "a table, and the run's data are images" in refused(two_step_run, tmp_path / "words.csv")
    assert "no such directory" in refused(tmp_path / "none", images)
    assert "scores.txt: write to" in refused(two_step_run, images, to=tmp_path / "scores.txt")
    assert "alpha" in refused(two_step_run, images, "--alpha", "1.5")
    np.save(tmp_path / "nan.npy", np.full((3, 1, 6, 6), np.nan))
    assert "is nan" in refused(two_step_run, tmp_path / "nan.npy")


def test_images_in_other_units_are_warned_of(two_step_run, tmp_path, caplog):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((3, 1, 6, 6)))
    score(two_step_run, tmp_path / "rows.npy", alpha=0.5)
    assert "are they in the same units?" in caplog.text


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    class Breaks:
        def __str__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_columns({"row": np.array([1, 2, Breaks()])}, tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        write_columns({"row": np.arange(3)}, tmp_path / "file" / "scores.csv")


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_numbers_are_written_in_all_their_digits(tmp_path, ending):
    columns = {"number": np.array([0.1, 1 / 3, np.nan, -np.inf]), "word": np.array(["in", "out", "in", "in"])}
    write_columns(columns, tmp_path / f"table.{ending}")
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": partial(pd.read_json, precise_float=True)}[ending](
        tmp_path / f"table.{ending}"
    )
    assert read["number"].astype(float).tolist()[:2] == [0.1, 1 / 3]
    assert read["word"].tolist() == ["in", "out", "in", "in"]
    if ending == "csv":
        assert (tmp_path / "table.csv").read_text().splitlines()[3:] == ["nan,in", "-inf,in"]


def test_a_run_on_other_data_is_refused(twostep, own_images, tmp_path):
    data = tmp_path / "data.npz"
    shutil.copy(own_images, data)
    assert twostep(*single_arguments(data, tmp_path / "runs")).status == 0
    data.unlink()
    (only_run(tmp_path / "runs") / "calibration.safetensors").unlink()
    done = twostep("score", only_run(tmp_path / "runs"), own_images, "--to", tmp_path / "scores.csv")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "no such file" in done.err
