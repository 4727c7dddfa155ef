"""The running mean of training steps."""

import pytest
import torch

from twostep.nn.layers import RunningMean

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
