"""Densities in scikit-learn's form: of an autoencoder and a density on its embeddings, or of one density alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from typing_extensions import override

from twostep.core.schema import UserError
from twostep.estimators.base import ModelEstimator, TwoStepParameters, model_of
from twostep.estimators.labels import numbers_of
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, ModelConfig

Scores = NDArray[np.float64]

SCHEDULES: dict[str, dict[str, bool]] = {
    "sequential": {"sequential_training": True},
    "by_epoch": {"sequential_training": False, "alternate_by_epoch": True},
    "by_iteration": {"sequential_training": False, "alternate_by_epoch": False},
}


@dataclass(eq=False, repr=False)
class DensityModel(DensityMixin, ModelEstimator):
    """A density of rows `(N, D)` or images `(N, C, H, W)`.

    Args:
        de: name of a density (`twostep models`), its config, or a `DensityEstimator`.
        de_config: keys of the density that differ from its defaults for these data, such as `{"max_epochs": 50}`.
        preprocessing, validation_fraction, batch_size, device, max_minutes, random_state, verbose, run_dir: see
            `TwoStepDensity`.

    Attributes:
        de_: the trained density, a torch module.
        likelihood_: what log-densities are: "exact", "bound", "estimate" or "unnormalised".
        history_: a dictionary for each epoch: losses, and metrics of the validation rows.
        held_out_: numbers of the validation rows.
        classes_: labels of y, where the density has the key `condition="label"`.
        n_features_in_, feature_names_in_: number and names of the columns of X.
    """

    de: str | ModelConfig | DensityEstimator = "flow"
    _: KW_ONLY
    de_config: Mapping[str, Any] | None = None

    @override
    def _request(self) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
        model, keys = model_of(self.de, self.de_config, "de")
        return {"model": model}, {"model": keys}

    @property
    def de_(self) -> DensityEstimator:
        """The trained density."""
        check_is_fitted(self)
        return self.model_

    def score_samples(self, X: Any, y: Any = None) -> Scores:
        """Return the log-density of each row, `(N,)`, in nats, in the units of X; given labels y, log p(x | y)."""
        rows = self._rows(X)
        labels = [] if y is None else [numbers_of(y, getattr(self, "classes_", None), len(rows))]
        return self._map(rows, self._double.log_prob, *labels)

    def score(self, X: Any, y: None = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean log-density of rows, in nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n: int = 1, random_state: Any = None, y: Any = None) -> Any:
        """Draw n rows, in the units of X, of a label y or one for each; a frame if `set_output` asks for one."""
        return self._sampled(n, random_state, y)


@dataclass(eq=False, repr=False)
class TwoStepDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityModel, TwoStepParameters):
    """A density on the manifold near which rows lie: an autoencoder, then a density on its embeddings.

    `log p(x) = log p(z) - ½ log det JᵀJ`, with z the embedding of x and J the Jacobian of the decoder there: the
    log-density of the projection of x, with respect to volume on the learned manifold, in the units of X. It does not
    say how far x is from the manifold: `reconstruction_error` does.

    Args:
        gae: name of an autoencoder (`twostep models`), its config, a `GeneralizedAutoencoder`, or a transformer of
            scikit-learn such as `PCA(8)`, a copy of which is fitted to the training rows.
        de: name of a density, its config, or a `DensityEstimator` of embeddings.
        latent_dim: number of latent coordinates; "auto": the estimated intrinsic dimension of the rows, or half of the
            columns if that is at least 0.9 of them.
        gae_config, de_config: keys that differ from the defaults for these data, such as `{"max_epochs": 50}`.
        schedule: "sequential" trains the autoencoder first; "by_epoch" and "by_iteration" train both in turn.
        preprocessing: "standardize": the model sees columns of mean 0 and standard deviation 1; None: as they are.
        validation_fraction: share of the rows that training does not see; the density stops early by them.
        batch_size: rows of a training batch; "auto": 128, or an eighth of the rows if that is less.
        device: where to compute: "auto", "cpu" or "cuda".
        max_minutes: minutes of training at most, all models together; None: no limit.
        random_state: seed of weights, held-out rows and batches: an integer, a generator of numpy, or None.
        verbose: 0 prints nothing, 1 a line for each epoch.
        run_dir: folder, which must not exist, in which the fit writes a run with the rows in `data.npz`: `load_run`,
            `twostep score` and the other commands open it; None: nothing is written.

    Attributes:
        gae_, de_: the trained autoencoder and density, torch modules; `model_` is the two as one.
        latent_dim_: number of latent coordinates.
        likelihood_: what log-densities are: "exact", "bound", "estimate" or "unnormalised".
        history_: a dictionary for each epoch of each model: losses, and metrics of the validation rows.
        held_out_: numbers of the validation rows.
        classes_: labels of y, where the density has the key `condition="label"`.
        n_features_in_, feature_names_in_: number and names of the columns of X.
    """

    @override
    def _request(self) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
        if self.schedule not in SCHEDULES:
            raise UserError(f"schedule={self.schedule!r}: give one of {', '.join(SCHEDULES)}")
        gae, gae_keys = model_of(self.gae, self.gae_config, "gae")
        de, de_keys = model_of(self.de, self.de_config, "de")
        if isinstance(gae, str):
            gae_keys = {"latent_dim": self.latent_dim, **gae_keys}
        return {"gae": gae, "de": de}, {"gae": gae_keys, "de": de_keys, "run": SCHEDULES[self.schedule]}

    @property
    def gae_(self) -> GeneralizedAutoencoder:
        """The trained autoencoder."""
        check_is_fitted(self)
        return self.model_.gae

    @property
    @override
    def de_(self) -> DensityEstimator:
        check_is_fitted(self)
        return self.model_.de

    @property
    def latent_dim_(self) -> int:
        """Number of latent coordinates."""
        return self.gae_.latent_dim

    _n_features_out = latent_dim_

    def transform(self, X: Any) -> Any:
        """Return the embeddings of rows, `(N, latent_dim_)`."""
        rows = self._rows(X)
        return self._map(rows, self._double.encode).astype(rows.dtype)

    def inverse_transform(self, Z: Any) -> Any:
        """Return the points of the manifold at embeddings `(N, latent_dim_)`, in the units of X."""
        check_is_fitted(self)
        values = np.asarray(Z, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != self.latent_dim_:
            raise UserError(f"embeddings of shape {values.shape}: give (N, {self.latent_dim_})")
        return self._as_given(self._map(values, self._double.decode))

    def reconstruction_error(self, X: Any) -> Scores:
        """Return the squared distance of each row to its reconstruction, `(N,)`, in the units that the model sees.

        With `preprocessing="standardize"` these are standard deviations of each column, squared and summed.
        """
        rows, gae = self._rows(X), self._double.gae
        if self.spec_.table is not None:  # whose features are compared
            return self._map(rows, gae.reconstruction_error)

        def error(x: Tensor) -> Tensor:
            return (gae.transform(x) - gae.transform(gae.decode(gae.encode(x)))).square().flatten(1).sum(1)

        return self._map(rows, error)

    @override
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
