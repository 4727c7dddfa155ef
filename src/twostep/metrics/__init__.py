"""Metrics of models, registered by name in `METRICS`."""

from twostep.metrics import rows as rows
from twostep.metrics.base import METRICS, Metric, Result, RowMetric
from twostep.metrics.density_check.certificate import Certificate, check_normalised
from twostep.metrics.evaluation import check_metrics, evaluate
from twostep.metrics.ood.ood import OODAccuracy
from twostep.metrics.samples.compare import compare
from twostep.metrics.samples.table import SampleMetric

__all__ = [
    "METRICS",
    "Certificate",
    "Metric",
    "OODAccuracy",
    "Result",
    "RowMetric",
    "SampleMetric",
    "check_metrics",
    "check_normalised",
    "compare",
    "evaluate",
]
