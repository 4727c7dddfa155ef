"""Conformal p-values: the level holds by simulation, for any distribution, dependent parts, ties and bad scales."""

import math

import numpy as np
import pytest

from twostep.metrics.ood.conformal import Surprise, TwoPart, p_values, parts_of
from twostep.metrics.ood.detection import auroc

LEVELS = (0.02, 0.05, 0.1, 0.25, 0.5)


def cauchy(random, n):
    return random.standard_cauchy(n)


def skewed(random, n):
    return -random.lognormal(0, 2, n)


def rates(trials, draw, two_sided=False, held_out=39, new=4):
    """Return the false-positive rate at each level, over held-out rows and new ones, and its standard error."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(trials):
        p = p_values(draw(random, held_out), draw(random, new), two_sided)
        found.append([(p <= level).mean() for level in LEVELS])
    return np.mean(found, 0), np.std(found, 0) / math.sqrt(trials)


@pytest.mark.parametrize("draw", [cauchy, skewed])
def test_the_level_is_exact_for_any_distribution(draw):
    rate, error = rates(4000, draw)
    expected = np.floor(np.array(LEVELS) * 40 + 1e-9) / 40
    assert (np.abs(rate - expected) < 4 * error + 1e-12).all()


def test_two_sided_false_positives_come_from_both_sides_within_the_level():
    rate, error = rates(4000, cauchy, two_sided=True)
    expected = 2 * np.floor(np.array(LEVELS) * 20 + 1e-9) / 40
    assert (np.abs(rate - expected) < 4 * error + 1e-12).all()
    held_out = np.arange(99.0)
    low, middle, high = p_values(held_out, np.array([-1.0, 49.0, 100.0]), two_sided=True)
    assert low == high == 0.02
    assert middle == 1.0
    assert p_values(held_out, np.array([100.0])) == 1.0


def test_ties_give_fewer_false_positives_never_more():
    def integers(random, n):
        return random.integers(0, 6, n).astype(float)

    for two_sided in (False, True):
        rate, error = rates(3000, integers, two_sided)
        assert (rate < np.array(LEVELS) + 3 * error).all()
    assert p_values(np.zeros(9), np.zeros(2)).tolist() == [1.0, 1.0]


def test_the_planted_mistakes_break_the_level():
    """Without the 1 + of the new row, or with equal rows taken for odd, the rate at a level is too high."""
    random = np.random.default_rng(0)
    trials = [(random.normal(size=39), random.normal(size=4)) for _ in range(3000)]
    without = np.mean([((held[:, None] <= new).mean(0) <= 0.02).mean() for held, new in trials])
    assert without > 0.022
    rate, _ = rates(3000, cauchy)
    assert rate[0] <= 0.02


def test_p_values_are_those_of_the_definition():
    random = np.random.default_rng(3)
    held_out, new = np.round(random.normal(size=30), 1), np.round(random.normal(size=50), 1)
    expected = (1 + (held_out[:, None] <= new).sum(0)) / 31
    assert np.array_equal(p_values(held_out, new), expected)
    assert p_values(held_out, np.array([-9.0])) == 1 / 31
    assert p_values(held_out, np.array([-9.0]), two_sided=True) == 2 / 31


# ---- the two-part score


def parts(random, n, dependence):
    """Give the parts of n rows: `opposed` ones are odd in different rows, `same` ones in the same, or independent."""
    density, distance = random.normal(size=(2, n))
    if dependence == "same":
        distance = density
    elif dependence == "opposed":
        distance = -density + 0.1 * distance
    return {"log_prob": 7 * density - 100, "reconstruction_error": -np.exp(distance)}


@pytest.mark.parametrize("dependence", ["independent", "same", "opposed"])
def test_the_false_positive_rate_of_the_combination_is_the_level(dependence):
    random = np.random.default_rng(0)
    trials, n = 1000, 78
    found = []
    for seed in range(trials):
        held_out, new = parts(random, n, dependence), parts(random, 4, dependence)
        p = TwoPart(held_out, seed).p_values(new)
        found.append([(p <= level).mean() for level in LEVELS])
    rate, error = np.mean(found, 0), np.std(found, 0) / math.sqrt(trials)
    levels = np.array(LEVELS)
    assert (rate < levels + 3 * error).all()
    assert (rate > levels - 1 / (n // 2 + 1) - 3 * error).all()


def test_calibrating_on_the_rows_of_the_scales_breaks_the_level():
    """The planted mistake: the minimum of the parts' own p-values, not calibrated again, is too often small."""
    random, found = np.random.default_rng(0), []
    for _ in range(1000):
        held_out, new = parts(random, 39, "opposed"), parts(random, 4, "opposed")
        density = p_values(held_out["log_prob"], new["log_prob"], two_sided=True)
        distance = p_values(held_out["reconstruction_error"], new["reconstruction_error"])
        found.append(np.minimum(density, distance) <= 0.1)
    assert np.mean(found) > 0.13


