"""Many fits: memory does not grow, and crossed calibration has its level, and power where splitting has none."""

import pytest

import estimators

pytestmark = pytest.mark.slow


def test_two_hundred_fits_in_one_process_do_not_grow():
    assert estimators.growth() < 10


def test_crossed_calibration_of_few_rows_keeps_its_level_and_has_power():
    """With 120 rows, 6 calibrate if they are split: no p-value is below 1/7. Crossed, 60 do."""
    split, cross = (estimators.rates(kind, 120, 8) for kind in ("split", "cross"))
    assert split[1].max() == 0
    level, power = cross
    assert level.mean() < 0.05 + 2 * level.std(ddof=1) / len(level) ** 0.5
    assert power.mean() > 0.5
