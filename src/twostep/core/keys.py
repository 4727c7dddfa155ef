"""Keys that every model's config is composed of: how the model is trained, and how it is evaluated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from twostep.core.metric_keys import METRIC_KEYS, MetricKeys, metric_names
from twostep.core.schema import Frozen, PositiveFloat, PositiveInt

PATIENCE = "epochs without a better value before training stops; None: never"
STOPPING_METRIC = "validation metric that stops training; None: none"
VALID_METRICS = "metrics on the validation split, each epoch"
TEST_METRICS = "metrics on the test split, at the end"


class FitKeys(Frozen):
    """How a model is trained. Learning rates belong to its objectives (`ModelConfig.optimizers`)."""

    optimizer: Literal["adam", "sgd", "rmsprop"] = Field("adam", description="update rule")
    max_epochs: PositiveInt = Field(100, description="epochs to train for")
    max_grad_norm: PositiveFloat | None = Field(10.0, description="gradients are clipped to this norm; None: never")
    early_stopping_metric: str | None = Field(None, description=STOPPING_METRIC)
    max_bad_valid_epochs: PositiveInt | None = Field(10, description=PATIENCE)

    @field_validator("early_stopping_metric")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None


class EvaluationKeys(Frozen):
    """By which metrics a model is evaluated."""

    valid_metrics: tuple[str, ...] = Field(("loss",), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field(("loss",), description=TEST_METRICS)
    metric_kwargs: MetricKeys = Field(METRIC_KEYS, description="how samples are compared with data")

    @field_validator("valid_metrics", "test_metrics", mode="before")
    @classmethod
    def _metrics_are_a_list(cls, value: Any) -> Any:
        return metric_names(value)
