"""One pass over the metrics of a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from twostep.metrics.base import METRICS, Result, RowMetric, SumOverRanks
from twostep.metrics.ood.ood import OODAccuracy
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.metrics.samples.table import SampleMetric
from twostep.models.base import evaluating


def evaluate(
    names: Iterable[str],
    model: nn.Module,
    batches: Iterable[Tensor],
    sum_over_ranks: SumOverRanks,
    seed: int,
    sets: FeatureSets | None = None,
) -> dict[str, Result]:
    """Measure a model, in eval mode, without gradients, with the same random numbers for the same seed.

    Args:
        names: of the metrics; those of the OOD test are left to `twostep.metrics.ood.ood`.
        model: that is measured.
        batches: rows that it is measured on, this rank's.
        sum_over_ranks: adds what every rank has.
        seed: of what metrics of rows draw.
        sets: what samples are compared with; needed if one of the metrics compares them.
    """
    results: dict[str, Result] = {}
    with evaluating(model):
        for name in dict.fromkeys(names):
            torch.manual_seed(seed)
            metric = METRICS[name]
            if isinstance(metric, OODAccuracy):
                continue
            if isinstance(metric, SampleMetric):
                assert sets is not None
                results |= metric(sets)
            else:
                assert isinstance(metric, RowMetric)
                results |= metric(model, batches, sum_over_ranks)
    return results
