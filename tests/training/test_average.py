"""The moving average of weights: its formula, and that a trainer validates, keeps and resumes it."""

import torch
from torch import nn

from twostep.training.average import Average


def test_it_follows_its_formula_and_swaps_there_and_back():
    layer = nn.Linear(3, 2)
    average, expected = Average(layer, 0.5), layer.weight.detach().clone()
    for step in range(6):
        with torch.no_grad():
            layer.weight.add_(step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    last = layer.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.weight, last)


def test_without_a_decay_nothing_is_kept():
    layer = nn.Linear(3, 2)
    average = Average(layer, None)
    average.update(0)
    before = layer.weight.detach().clone()
    with average.applied():
        assert torch.equal(layer.weight, before)
    assert average.values == {}
