"""Copies are caught, honest generators are not accused, and z is that of SciPy."""

import math
from statistics import NormalDist

import pytest
import torch
from scipy.stats import mannwhitneyu

from helpers.distributions import coverage, gaussian
from twostep.metrics.samples.memorisation import memorisation, nearer_to_training, of_distances

TRAIN, HELD_OUT = gaussian(400, 6), gaussian(300, 6, seed=1)


def copying(share, n=300, noise=0.05):
    """Return samples of which some share repeats training points, nearly."""
    copies = round(share * n)
    return torch.cat([TRAIN[:copies] + noise * gaussian(copies, 6, seed=3), gaussian(n - copies, 6, seed=4)])


def test_samples_of_the_distribution_itself_are_not_accused():
    found = memorisation([TRAIN], HELD_OUT, gaussian(300, 6, seed=2))
    assert abs(found.c_t.value) < 2.5
    assert found.farther.low <= 0.5 <= found.farther.high
    assert found.copies.low <= 0.01 <= found.copies.high


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_generator_that_repeats_the_training_data_is_caught(noise):
    found = memorisation([TRAIN], HELD_OUT, copying(1.0, noise=noise))
    assert found.c_t.high < -10
    assert found.farther.high < 0.1
    assert found.copies.low > 0.9


def test_a_share_of_copies_too_small_to_move_the_ranks_much_is_counted():
    found = memorisation([TRAIN], HELD_OUT, copying(0.1))
    assert found.c_t.value > -6
    assert found.copies.value == pytest.approx(0.1, abs=0.025)
    assert found.copies.low > 0.02


def test_samples_off_the_data_have_the_other_sign():
    found = memorisation([TRAIN], HELD_OUT, gaussian(300, 6, scale=2, seed=2))
    assert found.c_t.low > 10
    assert found.copies.value < 0.01


def test_copies_are_counted_where_held_out_rows_repeat_training_rows_too():
    held_out = torch.cat([TRAIN[:30], gaussian(270, 6, seed=1)])
    assert memorisation([TRAIN], held_out, copying(0.5, noise=0.0)).copies.value == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_samples_nearer_to_training_data(share):
    found = nearer_to_training(TRAIN, HELD_OUT, copying(share, n=4000 if share == 0 else 300))
    assert found.low <= share + (1 - share) / 2 <= found.high
    held_out = nearer_to_training(TRAIN, HELD_OUT, HELD_OUT)
    assert held_out.low <= 0.5 <= held_out.high, "held-out points are not their own neighbours"


@pytest.mark.parametrize("size", [7, 150, 399])
def test_blocks_of_the_training_data_give_what_the_whole_does(size):
    whole, blocks = (
        memorisation([TRAIN], HELD_OUT, copying(0.3)),
        memorisation(TRAIN.split(size), HELD_OUT, copying(0.3)),
    )
    assert blocks == whole
    assert "400 training rows" in whole.farther.method


@pytest.mark.parametrize("ties", [False, True])
def test_z_is_that_of_scipy(ties):
    held_out, samples = gaussian(80, 1)[:, 0], gaussian(60, 1, 0.4, seed=1)[:, 0]
    if ties:
        held_out, samples = held_out.round(), samples.round()
    found = of_distances(held_out, samples)
    theirs = mannwhitneyu(samples, held_out, use_continuity=False, method="asymptotic")
    assert found.farther.value == pytest.approx(theirs.statistic / (80 * 60), rel=1e-12)
    assert 2 * NormalDist().cdf(-abs(found.c_t.value)) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_distances_and_their_squares_give_the_same():
    held_out, samples = gaussian(80, 1).abs()[:, 0], gaussian(60, 1, 0.4, seed=1).abs()[:, 0]
    assert of_distances(held_out, samples) == of_distances(held_out**2, samples**2)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_intervals_hold_the_truth(shift):
    """Of normal distances both truths are closed forms."""
    distribution = NormalDist()
    rounds = [
        of_distances(gaussian(300, 1, seed=2 * i)[:, 0], gaussian(200, 1, -shift, seed=2 * i + 1)[:, 0], i)
        for i in range(40)
    ]
    assert coverage([one.farther for one in rounds], distribution.cdf(-shift / math.sqrt(2))) >= 0.85
    assert coverage([one.copies for one in rounds], distribution.cdf(distribution.inv_cdf(0.01) + shift)) >= 0.85


def test_distances_that_are_all_alike_have_no_z():
    found = of_distances(torch.zeros(10), torch.zeros(10))
    assert (found.c_t.value, found.farther.value, found.copies.value) == (0, 0.5, 1)
