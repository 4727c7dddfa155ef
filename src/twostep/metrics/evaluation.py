"""Check and compute metrics by their names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from twostep.core.schema import UserError
from twostep.metrics.base import METRICS, Result, RowMetric, SumOverRanks
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.metrics.samples.table import SampleMetric
from twostep.models.base import evaluating


def check_metrics(names: Iterable[str], model: nn.Module, owner: str) -> None:
    """Raise a `UserError` for a metric that does not exist or is undefined for a model, which it calls `owner`."""
    for name in names:
        if reason := METRICS[name].refusal(model):
            raise UserError(f"{name}: {owner} has no such metric: {reason}")


def evaluate(
    names: Iterable[str],
    model: nn.Module,
    batches: Iterable[Tensor],
    sum_over_ranks: SumOverRanks,
    seed: int,
    feature_sets: FeatureSets | None = None,
) -> dict[str, Result]:
    """Evaluate a model in evaluation mode, without gradients; the same seed gives the same random numbers.

    Args:
        names: names of the metrics; those of OOD detection are skipped (see `twostep.metrics.ood.ood`).
        model: the model.
        batches: this rank's rows of data.
        sum_over_ranks: sums a tensor over all ranks.
        seed: of the random numbers that row metrics draw.
        feature_sets: what samples are compared with; required if a metric compares samples.
    """
    results: dict[str, Result] = {}
    with evaluating(model):
        for name in dict.fromkeys(names):
            torch.manual_seed(seed)
            metric = METRICS[name]
            if isinstance(metric, SampleMetric):
                assert feature_sets is not None
                results |= metric(feature_sets)
            elif isinstance(metric, RowMetric):
                results |= metric(model, batches, sum_over_ranks)
    return results
