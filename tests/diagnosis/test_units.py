"""Columns of different units: they are recognised, brought to one scale, and said to be."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.cli.flags import Table
from twostep.diagnosis import diagnose
from twostep.diagnosis.units import different_units, standardized

UNITS = torch.tensor([1.0, 0.01, 1000.0])


def circle_and_column(n=600):
    """Give a circle in the plane and an independent third column: two dimensions."""
    angle = 6.283 * torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return torch.stack([angle.cos(), angle.sin(), gaussian(n, 1, seed=1)[:, 0]], 1)


@pytest.mark.parametrize(
    ("x", "differ"),
    [
        (gaussian(100, 4), False),
        (gaussian(100, 3) * UNITS, True),
        (torch.cat([gaussian(100, 2), 1e-3 * gaussian(100, 1)], 1), False),
        (gaussian(100, 12).reshape(100, 3, 2, 2) * 1e3, False),
        ((gaussian(100, 3) * UNITS).to(torch.uint8), False),
        (torch.ones(100, 3), False),
    ],
)
def test_columns_of_different_units_are_recognised(x, differ):
    assert different_units(x) == differ


def test_standardised_columns_have_one_scale_and_constant_ones_none():
    y = standardized(torch.cat([7 + gaussian(100, 3) * UNITS, torch.full((100, 1), 5.0)], 1))
    assert y.mean(0).abs().max() < 1e-9
    assert y.std(0, correction=0).tolist() == pytest.approx([1, 1, 1, 0])


def test_a_wide_column_hides_the_others_unless_units_are_brought_to_one_scale():
    x = circle_and_column() * UNITS
    found, raw = diagnose(x, name="mine"), diagnose(x, standardize=False)
    assert (found.dimension.recommended, found.standardized) == (2, True)
    assert (raw.dimension.recommended, raw.standardized) == (1, False)
    assert any("different units" in line for line in found.lines())
    assert any("dominate all distances: standardise" in line for line in raw.lines())
    assert found.to_dict()["name"] == "mine"
    assert found.next_command("my table.csv", *Table(["sep=;"], drop="an id").typed()) == (
        "twostep train --dataset 'my table.csv' --dataset-kwargs 'sep=;' --drop 'an id' --gae-model ae --de-model flow "
        "--latent-dim 2"
    )


def test_levels_as_one_hot_vectors_are_not_standardised_nor_warned_of_one_by_one():
    levels = torch.nn.functional.one_hot(torch.arange(300) % 40).float()
    rows = torch.cat([gaussian(300, 2), levels], 1)
    found = diagnose(rows, mixed=True)
    assert different_units(rows)
    assert not found.standardized
    assert len(found.warnings) == 1
    assert "--gae-model vae" in found.next_command("x.csv")


def test_data_that_fill_their_space_get_a_density_alone():
    found = diagnose(gaussian(600, 2))
    assert found.next_command("x.npy") == "twostep train-single --dataset x.npy --model flow"
