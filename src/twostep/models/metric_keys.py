"""Names of metrics as configs have them, and keys of those that compare samples with data (`metric_kwargs`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

from pydantic import Field

from twostep.schema import Frozen, PositiveInt

FID = {"fid": "fd"}
"""FID is the Fréchet distance in Inception's features, which are not here: the name stands for that in others."""


class MetricKeys(Frozen):
    """What samples are compared with data in, and how many of them."""

    gen_samples: PositiveInt = Field(10_000, description="samples, and rows of data at most, that are compared")
    gen_batch_size: PositiveInt = Field(1000, description="samples that are drawn at once")
    nearest_k: PositiveInt = Field(5, description="neighbours within a ball of precision, recall, density, coverage")
    features: Literal["standardised", "pixels", "pca", "classifier", "efficientnet-lite0"] | None = Field(
        None, description="None: classifier for pictures with labels, pca for others, standardised for vectors"
    )


METRIC_KEYS = MetricKeys.model_validate({})


def metric_names(value: Any) -> Any:
    """Return one name or several as a tuple, for the validator of a config."""
    if isinstance(value, str):
        return (FID.get(value, value),)
    if isinstance(value, list | tuple):
        return tuple(FID.get(name, name) if isinstance(name, str) else name for name in cast(Iterable[Any], value))
    return value
