"""The intrinsic dimension of rows, in scikit-learn's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from twostep.core.schema import UserError
from twostep.diagnosis import Dimension, dimension_of
from twostep.diagnosis.dimension import estimators
from twostep.diagnosis.dimension.consensus import ROWS
from twostep.diagnosis.dimension.estimators import DimensionEstimate
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods
from twostep.estimators.base import seed_of
from twostep.estimators.few import linear_dimension, shows_dimension
from twostep.estimators.rows import checked

METHODS: dict[str, Callable[[Neighbourhoods, int], DimensionEstimate]] = {
    "mle": lambda near, seed: estimators.maximum_likelihood(near, seed=seed),
    "twonn": estimators.two_nn,
    "pca": lambda near, seed: estimators.local_pca(near, near.k, seed),
}


class IntrinsicDimension(BaseEstimator):
    """The number of dimensions of the manifold near which rows `(N, D)` or images `(N, C, H, W)` lie.

    Fewer than 50 distinct rows do not show a curved manifold: `dimension_` is then the number of principal components
    that hold 95 % of the variance, and `interval_` covers all dimensions that are possible.

    Args:
        method: "consensus": the median of three estimates, corrected for the number of rows; or one of them as it is:
            "mle": maximum likelihood (Levina & Bickel), "twonn": two nearest neighbours (Facco et al.), "pca": local
            principal components.
        max_rows: rows to use at most, drawn at random.
        random_state: seed: an integer, a generator of numpy, or None.

    Attributes:
        dimension_: the intrinsic dimension: an integer for "consensus", else a float.
        interval_: its range, for "consensus" of all that the evidence allows, else the 95 % interval.
        reasons_: the evidence and what is unusual about the rows, in sentences.
        n_features_in_, feature_names_in_: number and names of the columns of X.
    """

    def __init__(
        self,
        method: Literal["consensus", "mle", "twonn", "pca"] = "consensus",
        *,
        max_rows: int = ROWS,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.max_rows = max_rows
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> Self:
        """Estimate the intrinsic dimension of rows."""
        if self.method != "consensus" and self.method not in METHODS:
            raise UserError(f"method={self.method!r}: give one of {', '.join(('consensus', *METHODS))}")
        rows = torch.from_numpy(np.array(checked(self, X, fitting=True, least=2)))
        seed = seed_of(self.random_state)
        self.dimension_: float
        self.interval_: tuple[float, float]
        self.reasons_: tuple[str, ...]
        if not shows_dimension(rows):
            self.dimension_ = linear_dimension(rows)
            self.interval_ = (1, int(np.prod(rows.shape[1:])))
            self.reasons_ = (f"{len(rows)} rows are too few to show a curved manifold: these are linear dimensions",)
        elif self.method == "consensus":
            found: Dimension = dimension_of(rows, n=self.max_rows, seed=seed)
            self.dimension_, self.interval_ = found.recommended, (found.low, found.high)
            self.reasons_ = (*found.reasons, *found.warnings)
        else:
            near = neighbourhoods(rows, n=self.max_rows, seed=seed)
            estimate = METHODS[self.method](near, seed)
            self.dimension_, self.interval_ = estimate.value, estimate.interval
            self.reasons_ = (f"{estimate.method} on {estimate.n:,} points", *near.warnings)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
