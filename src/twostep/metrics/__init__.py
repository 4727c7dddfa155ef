"""All metrics, registered in `METRICS` by the imports below."""

from twostep.metrics import loss as loss
from twostep.metrics import reconstruction as reconstruction
from twostep.metrics import rows as rows
from twostep.metrics.base import METRICS, Metric, Result, check_metrics
from twostep.metrics.evaluation import evaluate
from twostep.metrics.ood.ood import OODAccuracy as OODAccuracy
from twostep.metrics.samples.table import SampleMetric as SampleMetric

__all__ = ["METRICS", "Metric", "OODAccuracy", "Result", "SampleMetric", "check_metrics", "evaluate"]
