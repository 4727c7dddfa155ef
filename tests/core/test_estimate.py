"""Estimates and their intervals against closed forms."""

import pytest
from scipy import stats

from twostep.core.estimate import NORMAL, Estimate, wilson


def test_a_normal_interval_has_its_margin_and_standard_error():
    found = Estimate.normal(2.0, 0.5)
    assert found.interval == pytest.approx(stats.norm.interval(0.95, 2.0, 0.5), abs=1e-6)
    assert found.margin == pytest.approx(0.5 * NORMAL)
    assert found.standard_error == pytest.approx(0.5)
    assert Estimate.symmetric(1.0, 0.25) == Estimate(1.0, 0.75, 1.25)


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_the_interval_of_a_share_is_wilsons(count, n):
    low, high = stats.binomtest(count, n).proportion_ci(0.95, "wilson")
    assert wilson(count / n, n) == pytest.approx((low, high), abs=1e-6)
