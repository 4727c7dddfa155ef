"""What the estimators of a trained model share: parameters, fitting, scores of rows, and pickling without tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.base import Source, Splits, hold_out
from twostep.data.batches import Batches
from twostep.data.table.codes import to_frame
from twostep.estimators.fitting import fit_splits, splits_of
from twostep.estimators.labels import is_conditional, numbered, numbers_of
from twostep.estimators.objects import fitted_transformer, is_transformer, named_or_config
from twostep.estimators.rows import Array, checked, coded, framed, in_kind, single
from twostep.experiment.components import build
from twostep.metrics.ood.scores import score_splits
from twostep.models.base import (
    DensityEstimator,
    GeneralizedAutoencoder,
    Likelihood,
    ModelConfig,
    Role,
    Sampler,
    evaluating,
    tensor_of,
)
from twostep.runs.overrides import Request
from twostep.training.engine import Device

BATCH = 1000  # rows that are scored at once
STANDARDIZED = {"whitening_transform": True, "scale_data": False}
AS_THEY_ARE = {"whitening_transform": False, "scale_data": False}
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
STEPS = 8  # of an epoch, with fewer rows in a batch where there are few
FEWEST = 10  # rows of which some are held out for validation
# Of vectors: as good as the defaults in less than half the time (benchmarks/estimators.py).
COSINE = {"lr": 3e-3, "use_lr_scheduler": True}
QUICK = {"ae": COSINE, "vae": COSINE, "flow": {**COSINE, "num_blocks_per_layer": 1, "max_epochs": 50}}
LARGEST_SEED = 2**31 - 1


@dataclass(eq=False, repr=False, kw_only=True)
class TrainingParameters:
    """The parameters of every estimator of models: see `TwoStepDensity`."""

    preprocessing: Literal["standardize"] | None = "standardize"
    validation_fraction: float = 0.1
    batch_size: int | Literal["auto"] = "auto"
    device: Device = "auto"
    max_minutes: float | None = None
    random_state: Any = None
    verbose: int = 0
    run_dir: str | Path | None = None


@dataclass(eq=False, repr=False)
class TwoStepParameters(TrainingParameters):
    """The parameters of every estimator of two models: see `TwoStepDensity`."""

    gae: str | ModelConfig | GeneralizedAutoencoder | BaseEstimator = "ae"
    de: str | ModelConfig | DensityEstimator = "flow"
    _: KW_ONLY
    latent_dim: int | Literal["auto"] = "auto"
    gae_config: Mapping[str, Any] | None = None
    de_config: Mapping[str, Any] | None = None
    schedule: Literal["sequential", "by_epoch", "by_iteration"] = "sequential"


class ModelEstimator(TrainingParameters, BaseEstimator):
    """An estimator that holds one trained model, `model_`, or two as one.

    Rows are scored in double precision, so that their scores do not depend on the rows beside them.
    """

    model_: Any
    _double: Any
    settings_: Any
    spec_: Any

    def _request(self) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
        """Return the models, by their names in a run, and the keys of each."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, *, held_out: Any = None) -> Self:
        """Train on rows of X but `held_out` ones for validation, by number; None: a random `validation_fraction`.

        `y` are labels of the rows, for a density with the key `condition="label"`; others ignore them.
        """
        source = coded(self, X, fitting=True)
        if isinstance(source, Source):
            values, columns, self._float = source.train, source.columns, np.dtype(np.float64)
        else:
            rows = checked(self, X, fitting=True, least=2)
            values, columns, self._float = single(rows), None, rows.dtype
            if rows.ndim == 4 and np.asarray(X).dtype == np.uint8:
                values = values.to(torch.uint8)
        if not 0 <= self.validation_fraction < 1:
            raise UserError(f"validation_fraction={self.validation_fraction}: give a share from 0 to below 1")
        seed, index = seed_of(self.random_state), torch.arange(0)
        if held_out is not None:
            index = torch.as_tensor(np.sort(held_out))
        elif self.validation_fraction and len(values) >= FEWEST:
            index = hold_out(len(values), self.validation_fraction, torch.Generator().manual_seed(seed))[1]
        folder = None if self.run_dir is None else Path(self.run_dir).absolute()
        models, keys = self._request()
        labels, names, part = None, list[str](), list(models)[-1]
        if is_conditional(models[part], keys.get(part, {})):
            if folder is not None:
                raise UserError("run_dir: an array alone, without labels: leave it out with condition='label'")
            self.classes_, labels = numbered(y, len(values))
            names = [str(name) for name in self.classes_]
        splits = splits_of(values, index, columns, labels, names)
        if folder is not None and columns is not None:
            raise UserError("run_dir: an array only; write such a frame as .parquet for `twostep train` instead")
        fitted = fit_splits(self._asked(splits, seed, folder), values, splits, self.verbose, folder)
        self.model_, self.settings_, self.spec_ = fitted.model, fitted.settings, fitted.spec
        self.history_ = fitted.history
        self._double = deepcopy(fitted.model).double()
        self.held_out_ = index.numpy()
        return self

    def _asked(self, splits: Splits, seed: int, folder: Path | None) -> Request:
        models, keys = self._request()
        steps = {"standardize": STANDARDIZED, None: AS_THEY_ARE}
        if self.preprocessing not in steps:
            raise UserError(f"preprocessing={self.preprocessing!r}: give 'standardize' or None")
        first, rows = next(iter(models)), splits.train[:]
        if is_transformer(models[first]):
            models[first] = fitted_transformer(models[first], splits, self.preprocessing is not None)
        if rows.dim() == 2:
            named = {part: QUICK.get(model, {}) for part, model in models.items() if isinstance(model, str)}
            keys |= {part: {**quick, **keys[part]} for part, quick in named.items()}
            if first in named and splits.spec.table is None:
                keys[first] = {**steps[self.preprocessing], **keys[first]}
        size: Any = self.batch_size
        if size == "auto":
            size = max(SMALLEST_BATCH, min(LARGEST_BATCH, len(rows) // STEPS))
        validation: dict[str, Any] = {"make_valid_loader": splits.valid is not None}
        if splits.valid is not None and self.validation_fraction:
            validation["valid_fraction"] = float(self.validation_fraction)
        dataset = "X" if folder is None else str(folder / "data.npz")
        run = {"dataset": dataset, "seed": seed, "device": self.device, "train_batch_size": min(size, len(rows))}
        limit = {} if self.max_minutes is None else {"max_minutes": float(self.max_minutes)}
        return Request(models, {**keys, "run": {**run, **limit, **validation, **keys.get("run", {})}})

    @property
    def likelihood_(self) -> Likelihood:
        """Kind of the log-densities: exact, bound, estimate or unnormalised."""
        return self.model_.likelihood

    def _rows(self, X: Any) -> Array:
        check_is_fitted(self)
        if self.spec_.table is not None:
            codes = coded(self, X, fitting=False, schema=self.spec_.table)
            assert isinstance(codes, Tensor)
            return codes.double().numpy()
        rows = checked(self, X, fitting=False)
        if rows.shape[1:] != self.spec_.shape:
            raise UserError(f"X has rows of shape {rows.shape[1:]}, but was fitted to rows of shape {self.spec_.shape}")
        return rows

    def _map(self, rows: Array, function: Callable[..., Tensor], *beside: Tensor) -> Array:
        """Apply a function of the model in double precision to rows, and what is beside them, batch by batch."""
        batches = self._batches(rows)
        with torch.random.fork_rng([]), evaluating(self._double):
            torch.manual_seed(derive(self.settings_.run.seed, "estimator"))
            parts = zip(batches, *(one.split(BATCH) for one in beside), strict=True)
            return torch.cat([function(*part).cpu() for part in parts]).numpy()

    def _batches(self, rows: Array) -> Batches:
        device = tensor_of(self._double).device
        return Batches(torch.from_numpy(np.array(rows, dtype=np.float64)), BATCH, device=device)

    def _sampled(self, n: Any, random_state: Any, y: Any = None) -> Any:
        check_is_fitted(self)
        if not isinstance(n, int | np.integer) or n < 1:
            raise UserError(f"n={n}: give the number of samples")
        model = self._double
        if not isinstance(model, Sampler):
            raise UserError(f"{type(model).__name__} does not sample")
        generator = torch.Generator(tensor_of(self._double).device).manual_seed(seed_of(random_state))
        with torch.random.fork_rng([]), evaluating(self._double):
            torch.manual_seed(generator.initial_seed())
            labels = torch.empty(int(n)) if y is None else numbers_of(y, getattr(self, "classes_", None), int(n))
            blocks = labels.split(BATCH)
            drawn = [model.sample(len(one), generator, *([] if y is None else [one])).cpu() for one in blocks]
        return self._as_given(torch.cat(drawn).numpy())

    def _as_given(self, values: Array) -> Any:
        """Return points of data space in the type of the data, as a frame if that is asked for or was given."""
        if self.spec_.table is not None:
            return in_kind(self, to_frame(self.spec_.table, torch.from_numpy(values)))
        names = getattr(self, "feature_names_in_", None)
        columns = [f"x{i}" for i in range(self.spec_.dim)] if names is None else list(names)
        return framed(self, values.astype(self._float), columns)

    def outlier_scores(self, X: Any, known: Any = None) -> dict[str, Array]:
        """Return the scores of rows by which outliers are detected, by name, `(N,)` each; higher is more usual.

        Vectors are also compared with `known` rows, those of training, if these are given.
        """
        batches, seed = self._batches(self._rows(X)), derive(self.settings_.run.seed, "ood")
        rows = None
        if known is not None and len(self.spec_.shape) == 1:
            rows = torch.from_numpy(np.array(self._rows(known), dtype=np.float64)).to(batches.device)
        with torch.random.fork_rng([]), torch.no_grad():
            found = score_splits(self._double, {"rows": batches}, lambda values: values, seed, rows)
        return {name: significant(values["rows"]) for name, values in found.items()}

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save the trained model in a new folder, for `twostep.from_pretrained`: see `twostep.save_pretrained`."""
        from twostep.experiment import sharing

        return sharing.save_pretrained(self, folder)

    def push_to_hub(self, repo_id: str, **keys: Any) -> str:
        """Upload the trained model to the Hugging Face hub: see `twostep.push_to_hub`, also for the keys."""
        from twostep.experiment import sharing

        return sharing.push_to_hub(self, repo_id, **keys)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(cast(dict[str, Any], super().__getstate__()))
        model = state.pop("model_", None)
        state.pop("_double", None)
        if model is not None:
            tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
            state["model_"] = to_bytes(tensors)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.pop("model_", None)
        super().__setstate__(state)
        if weights is not None:
            with torch.random.fork_rng([]):
                self.model_ = build(self.settings_, self.spec_)
            self.model_.load_state_dict(from_bytes(weights))
            device = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
            self.model_.to(device).eval()
            self._double = deepcopy(self.model_).double()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


def significant(values: Array) -> Array:
    """Round to nine digits, so that a row that calibrates has the same score again, whatever rows are beside it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 10.0 ** (np.floor(np.log10(np.abs(values))) - 8)
        return np.where(np.isfinite(values) & (values != 0), np.round(values / unit) * unit, values)


def seed_of(random_state: Any) -> int:
    """Return the seed that a random state gives: an integer itself, or a draw from a generator (None: numpy's own)."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(LARGEST_SEED))


def model_of(model: Any, config: Any, role: Role) -> tuple[Any, dict[str, Any]]:
    """Return the name or config of a model and its keys."""
    if config is not None and not isinstance(config, Mapping):
        raise UserError(f"{role}_config={config!r:.80}: give a dictionary of keys, or the config itself as {role}")
    return named_or_config(model, role), dict(config or {})
