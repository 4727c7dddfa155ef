"""Training rows of a data set, or all that a user's file has, for what is measured on data before any run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from twostep.data.base import is_own, load_data, own_source
from twostep.data.rows import spread

MOST = 20_000


def training_rows(name: str, kwargs: Mapping[str, Any]) -> Tensor:
    """Return training rows `(N, *S)`, evenly spaced ones where there are more than 20,000.

    Args:
        name: a data set's name or path.
        kwargs: keys of this data set (`dataset_kwargs`).

    Raises:
        UserError: if it is unknown, missing, damaged, or holds something else than finite numbers.
    """
    if is_own(name):
        return spread(own_source(Path(name), kwargs).train, MOST)
    return spread(load_data(name, make_valid=False, kwargs=kwargs).train, MOST)
