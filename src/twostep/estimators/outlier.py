"""Outlier detection with p-values, in scikit-learn's form.

A row is unusual if it is far from the learned manifold or from the training rows, or if the density of its projection
is too low or too high. All make one score (`twostep.metrics.ood.conformal`), whose conformal p-value says how often a
new row of the same distribution looks at least as unusual: `predict` calls at most a share `alpha` of such rows
outliers.

*Split*: one model; its validation rows calibrate the p-values. *Cross*: with few rows, these are too few to show small
p-values, so each of K models is trained without a fold, and a row is compared with every fold by that fold's model:

    p(x) = (1 + Σ_k #{i in fold k: T_k(x_i) <= T_k(x)}) / (1 + n),

with T_k the score by the model that has not seen fold k. The level is proved up to a factor of 2, for large n, and kept
in simulations (benchmarks/estimators.py).

Sources: Cross-conformal predictors (Vovk, 2015); Predictive inference with the jackknife+ (Barber, Candès, Ramdas &
Tibshirani, 2021, arXiv 1905.02928); Controlling the False Discovery Rate (Benjamini & Hochberg, 1995); Testing for
Outliers with Conformal p-values (Bates et al., 2023, arXiv 2104.08279).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.table.read import frame_of, is_frame
from twostep.estimators.base import TwoStepParameters, seed_of
from twostep.estimators.density import TwoStepDensity
from twostep.estimators.rows import Array, checked, coded
from twostep.metrics.ood.conformal import MIN_ROWS, ONE_SIDED, ConformalCalibrator, p_values
from twostep.metrics.ood.many import q_values
from twostep.metrics.ood.scores import DISTANCE, MAX_ROWS, NEAREST, TWO_PART

Scores = NDArray[np.float64]

FOLDS = 5
EXPECTED = 2.5  # calibrating rows below the level, with fewer of which the calibration is crossed


@dataclass(eq=False, repr=False)
class TwoStepOutlierDetector(OutlierMixin, TwoStepParameters, BaseEstimator):
    """An outlier detector whose share of false alarms is `alpha`, for rows like those it was fitted to.

    Args:
        gae, de, latent_dim, gae_config, de_config, schedule, preprocessing, validation_fraction, batch_size, device,
            max_minutes, random_state, verbose, run_dir: see `TwoStepDensity`.
        contamination: share of the rows of `fit` that `predict` calls outliers; None: `alpha` decides.
        alpha: level of `predict`: the share of new rows of the same distribution that it calls outliers.
        calibration: "split", "cross", or "auto": crossed if few rows are below the level, or with a `contamination`,
            so that `training_scores_` are of models that have not seen the row.

    Attributes:
        densities_: the models, `TwoStepDensity`, one or several; `known_` are the rows that each was trained on, at
            most 10,000, with which new rows are compared.
        training_scores_: `score_samples` of the rows of `fit`, `(N,)`, each by the model that has not seen it; where
            calibration is split, by the one model.
        offset_: `decision_function(X) = score_samples(X) - offset_`; outliers are below 0.
        smallest_p_value_: the smallest p-value that these rows can show.
        n_features_in_, feature_names_in_: number and names of the columns of X.
    """

    _: KW_ONLY
    contamination: float | None = None
    alpha: float = 0.05
    calibration: Literal["auto", "split", "cross"] = "auto"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train one model, or several, on rows that are taken for usual, and calibrate their scores.

        `y` are labels of the rows, for a density with the key `condition="label"`; others ignore them.
        """
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha={self.alpha}: give a level between 0 and 1")
        if self.contamination is not None and not 0 < self.contamination <= 0.5:
            raise UserError(f"contamination={self.contamination}: give a share above 0, up to 0.5, or None")
        seed, rows = seed_of(self.random_state), self._usual(X)
        self.densities_: list[TwoStepDensity] = []
        self.calibrators_: list[ConformalCalibrator] = []
        self.known_: list[Any] = []
        folds = self._folds(len(rows), seed)
        minutes = None if self.max_minutes is None else self.max_minutes / len(folds)
        for fold in folds:
            keys: dict[str, Any] = {name: getattr(self, name) for name in TwoStepDensity().get_params(deep=False)}
            density = TwoStepDensity(**keys).set_params(random_state=seed, max_minutes=minutes)
            density.fit(rows, y, held_out=fold)
            kept = np.delete(np.arange(len(rows)), density.held_out_)
            known = taken(rows, kept[np.arange(min(len(kept), MAX_ROWS)) * len(kept) // min(len(kept), MAX_ROWS)])
            scores = density.outlier_scores(taken(rows, density.held_out_), known)
            self.densities_.append(density)
            self.known_.append(known)
            self.calibrators_.append(ConformalCalibrator(density.model_, scores, derive(seed, "ood")))
        self._headline = self.calibrators_[0].headline
        self._calibrated = np.concatenate([one.calibration for one in self.calibrators_])
        self.smallest_p_value_ = 1 / (1 + len(self._calibrated))
        self.training_scores_ = self._own_scores(rows)
        self.offset_ = self._offset(rows)
        return self

    def score_samples(self, X: Any) -> Scores:
        """Return how usual each row is, `(N,)`: the log of its p-value, where ties are broken by the score itself.

        Rows more unusual than all that calibrate get lower values without bound.
        """
        scored = self._scored(X)
        return self._log_p(scored["p_value"], scored[self._headline])

    def decision_function(self, X: Any) -> Scores:
        """Return `score_samples(X) - offset_`, `(N,)`: outliers are below 0, and higher is more usual."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for outliers, whose p-value is at most `alpha`, and 1 for others, `(N,)`."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Scores:
        """Return the conformal p-value of each row, `(N,)`."""
        return self._scored(X)["p_value"]

    def q_values(self, X: Any) -> Scores:
        """Return the q-value of each row among those of X, `(N,)`, by Benjamini and Hochberg.

        Of the rows with a q-value of at most q, a share of q or less is expected to be usual.
        """
        return q_values(self.p_values(X))

    def score_components(self, X: Any) -> dict[str, Scores]:
        """Return the parts of the score of each row by name, `(N,)` each, means over the models if there are several.

        `log_prob` is the log-density in nats, `log_prob_latent` that of the embedding, `distance` that to the manifold,
        `nearest_distance` that to the nearest training row, and `two_part` all as one score, of which lower values are
        more unusual; `p_value_...` are their p-values, and `p_value` the one that decides.
        """
        scored = self._scored(X)
        if DISTANCE in scored:
            scored[DISTANCE] = np.sqrt(np.maximum(0.0, -scored[DISTANCE]))
        if NEAREST in scored:
            scored[NEAREST] = -scored[NEAREST]
        return {name.replace(DISTANCE, "distance"): values for name, values in scored.items()}

    def _usual(self, X: Any) -> Any:
        """Return the rows of an array, or a frame of pandas, after a check of their number and columns."""
        if coded(self, X, fitting=True) is None:
            rows = checked(self, X, fitting=True, least=2 * MIN_ROWS)
            return rows.astype(np.uint8) if rows.ndim == 4 and np.asarray(X).dtype == np.uint8 else rows
        if len(X) < 2 * MIN_ROWS:
            raise UserError(f"{len(X)} rows are too few: give {2 * MIN_ROWS} or more")
        return frame_of(X)

    def _folds(self, count: int, seed: int) -> Sequence[Array | None]:
        """Return the sorted numbers of the rows that each model does not see; None: a share for validation."""
        if self.calibration not in ("auto", "split", "cross"):
            raise UserError(f"calibration={self.calibration!r}: give 'auto', 'split' or 'cross'")
        held = int(count * self.validation_fraction)
        few = self.alpha * (1 + held // 2) < EXPECTED
        if self.calibration == "split" or (self.calibration == "auto" and not few and self.contamination is None):
            if held < MIN_ROWS:
                text = f"{held} validation rows of {count} are too few: give more rows, or calibration='cross'"
                raise UserError(f"calibration='split': {text}")
            return [None]
        order = np.random.default_rng(seed).permutation(count)
        if self.run_dir is not None:
            raise UserError("run_dir: a run has one model: add calibration='split', or leave out run_dir")
        return [np.sort(fold) for fold in np.array_split(order, min(FOLDS, count // MIN_ROWS))]

    def _scored(self, X: Any) -> dict[str, Scores]:
        check_is_fitted(self)
        schema = self.densities_[0].spec_.table
        rows = checked(self, X, fitting=False) if schema is None else X  # whose columns each model checks
        scores: dict[str, list[Scores]] = {}
        counts: dict[str, list[Scores]] = {}
        total: dict[str, int] = {}
        for density, calibrator, known in zip(self.densities_, self.calibrators_, self.known_, strict=True):
            found = density.outlier_scores(rows, known)
            for name, p in calibrator.p_values(found).items():
                used = len(calibrated(calibrator, name))
                counts.setdefault(name, []).append(p * (used + 1) - 1)
                total[name] = total.get(name, 0) + used
            if calibrator.two_part is not None:
                found[TWO_PART.name] = calibrator.two_part.score(found)
            for name, values in found.items():
                scores.setdefault(name, []).append(values)
        result: dict[str, Scores] = {name: np.mean(values, 0) for name, values in scores.items()}
        p_values = {name: np.minimum(1.0, (1 + np.sum(many, 0)) / (1 + total[name])) for name, many in counts.items()}
        result |= {f"p_value_{name}": values for name, values in p_values.items()}
        return {**result, "p_value": p_values[self._headline]}

    def _log_p(self, p: Scores, score: Scores) -> Scores:
        median, many = np.median(self._calibrated), len(self._calibrated)
        count = np.round(p * (1 + many)) - 1
        beyond = -np.logaddexp(0.0, median - score)
        return np.where(count == 0, beyond, np.log1p(count + expit(score - median))) - np.log1p(many)

    def _own_scores(self, rows: Any) -> Scores:
        if len(self.densities_) == 1:
            return self.score_samples(rows)
        scores = np.empty(len(rows))
        for density, calibrator, known in zip(self.densities_, self.calibrators_, self.known_, strict=True):
            found = density.outlier_scores(taken(rows, density.held_out_), known)
            scores[density.held_out_] = calibrator.headline_scores(found)
        one_sided = self._headline in (TWO_PART.name, *ONE_SIDED)
        return self._log_p(p_values(self._calibrated, scores, two_sided=not one_sided), scores)

    def _offset(self, rows: Any) -> float:
        if self.contamination is not None:
            return float(np.quantile(self.score_samples(rows), self.contamination))
        many = len(self._calibrated)
        counted = int(self.alpha * (1 + many) + 1e-9)  # the counts below it have a p-value of at most alpha
        if not counted:
            warnings.warn(
                f"{len(rows)} rows show no p-value below {self.smallest_p_value_:.3g}: none is an outlier at "
                f"alpha={self.alpha}; give more rows or a larger alpha",
                UserWarning,
                stacklevel=3,
            )
            return -np.inf
        return float(np.log((1 + counted) / (1 + many)))


def taken(rows: Any, index: Array) -> Any:
    """Return rows of an array, or of a frame of pandas, by number."""
    return rows.iloc[index] if is_frame(rows) else rows[index]


def calibrated(calibrator: ConformalCalibrator, name: str) -> Scores:
    """Return the scores, `(n,)`, that calibrate the p-values of a score."""
    if name == TWO_PART.name:
        assert calibrator.two_part is not None
        return calibrator.two_part.calibration
    return calibrator.held_out[name]
