"""Samples off the data, growth of a likelihood, and a density beside the true law."""

import math

import pytest
import torch

from helpers.charts import rows
from helpers.laws import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.model.growth import growth
from twostep.diagnosis.model.off_support import off_support
from twostep.diagnosis.model.true_distribution import against_law


def test_samples_of_the_law_are_on_its_support():
    found, off = off_support(*(rows("swiss_roll", n, seed) for n, seed in ((2000, 0), (500, 1), (500, 2))))
    assert found.verdict == "good"
    assert off.double().mean() == found.numbers["share"] < 0.03


def test_samples_off_the_support_are_those_that_are_far():
    train, held_out, samples = (rows("von-mises-circle", n, seed) for n, seed in ((2000, 0), (500, 1), (400, 2)))
    samples[:100] *= 1.2
    found, off = off_support(train, held_out, samples)
    assert found.verdict == "look here"
    assert off[:100].all()
    assert off[100:].double().mean() < 0.02


def test_less_than_a_hundredth_of_the_spread_is_no_leaving():
    train, held_out, samples = (rows("von-mises-circle", n, seed) for n, seed in ((4000, 0), (500, 1), (400, 2)))
    assert off_support(train, held_out, 1.005 * samples)[0].verdict == "good"


def epochs(rate, noise, n=40):
    curve = -5 * torch.exp(-torch.arange(n) / 3.0) + rate * torch.arange(n)
    return (curve + noise * gaussian(n, 1)[:, 0]).tolist()


def test_the_rate_of_growth_is_that_of_the_last_quarter():
    found = growth(epochs(0.02, 0.001))
    assert found.numbers["nats_an_epoch"] == pytest.approx(0.02, abs=0.001)
    assert found.verdict == "look here"
    assert "still growing by 0.02 nats an epoch at the end" in found.told


@pytest.mark.parametrize(("rate", "noise"), [(0.0, 0.001), (0.02, 0.5), (-0.05, 0.001), (0.001, 0.0001)])
def test_a_likelihood_that_has_settled_is_good(rate, noise):
    assert growth(epochs(rate, noise)).verdict == "good"


def test_few_epochs_tell_nothing():
    assert growth([1.0, 2.0, 3.0, 4.0]) is None
    assert growth([math.nan] * 9) is None
    assert growth([]) is None


def circle(noise, n=2000):
    x = rows("von-mises-circle", n, 0)
    return distribution("von-mises-circle", {"noise": noise}).log_prob(x), x, distribution("von-mises-circle")


@pytest.mark.parametrize("noise", [0.1, 0.01, 0.001])
def test_the_blur_of_the_true_law_is_found(noise):
    found = against_law(*circle(noise), dim=2)
    assert found.numbers["alike"] == pytest.approx(noise, rel=0.02)
    assert found.numbers["error"] < 0.1
    assert found.numbers["right"] == pytest.approx(-1.6274, abs=0.05)
    assert found.verdict == "look here"


def test_the_wrong_law_that_is_thinner_scores_higher():
    """The wrong law is p², here von Mises with twice the concentration; a tenth as thick it outscores the right one."""
    log_probs, x, known = circle(0.01)
    squared = distribution("von-mises-circle", {"kappa": 2.0})
    assert known.kappa == 1.0
    found = against_law(log_probs, x, known, dim=2)
    assert found.numbers["wrong"] == pytest.approx(float(squared.log_prob(x).mean()), abs=0.02)
    enough = found.numbers["enough"]
    for blur, higher in ((0.9 * enough, True), (1.1 * enough, False)):
        wrong = distribution("von-mises-circle", {"kappa": 2.0, "noise": blur}).log_prob(x)
        assert (wrong.mean() > log_probs.mean()) == higher


def test_a_density_on_the_manifold_is_right_or_as_wrong_as_a_wrong_law():
    x, known = rows("von-mises-circle", 2000, 0), distribution("von-mises-circle")
    right = against_law(known.log_prob(x), x, known, dim=1)
    assert right.verdict == "good"
    assert right.numbers["error"] == 0
    for log_probs in (known.log_prob(x) + 0.5, distribution("von-mises-circle", {"kappa": 4.0}).log_prob(x)):
        assert against_law(log_probs, x, known, dim=1).verdict == "look here"


def test_a_law_that_fills_its_space_is_compared_as_it_is():
    x, known = rows("8gaussians", 1000, 0), distribution("8gaussians", {})
    assert against_law(known.log_prob(x), x, known, dim=2).verdict == "good"
    assert against_law(known.log_prob(x) - 3, x, known, dim=2).verdict == "look here"
    assert against_law(known.log_prob(x), x, known, dim=1) is None


def test_embeddings_of_too_many_dimensions_leave_room_for_thinness():
    inside = distribution("von-mises-circle", {"ambient_dim": 9})
    x = inside.sample(2000, torch.Generator().manual_seed(0))
    blurred = inside.log_prob(x) - 2 * math.log(0.01 * math.sqrt(2 * math.pi))
    found = against_law(blurred, x, inside, dim=3)
    assert found.numbers["alike"] == pytest.approx(0.01)
    assert "embeddings in R^1" in found.advice


def test_a_law_without_a_density_says_nothing():
    noisy = distribution("torus", {"noise": 0.1})
    x = noisy.sample(50, torch.Generator().manual_seed(0))
    assert against_law(torch.zeros(50), x, noisy, dim=2) is None
