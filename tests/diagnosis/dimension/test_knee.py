"""The knee: found on curves that turn, none on steady ones."""

import math

import pytest

from twostep.diagnosis.dimension.knee import knee_of

SIZES = [1, 2, 4, 5, 6, 7, 10, 15]


def turning(at, floor):
    """An error that halves with each coordinate up to `at` and then drops to a floor that falls slowly."""
    return [0.5**size if size < at else floor / math.sqrt(1 + size - at) for size in SIZES]


@pytest.mark.parametrize("at", [1, 2, 5, 7, 10])
@pytest.mark.parametrize("floor", [1e-4, 0.0])
def test_a_curve_that_turns_has_its_knee_where_it_turns(at, floor):
    assert knee_of(SIZES, turning(at, floor)) == at


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_a_power_of_the_size_has_no_knee(power):
    assert knee_of(SIZES, [(1 + size) ** -power for size in SIZES]) is None


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_exponential_decay_has_no_knee(rate):
    assert knee_of(SIZES, [math.exp(-rate * size) for size in SIZES]) is None


@pytest.mark.parametrize("rank", [15, 20, 100])
def test_equal_variances_have_no_knee_even_if_the_last_size_leaves_nothing(rank):
    assert knee_of(SIZES, [1 - size / rank for size in SIZES]) is None


def test_a_smooth_bend_is_no_knee():
    assert knee_of(SIZES, [(1 + size) ** -2 + 0.01 for size in SIZES]) is None


def test_the_smallest_of_several_knees_must_have_no_steep_step_after_it():
    assert knee_of([1, 2, 3, 4, 5], [0.1, 0.099, 0.098, 1e-4, 1e-4]) == 4


def test_the_last_size_and_a_single_size_are_no_knee():
    assert knee_of([1, 2], [0.5, 0.001]) is None
    assert knee_of([3], [0.001]) is None
    assert knee_of([], []) is None


def test_a_diverged_autoencoder_is_no_knee():
    assert knee_of([1, 2, 3], [0.5, math.nan, 0.49]) is None


def test_no_knee_stands_before_a_size_that_halves_the_error_again():
    assert knee_of([1, 2, 3, 4], [0.0495, 0.0246, 0.0213, 0.0181]) is None, "a circle in R^10 with noise of 5 %"
