"""Nearest others against all distances; rows that repeat, tie, lie on grids, or are refused."""

import numpy as np
import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.schema import UserError
from twostep.diagnosis.dimension.distinct_rows import heaped_column
from twostep.diagnosis.dimension.estimators import dimensions_around, maximum_likelihood, two_nn
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods


@pytest.mark.parametrize("dim", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_the_nearest_others_are_those_of_all_distances(dim, shift):
    near = neighbourhoods(gaussian(150, dim, shift), 20)
    every = torch.cdist(near.points, near.points, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    torch.testing.assert_close(near.distances, every.sort(1).values[:, :20])
    torch.testing.assert_close(near.distances, every.gather(1, near.indices))
    assert near.points.abs().max() == 1


def test_images_are_flattened_to_rows():
    pixels = torch.randint(0, 256, (60, 1, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    near, flat = neighbourhoods(pixels, 5), neighbourhoods(pixels.double().flatten(1), 5)
    assert near.dim == 20
    torch.testing.assert_close(near.distances.sort(0).values, flat.distances.sort(0).values)


def test_rows_that_repeat_are_left_out_and_counted():
    x = gaussian(300, 4)
    repeated = torch.cat([x, x[:30], -0.0 * x[:1], 0.0 * x[:1]])  # -0 is 0
    near = neighbourhoods(repeated, 10)
    assert near.n == 301
    assert "31 rows repeat another and were left out" in near.warnings


def test_a_subsample_has_its_neighbours_within_it():
    x = gaussian(500, 3)
    near = neighbourhoods(x, 10, n=100)
    assert near.n == 100
    assert int(near.indices.max()) < 100
    assert torch.equal(near.points, neighbourhoods(x.flip(0), 10, n=100).points)
    assert not torch.equal(near.points, neighbourhoods(x, 10, n=100, seed=1).points)


def test_on_a_grid_neighbours_tie_and_noise_of_one_step_frees_them():
    grid = torch.cartesian_prod(torch.arange(30), torch.arange(30))
    table = torch.cat([grid, grid, torch.full((900, 1), 7)], 1)  # two columns repeat another, one is constant
    near = neighbourhoods(table, 20)
    assert any("grid" in warning for warning in near.warnings)
    assert torch.equal(near.points[:, :2], near.points[:, 2:4])
    assert float(near.points[:, 4].std()) < 1e-12
    assert maximum_likelihood(near).value == pytest.approx(2, abs=0.3)
    raw = torch.cdist(grid.double(), grid.double()).sort(1).values[:, 1:21].log()
    assert 1 / float((raw[:, -1:] - raw[:, :-1]).mean()) > 2.8  # what the grid alone would say


def test_a_fine_grid_is_left_as_it_is():
    x = (1000 * gaussian(400, 5)).round()
    assert neighbourhoods(x, 20).warnings == ()


def test_equally_far_points_that_lie_on_no_grid_are_finite_and_named():
    turned = torch.eye(60, dtype=torch.double) @ torch.linalg.qr(gaussian(60, 60)).Q
    near = neighbourhoods(turned, 20)
    assert any("equally far" in warning for warning in near.warnings)
    for estimate in (maximum_likelihood(near), two_nn(near)):
        assert np.isfinite([estimate.value, estimate.low, estimate.high]).all()
    assert bool(dimensions_around(near).isfinite().all())


def test_values_of_few_digits_get_a_warning():
    assert neighbourhoods(1e6 + gaussian(200, 3).double(), 5).warnings == ()
    (warning,) = neighbourhoods((1e6 + gaussian(200, 3)).float(), 5).warnings
    assert "subtract the mean of each column" in warning


def test_a_code_for_a_missing_value_gets_a_warning_and_common_tails_do_not():
    coded = gaussian(500, 3).index_fill(0, torch.tensor([7]), -9999.0)
    (warning,) = neighbourhoods(coded, 5).warnings
    assert warning.startswith("1 rows")
    assert neighbourhoods(gaussian(500, 3).exp(), 5).warnings == ()


REFUSED = {
    "few": (gaussian(49, 2), "49 rows are too few"),
    "not a number": (torch.cat([gaussian(60, 2), torch.full((2, 2), torch.nan)]), "2 rows have values"),
    "infinite": (torch.cat([gaussian(60, 2), torch.full((1, 2), torch.inf)]), "1 rows have values"),
    "constant": (torch.ones(60, 3), "of which 1 are distinct"),
    "complex": (gaussian(60, 3).to(torch.complex64), "not real numbers"),
    "a number": (torch.tensor(3.0), "has no rows"),
    "no columns": (torch.ones(60, 0), "no coordinates"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_dimension_is_refused_in_one_line(name):
    x, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as refusal:
        neighbourhoods(x, 10)
    assert "\n" not in str(refusal.value)


def test_too_few_distinct_rows_for_k():
    near = neighbourhoods(gaussian(15, 3).repeat(10, 1), 20)
    assert near.k == 14
    with pytest.raises(UserError, match="15 distinct rows"):
        maximum_likelihood(near, 20)


def test_a_value_far_more_frequent_than_others_is_found():
    x = gaussian(2000, 3)
    assert heaped_column(x) is None
    assert heaped_column((x * 100).round() / 100) is None
    assert heaped_column(x.round()) is None
    assert heaped_column(torch.cat([x, torch.ones(2000, 1)], 1)) is None
    x[:100, 1] = 0.5
    assert heaped_column(x) == 2