def test_the_score_repeats_and_its_halves_follow_the_seed():
    held_out, new = (parts(np.random.default_rng(seed), 200, "independent") for seed in (0, 1))
    one, again, other = (TwoPart(held_out, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.p_values(new), again.p_values(new))
    assert not np.array_equal(one.p_values(new), other.p_values(new))
    assert len(one.calibration) == 100


def test_rows_are_evaluated_one_by_one():
    held_out, new = (parts(np.random.default_rng(seed), 60, "same") for seed in (0, 1))
    fitted = TwoPart(held_out, 0)
    alone = np.concatenate([fitted.p_values({name: rows[[i]] for name, rows in new.items()}) for i in range(60)])
    assert np.array_equal(fitted.p_values(new), alone)


def test_each_unusual_score_is_found_and_a_small_distance_is_not_unusual():
    fitted = TwoPart(parts(np.random.default_rng(0), 2000, "independent"), 0)
    usual = {"log_prob": -100.0, "reconstruction_error": -1.0}
    odd = [
        {"reconstruction_error": -1e4},
        {"log_prob": -300.0},
        {"log_prob": 100.0},
        {"reconstruction_error": -1e-6},
        {},
    ]
    found = [fitted.p_values({name: np.array([value]) for name, value in {**usual, **one}.items()})[0] for one in odd]
    assert max(found[:3]) < 0.002
    assert min(found[3:]) > 0.2


def test_far_rows_are_sorted_beyond_all_held_out_ones():
    fitted = TwoPart(parts(np.random.default_rng(0), 200, "independent"), 0)
    far = {"log_prob": np.full(4, -100.0), "reconstruction_error": -np.array([1e3, 1e4, 1e5, 1e30])}
    assert (np.diff(fitted.score(far)) < 0).all()
    assert np.ptp(fitted.p_values(far)) == 0


def areas(seed, **odd):
    """Return the AUROC of the distance, of the density, and of both, for rows whose parts are moved so far."""
    random = np.random.default_rng(seed)
    held_out, inside, outside = (parts(random, n, "independent") for n in (2000, 20_000, 20_000))
    outside["reconstruction_error"] *= np.exp(odd.get("distance", 0))
    outside["log_prob"] -= 7 * odd.get("density", 0)
    fitted = TwoPart(held_out, 0)
    alone = [auroc(inside[name], outside[name]).value for name in ("reconstruction_error", "log_prob")]
    return *alone, auroc(fitted.score(inside), fitted.score(outside)).value


@pytest.mark.parametrize("gap", [1.5, 2.5, 3.5])
def test_an_uninformative_density_costs_little(gap):
    distance, density, both = areas(0, distance=gap)
    assert density == pytest.approx(0.5, abs=0.01)
    assert both > distance - 0.025
    assert 1 - both < 1.3 * (1 - distance)


@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_evidence_of_both_parts_adds_up(gap):
    distance, density, both = areas(0, distance=gap, density=gap)
    assert both > max(distance, density) + 0.15 * (1 - max(distance, density))


def test_each_part_alone_finds_what_is_far_out():
    assert min(areas(0, distance=8)[2], areas(0, density=12)[2]) > 0.98


@pytest.mark.parametrize("rows", [4, 16, 40])
def test_few_held_out_rows_combine_the_parts_as_many_do(rows):
    """A tail without a scale outranks everything: the first row beyond the held-out ones is then the oddest of all."""
    found = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        held_out, inside, outside = (parts(random, n, "independent") for n in (rows, 2000, 2000))
        outside["reconstruction_error"] *= np.exp(1.5)
        outside["log_prob"] -= 7 * 1.5
        fitted = TwoPart(held_out, seed)
        assert np.median(-fitted.score(outside)) < 1000
        alone = [auroc(inside[name], outside[name]).value for name in ("reconstruction_error", "log_prob")]
        found.append(auroc(fitted.score(inside), fitted.score(outside)).value - max(alone))
    assert min(found) > 0
    assert np.mean(found) > 0.02


@pytest.mark.parametrize(("rows", "odd"), [(20, False), (58, False), (60, True), (400, True)])
def test_a_density_too_high_counts_where_enough_rows_support_it(rows, odd):
    fitted = TwoPart(parts(np.random.default_rng(0), rows, "independent"), 0)
    usual, high = (
        {"log_prob": np.array([value]), "reconstruction_error": np.array([-1.0])} for value in (-100.0, 100.0)
    )
    assert (fitted.score(high) < fitted.score(usual) - 1)[0] == odd


@pytest.mark.parametrize("more", [(), ("relative_distance",), ("nearest_distance",)])
def test_weights_and_shares_are_parts_of_one(more):
    found = parts_of(("reconstruction_error", "log_prob", *more))
    assert sum(weight for weight, _ in found) == pytest.approx(1)
    for _, sides in found:
        assert sum(sides.values()) == pytest.approx(1)
    assert {"reconstruction_error", "log_prob", *more} == {name for _, sides in found for name, _ in sides}


def with_third(random, n, name):
    """Give rows with one more score, which depends on the distance."""
    rows = parts(random, n, "independent")
    return rows | {name: rows["reconstruction_error"] * random.lognormal(0, 0.5, n)}


@pytest.mark.parametrize("name", ["relative_distance", "nearest_distance"])
def test_a_third_score_keeps_the_level_and_finds_rows_that_only_it_sees(name):
    random = np.random.default_rng(0)
    rates, found = [], []
    for seed in range(300):
        fitted = TwoPart(with_third(random, 100, name), seed)
        new = with_third(random, 20, name)
        rates.append((fitted.p_values(new) <= 0.1).mean())
        found.append((fitted.p_values(new | {name: new[name] * 100}) <= 0.1).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.03)
    assert np.mean(found) > 0.8


def test_an_image_that_is_far_too_near_is_unusual():
    random = np.random.default_rng(0)
    fitted = TwoPart(with_third(random, 400, "relative_distance"), 0)
    usual = with_third(random, 200, "relative_distance")
    near = usual | {name: usual[name] * 1e-4 for name in ("reconstruction_error", "relative_distance")}
    assert np.median(fitted.p_values(near)) < 0.1
    vectors = TwoPart(parts(random, 400, "independent"), 0)
    assert np.median(vectors.p_values(near)) > 0.3


# ---- scales


def test_the_tail_of_an_exponential_distribution_is_exact():
    scores = -np.random.default_rng(0).exponential(2.0, 200_000)
    surprise = Surprise(scores)
    assert surprise(np.array([-1.0, -8.0, -40.0])) == pytest.approx([0.5, 4.0, 20.0], rel=0.02)


def test_a_scale_is_continuous_and_falls():
    surprise = Surprise(np.random.default_rng(0).normal(size=50))
    x = np.linspace(-6, 6, 20_001)
    steps = np.diff(surprise(x))
    assert steps.max() <= 0
    assert steps.min() > -0.05  # no jump: a rank is 0.7 at the least


def test_a_tail_without_rows_has_the_scale_of_the_spread():
    normal = np.random.default_rng(0).normal(size=(500, 6))
    beyond = np.array([Surprise(rows)(rows.min(keepdims=True) - 1)[0] for rows in normal])
    assert np.median(beyond) < 6  # -log P(s < -2.3) is 4.5
    tied = np.r_[np.full(30, -1.0), np.random.default_rng(1).normal(size=70).clip(-1)]
    assert Surprise(tied)(np.array([-1.5]))[0] < 4


@pytest.mark.parametrize(
    "held_out", [np.zeros(20), np.repeat([0.0, 1.0], [15, 5]), np.r_[np.zeros(19), 1e30], np.array([1.0, 2.0])]
)
def test_scales_of_odd_scores_are_finite_and_ordered(held_out):
    surprise = Surprise(held_out)
    found = surprise(np.array([-1e30, -1.0, 0.0, 0.5, 1.0, 1e30]))
    assert np.isfinite(found).all()
    assert (np.diff(found) <= 0).all()
    assert found[1] > found[2]
