"""Whether a density that is trained is worth its time: it must beat a mixture of Gaussians, fitted in a second."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch

from twostep.core.result import Result
from twostep.core.seeds import derive
from twostep.data.batches import subsample
from twostep.experiment.components import Component
from twostep.experiment.evaluator import Evaluator
from twostep.models.base import DensityEstimator, evaluating
from twostep.models.gmm import GaussianMixture
from twostep.nn.transforms import Chain, Whiten

MOST_DIM = 64
ROWS = 5000  # of training, to which it is fitted
LEAST = 50
COMPONENTS = 16
WORSE = 0.1  # nats

logger = logging.getLogger("twostep")


def comment_densities(results: dict[str, dict[str, Result]], evaluator: Evaluator) -> None:
    """Note in the results which log-likelihood a mixture of Gaussians has; warn where it beats a trained density.

    It is measured for densities of at most 64 coordinates that are normalised, on the same test rows; not where a
    coordinate has few values, on which a component can collapse.
    """
    for one in evaluator.models:
        found = results[one.name].get("log_likelihood")
        if found is None or not _comparable(one, found) or len(evaluator.splits.train) < LEAST:
            continue
        floor = mixture_log_likelihood(one, evaluator)
        if floor is None:
            continue
        note = f"a mixture of Gaussians: {floor:.5g}"
        results[one.name]["log_likelihood"] = replace(found, note="; ".join(filter(None, (found.note, note))))
        gap, error = floor - found.value, found.standard_error or math.inf
        if gap > max(WORSE, error):
            logger.warning(
                "%s: a mixture of Gaussians has a log-likelihood %.2g nats higher than %s on test rows: train longer "
                "(max_epochs, max_steps, max_minutes), lower lr, or take gmm",
                *(one.name, gap, one.config.name),
            )


def mixture_log_likelihood(one: Component, evaluator: Evaluator) -> float | None:
    """Return the mean log-density, in nats, of the test rows of a component under a mixture fitted to training rows.

    None where most values of a coordinate have come before.
    """
    splits = evaluator.splits
    train, test = (evaluator.seen(one, rows).data for rows in (subsample(splits.train, ROWS), splits.test))
    known = train[:].float()
    if min(len(column.unique()) for column in known.T) < len(known) / 2:
        return None
    mixture = GaussianMixture(one.model.event_shape, COMPONENTS, transform=Chain([Whiten(one.model.event_shape)]))
    with torch.random.fork_rng([]), evaluating(mixture):
        torch.manual_seed(derive(evaluator.run.seed, "mixture"))
        mixture.fit_transform([known])
        total = sum(float(mixture.log_prob(rows.float()).double().sum()) for rows in test.split(ROWS))
    return total / len(test)


def _comparable(one: Component, found: Result) -> bool:
    model = one.model
    vectors = model.columns is None and len(model.event_shape) == 1 and model.dim <= MOST_DIM
    trained = isinstance(model, DensityEstimator) and bool(model.objectives()) and not model.noise.dequantizes
    return vectors and trained and found.kind != "unnormalised" and math.isfinite(found.value)
