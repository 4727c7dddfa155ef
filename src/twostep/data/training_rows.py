"""Training rows of a data set or file, for what is measured on data before any run: nothing is held out from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from twostep.data.arrays import is_array_path, read_arrays
from twostep.data.base import load_data
from twostep.data.own_rows import read_rows
from twostep.data.rows import spread
from twostep.schema import UserError

MOST = 20_000
TABLES = (".csv", ".parquet")


def training_rows(name: str, kwargs: Mapping[str, Any]) -> Tensor:
    """Return training rows `(N, *S)`, evenly spaced ones where there are more than 20,000.

    Args:
        name: a data set's name or path, or the path of a `.csv` or `.parquet` table of numbers.
        kwargs: keys of this data set (`dataset_kwargs`).

    Raises:
        UserError: if it is unknown, missing, damaged, or holds something else than finite numbers.
    """
    path = Path(name)
    if is_array_path(name) or path.suffix.lower() in TABLES:
        if kwargs:
            raise UserError(f"{name} is a file, which has no keys, and these were given: {', '.join(kwargs)}")
        rows = read_arrays(path)[0] if is_array_path(name) else read_rows(path)
        return spread(rows, MOST)
    return spread(load_data(name, make_valid=False, kwargs=kwargs).train, MOST)
