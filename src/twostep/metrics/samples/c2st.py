"""Classifier two-sample test: the accuracy of a network that separates samples from data, on rows not seen in training.

Half of the rows of both sets, cut to the same size, train a small network, the other half test it. The accuracy is ½ if
the distributions are equal, 1 if all samples are recognised. A better classifier may find more differences.

Source: Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017, arXiv 1610.06545).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from twostep.core.estimate import wilson
from twostep.core.seeds import derive
from twostep.metrics.samples.checks import SampleEstimate, permutation

MAX_ROWS = 10_000  # of each set
MIN_ROWS = 20


def c2st(data: Tensor, samples: Tensor, seed: int = 0) -> SampleEstimate:
    """Return the test accuracy of a network with one hidden layer, trained to separate data from samples.

    The seed is that of the halves of the features, `(n, D)` and `(m, D)`, and of the network.
    """
    from sklearn.exceptions import ConvergenceWarning  # here because it takes a second
    from sklearn.neural_network import MLPClassifier

    half = min(len(data), len(samples), MAX_ROWS) // 2
    orders = [permutation(len(x), derive(seed, name), x.device) for x, name in ((data, "data"), (samples, "samples"))]
    train, test = (
        torch.cat([data[orders[0][rows]], samples[orders[1][rows]]]).double().cpu()
        for rows in (slice(half), slice(half, 2 * half))
    )
    mean, std = train.mean(0), train.std(0)
    train, test = (((x - mean) / torch.where(std > 0, std, 1)).numpy() for x in (train, test))
    labels = torch.tensor([0, 1]).repeat_interleave(half).numpy()
    state = derive(seed, "network") % 2**32
    network: Any = MLPClassifier((64,), early_stopping=True, max_iter=100, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a classifier all the same
        network.fit(train, labels)
    accuracy = float((network.predict(test) == labels).mean())
    method = f"binomial, on {2 * half:,} test rows, after training on as many"
    return SampleEstimate(accuracy, *wilson(accuracy, 2 * half), (2 * half, 2 * half), method)
