"""Many rows at once: q-values keep the false-discovery rate, a planted shift is seen, and none is without one."""

import numpy as np
import pytest

from twostep.metrics.ood.conformal import p_values
from twostep.metrics.ood.many import SHIFT_LEVEL, q_values, shift_of


def test_q_values_are_those_of_the_definition():
    p = np.array([0.5, 0.01, 0.04, 0.03, 0.01])
    assert q_values(p) == pytest.approx([0.5, 0.025, 0.05, 0.05, 0.025])
    assert q_values(np.array([])).shape == (0,)
    random = np.random.default_rng(0).random(50)
    assert (q_values(random) >= random).all()
    assert (np.diff(q_values(np.sort(random))) >= 0).all()


def test_a_share_of_the_rows_called_out_is_in_distribution():
    random, shares = np.random.default_rng(0), []
    for _ in range(200):
        held_out, new = random.normal(size=400), random.normal(size=100)
        new[:20] -= 5
        called = q_values(p_values(held_out, new)) <= 0.2
        shares.append(called[20:].sum() / max(1, called.sum()))
    assert np.mean(shares) < 0.2
    assert np.mean(shares) > 0.05, "and not because none is called out"


@pytest.mark.parametrize("scores", ["normal", "ties"])
def test_rows_of_the_same_distribution_seldom_differ(scores):
    random, alarms = np.random.default_rng(0), []
    for _ in range(600):
        held_out, new = random.normal(size=60), random.normal(size=40)
        if scores == "ties":
            held_out, new = np.round(held_out), np.round(new)
        alarms.append(shift_of(held_out, new).differs)
    assert np.mean(alarms) < SHIFT_LEVEL + 0.01


@pytest.mark.parametrize(("shift", "seen"), [(-1.0, True), (1.0, True), (0.0, False)])
def test_a_planted_shift_is_seen(shift, seen):
    random = np.random.default_rng(1)
    found = shift_of(random.normal(size=200), random.normal(size=100) + shift)
    assert found.differs == seen
    assert found.statistic == pytest.approx(0.4, abs=0.15) if seen else found.statistic < 0.2


def test_few_rows_and_infinite_scores_are_no_alarm():
    held_out = np.random.default_rng(0).normal(size=500)
    assert not shift_of(held_out, np.full(4, -9.0)).differs
    assert shift_of(held_out, np.full(40, -np.inf)).statistic == 1
