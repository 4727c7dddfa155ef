"""All metrics, filed in `METRICS` by the import below."""

from twostep.metrics import likelihood, loss, ood, reconstruction, samples
from twostep.metrics.base import METRICS, Metric, Result, check_metrics
from twostep.metrics.evaluation import evaluate

__all__ = [
    "METRICS",
    "Metric",
    "Result",
    "check_metrics",
    "evaluate",
    "likelihood",
    "loss",
    "ood",
    "reconstruction",
    "samples",
]
