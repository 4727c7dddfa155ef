"""The diagnosis: lines, JSON and figure; warnings about unusual data; the command, and what it refuses."""

import functools
import json
import math

import numpy as np
import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.schema import UserError
from twostep.data.synthetic import distribution
from twostep.diagnosis import diagnose


def circle(n=400):
    return distribution("von-mises-circle", {}).sample(n, torch.Generator().manual_seed(0))


@functools.cache
def diagnosis_of_the_circle():
    return diagnose(circle())


def numbers(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def test_lines_answer_the_three_questions():
    lines = diagnosis_of_the_circle().lines()
    assert lines[0].startswith("intrinsic dimension: 1 (")
    assert lines[1] == "overfitting: yes"
    assert lines[2] == "recommended latent_dim: 1"
    low, high = map(float, lines[0].split("(")[1].rstrip(")").split("-"))
    assert 0.8 < low <= 1 <= high < 1.5


def test_the_dictionary_is_json_and_says_the_same(tmp_path):
    found = diagnosis_of_the_circle()
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (values["intrinsic_dimension"], values["verdict"], values["latent_dim"]) == (1, "yes", 1)
    assert len(values["noise_scales"]["scales"]) == len(found.noise_scales.scales)


def test_the_same_seed_and_any_order_give_the_same(tmp_path):
    assert diagnose(circle().flip(0)).to_dict() == diagnosis_of_the_circle().to_dict()


def test_the_unit_changes_scales_only():
    plain, large = diagnosis_of_the_circle(), diagnose(1000 * circle())
    assert large.dimension.recommended == plain.dimension.recommended
    assert large.spectrum == pytest.approx([1000 * std for std in plain.spectrum])
    assert large.overfitting.scales == pytest.approx([1000 * scale for scale in plain.overfitting.scales])


def test_the_figure_is_written_completely_or_not_at_all(tmp_path):
    found = diagnosis_of_the_circle()
    found.plot(tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        found.plot(tmp_path / "file" / "figure.png")


def test_a_curve_without_scales_is_drawn_too(tmp_path):
    found = diagnose(gaussian(22, 3).repeat(5, 1))
    assert not found.noise_scales.scales
    found.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()


def test_a_sorted_table_has_no_more_categories_than_a_shuffled_one():
    column = torch.arange(3000).div(100, rounding_mode="floor")[:, None]  # 30 values, 10 of them in the first rows
    assert not any("categories" in warning for warning in diagnose(torch.cat([gaussian(3000, 1), column], 1)).warnings)


CATEGORIES = torch.randint(0, 3, (300, 1), generator=torch.Generator().manual_seed(0))
ODD = {
    "one coordinate": (gaussian(200, 1), "no", "one coordinate"),
    "a constant column": (torch.cat([gaussian(300, 2), torch.ones(300, 1)], 1), "yes", "1 of 3 columns are constant"),
    "a repeated column": (gaussian(300, 2)[:, [0, 1, 1]], "yes", "1 of 3 columns repeat another"),
    "repeated rows": (gaussian(200, 2).repeat(2, 1), "no", "200 rows repeat another"),
    "a column of categories": (
        torch.cat([gaussian(300, 2), CATEGORIES], 1),
        None,
        "column 3 has 10 values or fewer",
    ),
    "an identity": (
        torch.cat([gaussian(300, 2), 100 * torch.rand(300, 1)], 1),
        None,
        "column 3 has 5 times the std",
    ),
    "50 rows": (gaussian(50, 3), None, None),
    "fewer rows than columns": (gaussian(60, 200), "undecided", "60 rows span at most 59 directions"),
    "equally far": (torch.eye(80), None, None),
    "images": (torch.randint(0, 256, (100, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte(), None, None),
}


@pytest.mark.parametrize("name", ODD)
def test_unusual_data_get_a_warning_and_numbers(name):
    x, verdict, message = ODD[name]
    found = diagnose(x)
    assert verdict in (None, found.overfitting.verdict)
    assert message is None or any(message in warning for warning in found.warnings)
    assert all(map(math.isfinite, numbers(found.to_dict())))
    assert 1 <= found.latent_dim <= found.dim


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (gaussian(49, 2), "49 rows are too few"),
        (gaussian(20, 3).repeat(30, 1), "20 distinct rows"),
        (gaussian(100, 2).index_fill(0, torch.tensor([3]), math.nan), "not finite"),
        (torch.ones(100, 3), "1 are distinct"),
    ],
)
def test_unfit_data_are_refused_in_one_line(x, message):
    with pytest.raises(UserError, match=message) as caught:
        diagnose(x)
    assert "\n" not in str(caught.value)


def test_the_command_writes_text_numbers_and_figure(twostep, tmp_path):
    np.save(tmp_path / "circle.npy", circle().numpy())
    outcome = twostep("diagnose", "--dataset", str(tmp_path / "circle.npy"), "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("intrinsic dimension: 1 (")
    assert json.loads((tmp_path / "out" / "diagnosis.json").read_text())["verdict"] == "yes"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"diagnosis.json", "diagnosis.png"}


def test_the_command_takes_tables_and_keys_of_sets(twostep, tmp_path):
    table = "\n".join(["a,b", *(f"{a},{b}" for a, b in circle(200).tolist())])
    (tmp_path / "table.csv").write_text(table)
    to = ("--to", str(tmp_path / "out"))
    assert "overfitting: yes" in twostep("diagnose", "--dataset", str(tmp_path / "table.csv"), *to).out
    keys = ("--dataset-kwargs", "n=300", "--dataset-kwargs", "ambient_dim=4")
    assert "overfitting: yes" in twostep("diagnose", "--dataset", "affine", *keys, *to, "--force").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--dataset"),
        (("somewhere",), "somewhere: no such"),
        (("somewhere", "elsewhere"), "somewhere: no such directory"),
        ((".", "--thorough"), "--thorough"),
        ((".", "--per-point", "rows.csv"), "--per-point"),
        (("somewhere", "--dataset", "digits"), "--dataset"),
        (("--dataset", "nothing"), "nothing"),
        (("--dataset", "nothing.npy"), "nothing.npy"),
        (("--dataset", "digits", "--to", __file__), __file__),
    ],
)
def test_the_command_refuses_in_one_line(twostep, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = twostep("diagnose", *arguments)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_arrays_are_accepted_like_tensors():
    assert diagnose(circle().numpy()).to_dict() == diagnosis_of_the_circle().to_dict()


def test_too_few_rows_asked_for_are_refused():
    with pytest.raises(UserError, match="n=0 rows are too few"):
        diagnose(circle(), n=0)


def test_what_rounding_hides_is_undecided():
    x = (1e6 + gaussian(1000, 3) * torch.tensor([1, 1, 0.1])).float()
    assert diagnose(x).overfitting.verdict == "undecided"
