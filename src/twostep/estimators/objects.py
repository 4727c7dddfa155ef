"""Objects in the place of a config: models of one's own, trained like those that have one, and transformers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Literal, Self

from pydantic import Field
from sklearn.base import clone
from typing_extensions import override

from twostep.core.schema import DataSpec, UserError
from twostep.data.base import Splits
from twostep.models.base import (
    DensityEstimator,
    GeneralizedAutoencoder,
    Model,
    ModelConfig,
    OneLossConfig,
    OptimizerConfig,
    Preset,
    Role,
)
from twostep.models.external import external
from twostep.nn.transforms import Chain, Whiten


class ModelObject(OneLossConfig):
    """How a model object is trained; each `build` returns a copy of it, so that the object never changes."""

    roles: ClassVar[tuple[Role, ...]] = ("gae", "de")
    summary: ClassVar[str] = "a model object"
    paper: ClassVar[str] = ""

    name: Literal["object"] = "object"
    model: Any = Field(exclude=True)

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        return {"early_stopping_metric": "loss", "max_bad_valid_epochs": 30}

    @override
    @classmethod
    def for_data(cls, spec: DataSpec, role: Role, **overrides: Any) -> Self:
        if not overrides["model"].objectives():  # no loss to validate
            metrics = ("log_likelihood",) if isinstance(overrides["model"], DensityEstimator) else ()
            own = {"valid_metrics": metrics, "test_metrics": metrics, "early_stopping_metric": None}
            overrides = {**own, **overrides}
        return super().for_data(spec, role, **overrides)

    @override
    def is_flat(self) -> bool:
        return False

    @override
    def optimizers(self) -> dict[str, OptimizerConfig]:
        rate = OptimizerConfig(self.lr, self.use_lr_scheduler)
        return {objective.name: rate for objective in self.model.objectives()}

    @override
    def build(self, spec: DataSpec) -> Model:
        if self.model.event_shape != spec.shape:
            kind, shapes = type(self.model).__name__, (self.model.event_shape, spec.shape)
            raise UserError(f"{kind} is a model of points of shape {shapes[0]}, and {spec.name} has {shapes[1]}")
        return deepcopy(self.model)


def is_transformer(model: Any) -> bool:
    """Return whether a model is a transformer of scikit-learn, fitted or not."""
    return all(hasattr(model, name) for name in ("get_params", "fit", "transform"))


def fitted_transformer(transformer: Any, splits: Splits, standardize: bool) -> ModelObject:
    """Return a copy of a transformer, fitted to training rows, as an autoencoder.

    Raises:
        UserError: for a table with words, dates or gaps, or a transformer that does not fit the data.
    """
    if splits.spec.table is not None:
        raise UserError(f"gae={type(transformer).__name__}: takes numbers alone: give 'ae' or 'vae' for such a frame")
    rows = splits.train[:].float()
    scale = Whiten(splits.spec.shape) if standardize else Chain([])
    scale.fit([rows])
    own: Any = clone(transformer)
    own.fit(scale(rows).flatten(1).double().numpy())
    return ModelObject.model_validate({"model": external(own, splits.spec, transform=scale)})


def named_or_config(model: Any, role: Role) -> Any:
    """Return the name or config of a model that was given as a name, a config or an object, or a transformer as it is.

    Raises:
        UserError: if it is none of these, or an object that can't play the role.
    """
    if isinstance(model, str | ModelConfig) or (role == "gae" and is_transformer(model)):
        return model
    kind = GeneralizedAutoencoder if role == "gae" else DensityEstimator
    if isinstance(model, kind):
        return ModelObject.model_validate({"model": model})
    raise UserError(f"{role}={model!r:.80}: give the name of a model, its config, or a {kind.__name__}")
