"""One dimension for a dataset: right where the truth is known, and never without reasons or with NaN."""

import math
import re

import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.schema import UserError
from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.calibration import Calibration
from twostep.diagnosis.dimension.consensus import consensus, dimension_of
from twostep.diagnosis.dimension.estimators import likelihood
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods


def seeded():
    return torch.Generator().manual_seed(0)


EXACT = {
    "circle": ("von-mises-circle", {}),
    "circle in R^50": ("von-mises-circle", {"ambient_dim": 50}),
    "circle with noise": ("von-mises-circle", {"noise": 1e-3}),
    "torus": ("torus", {}),
    "Klein bottle": ("klein", {}),
    "swiss roll": ("swiss_roll", {}),
    "S-curve": ("s_curve", {}),
    "plane repeated": ("repeated", {}),
    "S^3": ("uniform_sphere", {"manifold_dim": 3}),
    "S^5": ("uniform_sphere", {"manifold_dim": 5}),
    "network": ("network_manifold", {"manifold_dim": 5, "ambient_dim": 20}),
    "affine": ("affine", {"manifold_dim": 10, "ambient_dim": 60}),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_dimension_is_that_of_the_manifold(name):
    known = distribution(*EXACT[name])
    found = dimension_of(known.sample(2000, torch.Generator().manual_seed(1)))
    assert found.recommended == known.intrinsic_dim
    assert found.low <= found.recommended <= found.high
    assert found.high <= found.recommended + 1


HIGH = {
    "sphere": lambda d: distribution("uniform_sphere", {"manifold_dim": d, "ambient_dim": 40}).sample(1500, seeded()),
    "cube": lambda d: torch.rand(1500, d, generator=seeded()),
    "Gaussian": lambda d: gaussian(1500, d),
}


@pytest.mark.parametrize("d", [10, 19])
@pytest.mark.parametrize("name", HIGH)
def test_high_dimensions_are_within_one(d, name):
    found = dimension_of(HIGH[name](d))
    assert abs(found.recommended - d) <= 1
    assert found.low <= d <= found.high
    assert found.votes[0].estimate.value < 0.93 * d  # as it is, it is too low


def test_flat_directions_that_few_points_cannot_show_stay_in_the_range():
    found = dimension_of(gaussian(1000, 20) * torch.logspace(0, -2, 20, dtype=torch.double))
    assert found.recommended < 15
    assert found.high == 20
    assert any("full-dimensional data" in reason for reason in found.reasons)


@pytest.mark.parametrize(("dim", "least"), [(5, 5), (10, 10), (20, 17)])
def test_uneven_directions_count(dim, least):
    found = dimension_of(gaussian(1000, dim) * torch.logspace(0, -1, dim, dtype=torch.double))
    assert least <= found.recommended <= dim == found.high
    assert all(vote.value > 1.05 * vote.estimate.value for vote in found.votes[:2])


def test_uneven_directions_of_a_curved_manifold_count_more_than_by_even_distributions():
    known = distribution("network_manifold", {"manifold_dim": 20, "ambient_dim": 100})
    near = neighbourhoods(known.sample(1000, torch.Generator().manual_seed(0)))
    found = consensus(near)
    even = [Calibration(kind, torch.ones(100), near.n, 20) for kind in ("Gaussian", "cube")]
    value = found.votes[0].estimate.value
    assert found.votes[0].value > 2 + sum(reference.correct(value, likelihood) for reference in even) / 2
    assert 15 <= found.recommended <= 20


def test_noise_too_small_to_see_adds_no_dimension_and_is_named():
    wide = gaussian(1000, 3) * torch.tensor([1, 1, 0.2])
    found = dimension_of(torch.cat([wide, gaussian(1000, 60, scale=0.02, seed=1)], 1))
    assert found.recommended == 3
    assert found.votes[0].estimate.value > 4
    assert "3 directions are wide enough to count, 60 too narrow for 1,000 points" in found.reasons


def test_directions_below_a_gap_are_left_out_as_noise():
    plane = torch.cat([gaussian(1000, 2), torch.zeros(1000, 98)], 1)
    found = dimension_of(plane + gaussian(1000, 100, scale=0.05, seed=1))
    assert (found.recommended, found.low, found.high) == (2, 2, 2)
    assert found.reasons[-1].startswith("98 directions")


def test_order_and_a_tenth_of_repeated_rows_change_nothing():
    x = distribution("torus", {}).sample(800, torch.Generator().manual_seed(0))
    plain = dimension_of(x, n=500)
    assert dimension_of(x.flip(0), n=500) == plain
    repeated = dimension_of(torch.cat([x, x[:80]]), n=500)
    assert repeated.votes[0].value == plain.votes[0].value
    assert repeated.warnings == ("80 rows repeat another and were left out",)


def test_the_seed_decides_the_resamples_of_every_vote():
    x = distribution("torus", {}).sample(300, torch.Generator().manual_seed(0))
    one, again, other = (dimension_of(x, seed=seed) for seed in (0, 0, 1))
    assert one == again
    for mine, theirs in zip(one.votes[:2], other.votes[:2], strict=True):
        assert mine.estimate.value == theirs.estimate.value
        assert (mine.estimate.low, mine.estimate.high) != (theirs.estimate.low, theirs.estimate.high)


ODD = {
    "one coordinate": (gaussian(200, 1), 1, "one coordinate"),
    "a constant column": (torch.cat([gaussian(300, 2), torch.ones(300, 1)], 1), 2, "1 of 3 columns are constant"),
    "a repeated column": (gaussian(300, 2)[:, [0, 1, 1]], 2, "1 of 3 columns repeat another"),
    "integers": (torch.cartesian_prod(torch.arange(25), torch.arange(25)), 2, "lie on a grid"),
    "50 rows": (gaussian(50, 3), 3, None),
    "fewer rows than columns": (gaussian(60, 200), 59, "60 rows span at most 59 directions"),
    "no tensor of tables": (gaussian(300, 1)[:, 0], 1, "one coordinate"),
    "equally far": (torch.eye(80) @ torch.linalg.qr(gaussian(80, 80)).Q.float(), None, "equally far"),
}


@pytest.mark.parametrize("name", ODD)
def test_unusual_data_get_a_warning_and_numbers(name):
    x, recommended, message = ODD[name]
    found = dimension_of(x)
    assert recommended in (None, found.recommended)
    assert any(message in warning for warning in found.warnings) if message else not found.warnings
    numbers = [found.reference.ratio, found.reference.std, *found.reference.estimates]
    for vote in found.votes:
        numbers += [vote.value, vote.low, vote.high, vote.estimate.value, vote.estimate.low, vote.estimate.high]
    numbers += [estimate.value for estimate in found.curve]
    assert all(map(math.isfinite, numbers))


def test_too_few_distinct_rows_are_refused():
    for rows in (3, 20):
        with pytest.raises(UserError, match=f"{rows} distinct rows"):
            dimension_of(gaussian(rows, 3).repeat(30, 1))


def test_reasons_name_the_numbers():
    near = neighbourhoods(distribution("swiss_roll", {}).sample(500, torch.Generator().manual_seed(0)), 60)
    found = consensus(near)
    text = "\n".join(found.reasons)
    assert f"maximum likelihood with 20 neighbours: {found.votes[0].estimate.value:.2f}" in text
    assert "60 neighbours" in text
    assert "vary in 3 of 3 directions" in text
    assert [estimate.k for estimate in found.curve] == [5, 10, 20, 50]


# ---- what one number hides


def union(first, second, rows=(600, 600)):
    """Draw from two Gaussians of these dimensions in R^12, apart from one another."""
    parts = [
        gaussian(n, d, seed=d) @ gaussian(d, 12, seed=d + 20) / d**0.5
        for n, d in zip(rows, (first, second), strict=True)
    ]
    return torch.cat([parts[0], parts[1] + 6])


@pytest.mark.parametrize("dimensions", [(1, 2), (2, 5), (4, 8)])
def test_components_of_several_dimensions_get_a_warning(dimensions):
    found = dimension_of(union(*dimensions))
    (warning,) = [line for line in found.warnings if "components of several dimensions" in line]
    low, high = (float(number) for number in re.findall(r"from ([\d.]+) to ([\d.]+)", warning)[0])
    assert low < dimensions[0] + 0.5
    assert high > 0.75 * dimensions[1]  # as it is, it is too low


ONE = {
    "torus": lambda: distribution("torus", {}).sample(1000, seeded()),
    "swiss roll": lambda: distribution("swiss_roll", {}).sample(1000, seeded()),
    "S^8": lambda: distribution("uniform_sphere", {"manifold_dim": 8, "ambient_dim": 12}).sample(1000, seeded()),
    "two of one dimension": lambda: union(3, 3),
    "cube": lambda: torch.rand(1000, 5, generator=seeded()),
    "Student-t": lambda: gaussian(1000, 3) / (gaussian(1000, 3, seed=1).square().sum(1, keepdim=True) / 3).sqrt(),
    "exponential": lambda: -torch.rand(1000, 6, generator=seeded(), dtype=torch.double).log(),
    "few rows": lambda: gaussian(100, 4),
}


@pytest.mark.parametrize("name", ONE)
def test_components_of_one_dimension_get_no_warning(name):
    assert not [line for line in dimension_of(ONE[name]()).warnings if "components" in line]


def test_a_large_correction_leaves_the_estimate_in_the_range():
    """A product of 32 circles has the estimates of a flat distribution of 64 dimensions."""
    angles = 2 * math.pi * torch.rand(1000, 32, generator=seeded(), dtype=torch.double)
    found = dimension_of(torch.stack([angles.cos(), angles.sin()], 2).flatten(1))
    assert found.low <= 32 <= found.high
    assert any("a curved manifold" in line for line in found.warnings)
    assert not [line for line in dimension_of(gaussian(1000, 10)).warnings if "a curved manifold" in line]
