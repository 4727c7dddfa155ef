"""The running mean of training steps, and coordinates that it standardises."""

import pytest
import torch

from twostep.nn.layers import RunningMean, Standardize

START = torch.tensor(7.0)


def test_the_mean_of_the_first_steps_is_not_drawn_to_its_start():
    running = RunningMean(())
    assert running.mean(START) == 7
    running.update(torch.tensor(3.0), 0.01)
    assert running.mean(START) == pytest.approx(3)
    running.update(torch.tensor(5.0), 0.01)
    assert running.mean(START) == pytest.approx((0.99 * 3 + 5) / 1.99)


@pytest.mark.parametrize("shares", [[0.1] * 6, [0.5, 0.1, 1.0, 0.2, 0.3, 0.1]])
def test_each_step_has_its_share_and_what_is_older_the_rest(shares):
    values = torch.randn(len(shares), 2, 2, generator=torch.Generator().manual_seed(0))
    running = RunningMean((2, 2))
    expected, weights = torch.zeros(2, 2), 0.0
    for value, share in zip(values, shares, strict=True):
        next_mean = running.with_next(value, share)
        running.update(value, share)
        expected, weights = (1 - share) * expected + share * value, (1 - share) * weights + share
        assert torch.allclose(running.mean(START), expected / weights, atol=1e-6)
        assert torch.equal(next_mean, running.mean(START))


def test_weights_that_were_saved_without_it_leave_it_at_its_start():
    running = RunningMean((2,))
    running.update(torch.ones(2), 0.5)
    running.load_state_dict({})
    assert torch.equal(running.mean(START), START.expand(2))


def points(n, seed=0):
    return 3 + 2 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def test_a_batch_is_standardised_in_training_and_new_points_by_the_last_batches():
    layer = Standardize(4)
    for step in range(600):
        z = layer.of_batch(points(64, step))
        layer.count(lambda rows: rows)
    assert torch.allclose(z.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(z.var(0, correction=0), torch.ones(4), atol=1e-4)
    new = layer(points(20_000, seed=1000))
    assert torch.allclose(new.mean(0), torch.zeros(4), atol=0.05)
    assert torch.allclose(new.std(0), torch.ones(4), atol=0.05)
    assert torch.equal(layer(points(9)[:7]), layer(points(9))[:7]), "whatever the other points are"


def test_all_ranks_count_the_points_of_all():
    one, other = Standardize(4), Standardize(4)
    one.of_batch(points(10))
    other.of_batch(points(3, seed=1))
    one.count(lambda rows: torch.cat([rows, points(3, seed=1)]))
    other.count(lambda rows: torch.cat([points(10), rows]))
    assert torch.equal(one.mean.total, other.mean.total)
    assert torch.equal(one.variance.total, other.variance.total)
    idle = Standardize(4)
    idle.count(lambda rows: torch.cat([rows, points(10), points(3, seed=1)]))
    assert torch.equal(one.mean.total, idle.mean.total), "also a rank that had no rows"
