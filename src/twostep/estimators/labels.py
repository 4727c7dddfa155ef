"""Labels of rows, as users give them to estimators, and their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.schema import UserError
from twostep.models.base import UNCONDITIONAL


def is_conditional(model: Any, keys: Any) -> bool:
    """Return whether a density, given by its name, config or as an object, and its keys, is conditioned on labels."""
    own = getattr(getattr(model, "model", None), "labels", 0) or getattr(model, "condition", None)
    return bool(keys.get("condition", own))


def numbered(y: Any, n: int) -> tuple[NDArray[Any], Tensor]:
    """Return the labels of n rows, sorted, each once, and the number of that of each row, `(n,)`.

    Raises:
        UserError: if there is not one for each row.
    """
    if y is None or np.shape(y) != (n,):
        raise UserError(f"condition='label': give y, the label of each of {n} rows")
    classes, numbers = np.unique(np.asarray(y), return_inverse=True)
    return classes, torch.from_numpy(numbers.astype(np.int64))


def numbers_of(y: Any, classes: NDArray[Any] | None, n: int) -> Tensor:
    """Return the number of the label of each of n rows, `(n,)`, given one for each or one for all.

    Raises:
        UserError: for labels that are not among those of the fit, or without such.
    """
    if classes is None:
        raise UserError(UNCONDITIONAL)
    given = np.asarray(y)
    if given.shape not in ((), (n,)):
        raise UserError(f"y of shape {given.shape}: give one label, or one for each of {n} rows")
    known = classes.tolist()
    for label in np.unique(given).tolist():
        if label not in known:
            raise UserError(
                f"label {label!r}: not one of the fit's: {', '.join(map(str, known[:20]))}{', ...' * (len(known) > 20)}"
            )
    return torch.from_numpy(np.asarray(np.searchsorted(classes, given))).expand(n)
