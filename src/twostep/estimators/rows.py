"""Arrays and frames in, float rows out, and back: what users give to estimators and get from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._set_output import _get_output_config  # pyright: ignore[reportPrivateUsage]
from sklearn.utils.validation import validate_data
from torch import Tensor

from twostep.core.schema import UserError
from twostep.core.table import TableSchema
from twostep.data.base import Source
from twostep.data.table.keys import TableKeys
from twostep.data.table.read import frame_of, is_frame, rows_of, source_of

if TYPE_CHECKING:
    import pandas

Array = NDArray[Any]

FLOATS = [np.float64, np.float32]
COARSE = 0.01  # rounding over the std of a column that is worth a warning


def checked(estimator: BaseEstimator, X: Any, fitting: bool, least: int = 1) -> Array:
    """Return rows `(N, D)` or images `(N, C, H, W)` of float32 or float64, whose names and number are checked.

    Raises:
        ValueError: in scikit-learn's words, for rows of other columns, values that are no numbers or not finite, or
            fewer than `least` rows.
    """
    keys: dict[str, Any] = {"dtype": FLOATS, "allow_nd": True, "ensure_min_samples": least, "order": "C"}
    try:
        rows = cast(Array, validate_data(estimator, X, reset=fitting, **keys))
    except ValueError as error:
        if "NaN" not in str(error):
            raise
        first = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{first}: missing values are modelled in a frame, like pandas.DataFrame(X)") from None
    if rows.ndim == 2 or (rows.ndim == 4 and rows.shape[1] in (1, 3)):
        return rows
    raise UserError(f"X of shape {rows.shape}: give rows (N, D), or images (N, C, H, W) with 1 or 3 channels")


def single(rows: Array) -> Tensor:
    """Return rows as a tensor of float32, in which models are trained.

    Raises:
        UserError: for rows that are not finite in float32, or are all equal.
    """
    with np.errstate(over="ignore"):
        values = np.array(rows, dtype=np.float32)
    if not np.isfinite(values).all():
        raise UserError("X has values beyond the range of float32: scale its columns")
    if (values == values[:1]).all():
        raise UserError("all rows of X are equal: there is nothing to learn")
    if rows.ndim == 2:
        rounding = np.finfo(np.float32).eps * np.abs(rows).max(0)
        coarse = np.flatnonzero((rounding > COARSE * rows.std(0)) & (rows.min(0) < rows.max(0)))
        if len(coarse):
            named = ", ".join(map(str, coarse[:5])) + ", ..." * (len(coarse) > 5)
            text = f"columns {named} vary too little beside their mean for float32: subtract their means"
            warnings.warn(text, UserWarning, stacklevel=4)
    return torch.from_numpy(values)


def coded(estimator: BaseEstimator, X: Any, fitting: bool, schema: TableSchema | None = None) -> Source | Tensor | None:
    """Return the rows of a frame that is not all numbers, with its columns; with a `schema`, their codes `(N, C)`.

    None: X is an array, or a frame of numbers alone, and `checked` takes it.

    Raises:
        UserError: with everything that is wrong with the frame, by column.
    """
    if schema is None and (not is_frame(X) or _all_numbers(X)):
        return None
    if schema is not None and not is_frame(X):
        raise UserError("X was a frame with words, dates or gaps in fit: give a frame with the same columns")
    validate_data(estimator, X, reset=fitting, skip_check_array=True)
    return source_of(X, TableKeys.model_validate({}), "X") if schema is None else rows_of(schema, X, "X")


def _all_numbers(X: Any) -> bool:
    frame = frame_of(X)
    return all(kind.kind in "iuf" for kind in frame.dtypes) and not frame.isna().to_numpy().any()


def framed(estimator: BaseEstimator, values: Array, columns: Sequence[str] | None) -> Any:
    """Return rows `(N, D)` as the frame that `set_output` asks for, or as they are."""
    kind = _get_output_config("transform", estimator)["dense"]
    if kind == "default" or values.ndim != 2 or columns is None:
        return values
    import pandas

    return in_kind(estimator, pandas.DataFrame(values, columns=list(columns)))


def in_kind(estimator: BaseEstimator, frame: pandas.DataFrame) -> Any:
    """Return a frame of polars if `set_output` asks for that, else as it is."""
    if _get_output_config("transform", estimator)["dense"] != "polars":
        return frame
    import polars

    return polars.from_pandas(frame)
