"""Samples off the data, growth of a likelihood, and a density beside the true distribution."""

import math

import pytest
import torch

from helpers.charts import rows
from helpers.distributions import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.model.density import compare_with_truth, growth, off_support


def test_samples_of_the_distribution_are_on_its_support():
    found = off_support(*(rows("swiss_roll", n, seed) for n, seed in ((2000, 0), (500, 1), (500, 2))))
    assert found.verdict == "good"
    assert found.numbers["share"] < 0.03


def test_samples_off_the_support_are_those_that_are_far():
    train, held_out, samples = (rows("von-mises-circle", n, seed) for n, seed in ((2000, 0), (500, 1), (400, 2)))
    samples[:100] *= 1.2
    found = off_support(train, held_out, samples)
    assert found.verdict == "check"
    assert 0.25 <= found.numbers["share"] < 0.265


def test_less_than_a_hundredth_of_the_radius_is_on_the_support():
    train, held_out, samples = (rows("von-mises-circle", n, seed) for n, seed in ((4000, 0), (500, 1), (400, 2)))
    assert off_support(train, held_out, 1.005 * samples).verdict == "good"


def epochs(rate, noise, n=40):
    curve = -5 * torch.exp(-torch.arange(n) / 3.0) + rate * torch.arange(n)
    return (curve + noise * gaussian(n, 1)[:, 0]).tolist()


def test_the_rate_of_growth_is_that_of_the_last_quarter():
    found = growth(epochs(0.02, 0.001))
    assert found.numbers["nats_an_epoch"] == pytest.approx(0.02, abs=0.001)
    assert found.verdict == "check"


@pytest.mark.parametrize(("rate", "noise"), [(0.0, 0.001), (0.02, 0.5), (-0.05, 0.001), (0.001, 0.0001)])
def test_a_likelihood_that_has_settled_is_good(rate, noise):
    assert growth(epochs(rate, noise)).verdict == "good"


def test_few_epochs_give_no_finding():
    assert growth([1.0, 2.0, 3.0, 4.0]) is None
    assert growth([math.nan] * 9) is None
    assert growth([]) is None


def circle(noise, n=2000):
    x = rows("von-mises-circle", n, 0)
    return distribution("von-mises-circle", {"noise": noise}).log_prob(x), x, distribution("von-mises-circle")


@pytest.mark.parametrize("noise", [0.1, 0.01, 0.001])
def test_the_noise_of_the_true_distribution_is_found(noise):
    found = compare_with_truth(*circle(noise), dim=2)
    assert found.numbers["alike"] == pytest.approx(noise, rel=0.02)
    assert found.numbers["error"] < 0.1
    assert found.numbers["right"] == pytest.approx(-1.6274, abs=0.05)
    assert found.verdict == "check"


def test_the_wrong_distribution_scores_higher_if_it_concentrates_more():
    """The wrong distribution is p², here von Mises with twice the concentration."""
    log_probs, x, known = circle(0.01)
    squared = distribution("von-mises-circle", {"kappa": 2.0})
    assert known.kappa == 1.0
    found = compare_with_truth(log_probs, x, known, dim=2)
    assert found.numbers["wrong"] == pytest.approx(float(squared.log_prob(x).mean()), abs=0.02)
    enough = found.numbers["enough"]
    for noise, higher in ((0.9 * enough, True), (1.1 * enough, False)):
        wrong = distribution("von-mises-circle", {"kappa": 2.0, "noise": noise}).log_prob(x)
        assert (wrong.mean() > log_probs.mean()) == higher


def test_a_density_on_the_manifold_is_good_or_as_wrong_as_a_wrong_distribution():
    x, known = rows("von-mises-circle", 2000, 0), distribution("von-mises-circle")
    right = compare_with_truth(known.log_prob(x), x, known, dim=1)
    assert right.verdict == "good"
    assert right.numbers["error"] == 0
    for log_probs in (known.log_prob(x) + 0.5, distribution("von-mises-circle", {"kappa": 4.0}).log_prob(x)):
        assert compare_with_truth(log_probs, x, known, dim=1).verdict == "check"


def test_a_full_dimensional_distribution_is_compared_directly():
    x, known = rows("8gaussians", 1000, 0), distribution("8gaussians", {})
    assert compare_with_truth(known.log_prob(x), x, known, dim=2).verdict == "good"
    assert compare_with_truth(known.log_prob(x) - 3, x, known, dim=2).verdict == "check"
    assert compare_with_truth(known.log_prob(x), x, known, dim=1) is None


def test_embeddings_of_too_many_dimensions_leave_room_for_concentration():
    inside = distribution("von-mises-circle", {"ambient_dim": 9})
    x = inside.sample(2000, torch.Generator().manual_seed(0))
    noisy = inside.log_prob(x) - 2 * math.log(0.01 * math.sqrt(2 * math.pi))
    found = compare_with_truth(noisy, x, inside, dim=3)
    assert found.numbers["alike"] == pytest.approx(0.01)
    assert "embeddings in R^1" in found.advice


def test_a_distribution_without_a_density_gives_no_finding():
    noisy = distribution("torus", {"noise": 0.1})
    x = noisy.sample(50, torch.Generator().manual_seed(0))
    assert compare_with_truth(torch.zeros(50), x, noisy, dim=2) is None
