"""A model object in the place of a config, so that it is trained like models that have one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from twostep.core.schema import DataSpec, UserError
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


def named_or_config(model: Any, role: Role) -> str | ModelConfig:
    """Return the name or config of a model that was given as a name, a config or an object.

    Raises:
        UserError: if it is neither, or an object that can't play the role.
    """
    if isinstance(model, str | ModelConfig):
        return model
    kind = GeneralizedAutoencoder if role == "gae" else DensityEstimator
    if isinstance(model, kind):
        return ModelObject.model_validate({"model": model})
    raise UserError(f"{role}={model!r:.80}: give the name of a model, its config, or a {kind.__name__}")
