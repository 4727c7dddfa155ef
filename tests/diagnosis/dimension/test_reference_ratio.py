"""Ratios to a full-dimensional distribution: 1 for such data, less on manifolds; the linear rank."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.schema import UserError
from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.calibration import Calibration, reference_ratio
from twostep.diagnosis.dimension.estimators import likelihood
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods


def drawn(name, n=2000, **keys):
    return distribution(name, keys).sample(n, torch.Generator().manual_seed(0))


def clusters(dim):
    kinds = torch.randint(0, 5, (2000,), generator=torch.Generator().manual_seed(1))
    return gaussian(2000, dim) + 3 * gaussian(5, dim, seed=2)[kinds]


FULL = {
    "Gaussian 5": gaussian(2000, 5),
    "Gaussian 20": gaussian(2000, 20),
    "stretched": gaussian(2000, 20) * torch.logspace(0, -2, 20, dtype=torch.double),
    "Gaussian 1": gaussian(2000, 1),
}
RATIOS = {  # measured with n = 3,000 and a Gaussian reference
    "circle": (drawn("von-mises-circle", kappa=0.0), 0.50),
    "swiss roll": (drawn("swiss_roll"), 0.64),
    "S^2": (drawn("uniform_sphere"), 0.66),
    "S^5": (drawn("uniform_sphere", manifold_dim=5), 0.83),
    "S^10": (drawn("uniform_sphere", manifold_dim=10), 0.90),
}


@pytest.mark.parametrize("name", FULL)
def test_the_ratio_of_full_dimensional_data_is_1(name):
    found = reference_ratio(neighbourhoods(FULL[name], 20))
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert found.fills_space
    assert found.rank == FULL[name].shape[1]


@pytest.mark.parametrize("name", RATIOS)
def test_the_ratio_of_a_manifold_is_below_1(name):
    x, ratio = RATIOS[name]
    found = reference_ratio(neighbourhoods(x, 20))
    assert found.ratio == pytest.approx(ratio, abs=0.03)
    assert not found.fills_space
    assert found.std < 0.02


def test_clusters_are_compared_with_a_mixture():
    found = reference_ratio(neighbourhoods(clusters(10), 20))
    assert "mixture" in found.distribution
    assert found.ratio == pytest.approx(1, abs=0.06)


def test_repeated_coordinates_show_in_the_rank_alone():
    found = reference_ratio(neighbourhoods(drawn("repeated").float(), 20))
    assert found.rank == 2
    assert found.ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_rounding_adds_nothing_to_the_rank(dtype, shift):
    plane = (drawn("affine", manifold_dim=2, ambient_dim=10, n=500) + shift).to(dtype)
    near = neighbourhoods(plane, 20)
    coordinates, scales = near.principal
    assert len(scales) == 2
    torch.testing.assert_close(coordinates.std(0), scales)


def test_a_constant_column_hides_no_direction_however_large_it_is():
    plane = drawn("affine", manifold_dim=2, ambient_dim=10, n=500)
    near = neighbourhoods(torch.cat([plane, torch.full((500, 1), 1e9)], 1), 20)
    assert len(near.principal[1]) == 2


def test_small_columns_count_beside_large_ones():
    columns = gaussian(500, 3) * torch.tensor([1e4, 1.0, 3e-2])
    assert len(neighbourhoods(columns.float(), 20).principal[1]) == 3


def test_rows_that_differ_by_rounding_alone_are_refused():
    near = neighbourhoods((1e9 + gaussian(200, 3) * 200).float(), 20)
    with pytest.raises(UserError, match="subtract the mean of each column"):
        _ = near.principal


def test_the_ratio_is_the_same_for_the_same_seed_and_leaves_the_global_one():
    near = neighbourhoods(clusters(3)[:500], 20)
    state = torch.random.get_rng_state()
    assert reference_ratio(near, seed=3) == reference_ratio(near, seed=3)
    assert reference_ratio(near, seed=3) != reference_ratio(near, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scaling_by_the_ratio_is_wrong_where_calibration_is_right():
    near = neighbourhoods(drawn("network_manifold", manifold_dim=5, ambient_dim=20), 20)
    reference = reference_ratio(near)
    assert reference.ratio * reference.rank > 10
    value = likelihood(near)
    even = torch.ones(reference.rank)
    low, high = (Calibration(kind, even, near.n, 20).correct(value, likelihood) for kind in ("Gaussian", "cube"))
    assert 4.3 < low < 5 < high < 5.7
