"""Seeds: the same for the same purpose on every machine, and never shared by two purposes."""

from hypothesis import given
from hypothesis import strategies as st

from twostep.core.seeds import derive

PURPOSE = st.lists(st.integers(0, 10**9) | st.sampled_from(["step", "epoch", "gae", "de"]), max_size=4)


def test_the_figures_never_change():
    assert derive(0) == 4761921975702974394
    assert derive(0, "step", 1, 2) == 4343171528350181203


@given(st.integers(-(10**6), 10**6), PURPOSE)
def test_a_seed_fits_every_generator(seed, purpose):
    assert 0 <= derive(seed, *purpose) < 2**63


@given(st.integers(0, 10**6), PURPOSE, st.integers(0, 10**6), PURPOSE)
def test_other_purposes_have_other_seeds(seed, purpose, other_seed, other_purpose):
    same = [seed, *map(str, purpose)] == [other_seed, *map(str, other_purpose)]
    assert (derive(seed, *purpose) == derive(other_seed, *other_purpose)) == same


def test_places_do_not_run_into_each_other():
    assert len({derive(1, 23, 4), derive(12, 3, 4), derive(1, 2, 34), derive(1234), derive(1, "23", 4, 0)}) == 5
