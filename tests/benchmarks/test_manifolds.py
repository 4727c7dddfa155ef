"""Two-step densities of trained models against the truth on manifolds: minutes of training each."""

import pytest

from manifolds import measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s_curve", "swiss_roll", "network_manifold"])
def test_log_densities_are_right_where_one_chart_covers_the_manifold(name):
    found = measure(name)
    assert found.covered >= 0.98
    assert abs(found.per_dim) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["von-mises-circle", "sphere", "torus"])
def test_the_gap_of_a_manifold_that_closes_sits_at_the_cut(name):
    """No chart covers a circle, a sphere or a torus: it is cut somewhere, and elsewhere the density is right."""
    found = measure(name)
    assert found.median == pytest.approx(0, abs=0.1 * found.dim)
    assert abs(found.per_dim) <= 0.05
