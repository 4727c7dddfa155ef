"""A classifier's accuracy: that of the best possible one where it is known, guessing where nothing differs."""

from statistics import NormalDist

import pytest
import torch

from helpers.distributions import gaussian
from twostep.metrics.samples.c2st import c2st


def test_equal_distributions_give_chance():
    found = c2st(gaussian(800, 5), gaussian(800, 5, seed=1))
    assert found.low <= 0.5 <= found.high
    assert found.n == (800, 800)


@pytest.mark.parametrize("gap", [1.0, 3.0])
def test_two_normal_distributions_are_separated_as_well_as_possible(gap):
    best = NormalDist().cdf(gap / 2)
    found = c2st(gaussian(900, 2), gaussian(900, 2, seed=1) + torch.tensor([gap, 0.0]))
    assert found.value == pytest.approx(best, abs=0.04)


def test_what_no_plane_separates_is_recognised():
    ring = gaussian(600, 2)
    assert c2st(gaussian(600, 2, seed=1) * 0.2, ring / ring.norm(dim=1, keepdim=True)).low > 0.9


def test_sets_of_different_sizes_are_cut_so_that_guessing_is_a_half():
    found = c2st(gaussian(2000, 3), gaussian(200, 3, seed=1))
    assert found.n == (200, 200)
    assert found.low <= 0.5 <= found.high


def test_the_same_seed_gives_the_same_digits():
    pair = gaussian(60, 3), gaussian(60, 3, 0.5, seed=1)
    assert c2st(*pair, seed=1) == c2st(*pair, seed=1)


def test_constant_columns_and_the_fewest_rows():
    x = torch.cat([gaussian(20, 2), torch.ones(20, 1)], 1)
    assert 0 <= c2st(x, x + 1).value <= 1
