"""Keys of the metrics that compare samples with data (`metric_kwargs`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from twostep.schema import Frozen, PositiveInt


class MetricKeys(Frozen):
    """What samples are compared with data in, and how many of them."""

    gen_samples: PositiveInt = Field(10_000, description="samples, and rows of data at most, that are compared")
    gen_batch_size: PositiveInt = Field(1000, description="samples that are drawn at once")
    nearest_k: PositiveInt = Field(5, description="neighbours within a ball of precision, recall, density, coverage")
    features: Literal["standardised", "pixels", "pca", "classifier", "efficientnet-lite0"] | None = Field(
        None, description="None: classifier for pictures with labels, pca for others, standardised for vectors"
    )
