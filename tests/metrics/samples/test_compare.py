"""`compare`: two arrays or folders, without a model."""

import json

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from twostep.core.schema import UserError
from twostep.metrics import compare
from twostep.metrics.samples.frechet import frechet

RANDOM = np.random.default_rng(0)
REAL, HELD_OUT, GOOD = (RANDOM.normal(size=(120, 3)) for _ in range(3))
BAD = GOOD + 2
CHEAP = ("fd", "kid", "precision_recall_density_coverage")


def test_results_are_those_of_the_metrics_in_standardised_columns():
    found = compare(REAL, GOOD, CHEAP)
    data, drawn = (torch.from_numpy((x - REAL.mean(0)) / REAL.std(0)).float() for x in (REAL, GOOD))
    expected = frechet(data, drawn)
    assert found["fd"].value == pytest.approx(expected.value, rel=1e-3)
    assert found["fd"].interval == pytest.approx(expected.interval, rel=1e-2)
    assert found["fd"].reference is None
    assert {"kid", "precision", "recall", "density", "coverage"} < found.keys()


def test_worse_samples_look_worse_and_held_out_data_give_references():
    good, bad = (compare(REAL, rows, held_out=HELD_OUT) for rows in (GOOD, BAD))
    for name in ("fd", "kid", "c2st", "sliced_wasserstein"):
        assert good[name].value < bad[name].value
        assert good[name].reference == bad[name].reference
    assert good["precision"].value > bad["precision"].value
    copies = compare(REAL, REAL[:60], ["memorisation"], held_out=HELD_OUT)
    assert any(result.value > 0.9 for name, result in copies.items() if "cop" in name), copies


def test_frames_tensors_and_files_are_taken(tmp_path):
    np.save(tmp_path / "real.npy", REAL)
    expected = compare(REAL, GOOD, ["fd"])["fd"].value
    given = [(tmp_path / "real.npy", torch.from_numpy(GOOD)), (str(tmp_path / "real.npy"), pandas.DataFrame(GOOD))]
    assert [compare(*pair, ["fd"])["fd"].value for pair in given] == pytest.approx([expected] * 2)
    names = [str(place) for place in range(REAL.shape[1])]
    table = pandas.DataFrame(REAL, columns=names).assign(note=[f"word {row}" for row in range(len(REAL))])
    found = compare(table, pandas.DataFrame(GOOD, columns=names), ["fd"], dataset_kwargs={"drop": "note"})
    assert found["fd"].value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "keys", "says"),
    [
        ((REAL, GOOD[:, :2]), {}, "rows of one kind"),
        ((REAL, GOOD, ["fdd"]), {}, "did you mean fd"),
        ((REAL, GOOD, ["loss"]), {}, "metric of a model"),
        ((REAL, GOOD, ["memorisation"]), {}, "held_out"),
        ((REAL, GOOD[:10], ["c2st"]), {}, "too few"),
        ((REAL, np.where(GOOD > 2, np.nan, GOOD)), {}, "finite"),
        ((REAL, GOOD), {"features": "classifier"}, "no labels"),
        (("nowhere.npy", GOOD), {}, "no such file"),
    ],
)
def test_mistakes_are_one_line(arguments, keys, says):
    with pytest.raises(UserError) as caught:
        compare(*arguments, **keys)
    assert says in str(caught.value)


def test_the_command_compares_folders_of_images(tmp_path, twostep):
    for name, shift in (("real", 0), ("samples", 60)):
        (tmp_path / name).mkdir()
        size = (8, 8) if name == "real" else (12, 12)
        for i in range(40):
            pixels = np.uint8(RANDOM.integers(0, 100, size) + shift)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    keys = ("--features", "pixels", "--metrics", "fd", "kid", "--json")
    found = twostep("compare-samples", tmp_path / "real", tmp_path / "samples", *keys)
    assert found.status == 0, found.err
    assert json.loads(found.out)["fd"]["value"] > 0
    outcome = twostep("compare-samples", tmp_path / "real", tmp_path / "none")
    assert outcome.status == 2
    assert "none: no such file or folder" in outcome.err
