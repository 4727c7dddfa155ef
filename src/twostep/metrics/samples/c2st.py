"""Classifier two-sample test: how often a network tells a sample from a data point that it has not seen.

Half of the rows of both sets train a small network, the other half are told apart by it. The share that is right is ½
where the laws are alike, 1 where no sample passes for data. Sets are cut to the same number of rows, so that guessing
is ½; it is a figure of this classifier, and a better one may see more.

Source: Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017, arXiv 1610.06545).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.metrics.samples.estimates import Estimate, check_features, permutation, wilson

HIDDEN = 64
ROWS = 10_000
"""Rows of each set at most."""


def c2st(data: Tensor, samples: Tensor, seed: int = 0) -> Estimate:
    """Return the accuracy on unseen rows of a network with a hidden layer, told to separate data from samples.

    Args:
        data: features `(n, D)`.
        samples: features `(m, D)`.
        seed: of the halves and of the network.

    Raises:
        UserError: if the features can't be compared, or have fewer than 20 rows.
    """
    check_features(20, data=data, samples=samples)
    half = min(len(data), len(samples), ROWS) // 2
    orders = [permutation(len(x), derive(seed, name), x.device) for x, name in ((data, "data"), (samples, "samples"))]
    seen, unseen = (
        torch.cat([data[orders[0][rows]], samples[orders[1][rows]]]).double().cpu()
        for rows in (slice(half), slice(half, 2 * half))
    )
    mean, std = seen.mean(0), seen.std(0)
    scaled = [((x - mean) / torch.where(std > 0, std, 1)).numpy() for x in (seen, unseen)]
    labels = torch.tensor([0, 1]).repeat_interleave(half).numpy()
    share = float((_trained(scaled[0], labels, seed).predict(scaled[1]) == labels).mean())
    low, high = wilson(share, 2 * half)
    method = f"binomial, on {2 * half:,} unseen rows; of a network trained on as many"
    return Estimate(share, low, high, (2 * half, 2 * half), method)


def _trained(x: Any, labels: Any, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning  # here because it takes a second
    from sklearn.neural_network import MLPClassifier

    state = derive(seed, "network") % 2**32
    network: Any = MLPClassifier((HIDDEN,), early_stopping=True, max_iter=100, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped at the last pass: still a classifier
        return network.fit(x, labels)
