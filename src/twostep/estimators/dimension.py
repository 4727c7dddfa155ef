"""The intrinsic dimension of rows, in scikit-learn's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from twostep.core.schema import UserError
from twostep.data.base import Source
from twostep.data.load import features_of
from twostep.diagnosis import Dimension, LocalDimension, dimension_of, local_dimension
from twostep.diagnosis.dimension import estimators
from twostep.diagnosis.dimension.consensus import ROWS
from twostep.diagnosis.dimension.estimators import DimensionEstimate
from twostep.diagnosis.dimension.linear import linear_dimension, shows_dimension
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, neighbourhoods
from twostep.diagnosis.units import different_units, standardized
from twostep.estimators.base import seed_of
from twostep.estimators.rows import checked, coded

METHODS: dict[str, Callable[[Neighbourhoods, int], DimensionEstimate]] = {
    "mle": lambda near, seed: estimators.maximum_likelihood(near, seed=seed),
    "twonn": estimators.two_nn,
    "pca": lambda near, seed: estimators.local_pca(near, near.k, seed),
}


@dataclass(eq=False, repr=False)
class IntrinsicDimension(BaseEstimator):
    """The number of dimensions of the manifold near which rows `(N, D)` or images `(N, C, H, W)` lie.

    Fewer than 50 distinct rows do not show a curved manifold: `dimension_` is then the number of principal components
    that hold 95 % of the variance, and `interval_` covers all dimensions that are possible.

    Args:
        method: "consensus": the median of three estimates, corrected for the number of rows; or one of them as it is:
            "mle": maximum likelihood (Levina & Bickel), "twonn": two nearest neighbours (Facco et al.), "pca": local
            principal components.
        preprocessing: "standardize": columns get mean 0 and standard deviation 1; None: they are taken as they are;
            "auto": standardised if one of them is five times as wide as the median one. Of a frame with words, dates or
            gaps, numbers are taken as normal scores and levels as one-hot vectors instead.
        max_rows: rows to use at most, drawn at random.
        random_state: seed: an integer, a generator of numpy, or None.

    Attributes:
        dimension_: the intrinsic dimension: an integer for "consensus", else a float.
        interval_: its range, for "consensus" of all that the evidence allows, else the 95 % interval.
        reasons_: the evidence and what is unusual about the rows, in sentences.
        local_: the dimension around each row of X, `(N,)`, computed when it is first asked for; `local_errors_` are its
            standard errors.
        n_features_in_, feature_names_in_: number and names of the columns of X.
    """

    method: Literal["consensus", "mle", "twonn", "pca"] = "consensus"
    _: KW_ONLY
    preprocessing: Literal["auto", "standardize"] | None = "auto"
    max_rows: int = ROWS
    random_state: Any = None

    def fit(self, X: Any, y: None = None) -> Self:
        """Estimate the intrinsic dimension of rows."""
        if self.method != "consensus" and self.method not in METHODS:
            raise UserError(f"method={self.method!r}: give one of {', '.join(('consensus', *METHODS))}")
        if self.preprocessing not in ("auto", "standardize", None):
            raise UserError(f"preprocessing={self.preprocessing!r}: give 'auto', 'standardize' or None")
        seed, notes = seed_of(self.random_state), ()
        table = coded(self, X, fitting=True)
        if isinstance(table, Source) and table.columns is not None and not table.columns.plain:
            rows = features_of(table.columns, table.train)
            notes = ("numbers were taken as normal scores, levels as one-hot vectors",)
        else:
            rows = torch.from_numpy(np.array(checked(self, X, fitting=True, least=2)))
            if self.preprocessing == "standardize" or (self.preprocessing == "auto" and different_units(rows)):
                rows, notes = standardized(rows), ("columns were standardised",)
        self._rows, self._seed = rows.numpy(), seed
        self.__dict__.pop("_local", None)
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
        self.reasons_ += notes
        return self

    @property
    def local_(self) -> NDArray[np.float64]:
        """The dimension around each row that was fitted, `(N,)`; of too few rows, that of all of them."""
        return self._around.values

    @property
    def local_errors_(self) -> NDArray[np.float64]:
        """The standard errors of `local_`, `(N,)`."""
        return self._around.standard_errors

    @property
    def _around(self) -> LocalDimension:
        check_is_fitted(self)
        if "_local" not in self.__dict__:
            count = len(self._rows)
            if shows_dimension(torch.from_numpy(self._rows)):
                self._local = local_dimension(self._rows, self._seed)
            else:
                values, unknown = np.full(count, float(self.dimension_)), np.full(count, np.nan)
                self._local = LocalDimension(values, unknown, np.zeros(count, np.int64))
        return self._local

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
