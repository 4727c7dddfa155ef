"""Densities that are fitted to all rows at once, without a loss and without steps.

Such a density has no parameters: what it learns lies in buffers, whose number of rows the fit finds. It is fitted with
its transform, and again whenever the data are new, as when the two steps are trained in turns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import Unpack, override

from twostep.core.keys import TEST_METRICS, VALID_METRICS
from twostep.core.schema import DataSpec, PositiveInt, UserError
from twostep.models.base import DataArguments, DensityEstimator, Likelihood, ModelConfig, Objective, Preset, Role
from twostep.nn.transforms import MappedBatches

MAX_ROWS = 50_000  # evenly spaced ones of more


class FittedDensity(DensityEstimator):
    """A density fitted by `fit_transform` alone.

    A subclass names in `sized` the buffers whose shapes, `(K,)` or `(K, ..., D)`, the fit finds.

    Args:
        event_shape: shape `*S` of a data point.
        data: see `Model`; the transform must give vectors.
    """

    likelihood: Likelihood = "exact"
    sized: ClassVar[tuple[str, ...]]

    def __init__(self, event_shape: Sequence[int], **data: Unpack[DataArguments]) -> None:
        super().__init__(event_shape, **data)
        self.register_load_state_dict_pre_hook(_take_sizes)

    @abstractmethod
    def fit_rows(self, y: Tensor) -> None:
        """Fit the density to what the transform gives, `(n, D)`; random numbers are drawn from torch's generator."""

    @override
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        """Fit the transform, and the density to what it gives of at most 50,000 rows, evenly spaced.

        Raises:
            UserError: for rows that are not finite.
        """
        super().fit_transform(batches)
        with torch.no_grad():
            self.fit_rows(finite_rows(self, evenly_spaced(MappedBatches(self.network_input, batches), MAX_ROWS)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return ()

    def put(self, name: str, value: Tensor) -> None:
        """Set a buffer, on the device and in the type that it has."""
        setattr(self, name, value.to(getattr(self, name)))


def finite_rows(model: DensityEstimator, y: Tensor) -> Tensor:
    """Return the rows to which a model is fitted, or raise `UserError` where some are not finite."""
    if not y.isfinite().all():
        raise UserError(f"{type(model).__name__}: its training rows hold numbers that are not finite")
    return y


def evenly_spaced(batches: Iterable[Tensor], most: int) -> Tensor:
    """Return at most so many rows of batches, which are iterated over twice, evenly spaced, as vectors `(n, D)`."""
    total = sum(len(x) for x in batches)
    rows = min(total, most)
    wanted = torch.arange(rows, device="cpu") * total // rows
    kept: list[Tensor] = []
    seen = 0
    for x in batches:
        mine = wanted[(wanted >= seen) & (wanted < seen + len(x))] - seen
        kept.append(x.flatten(1)[mine.to(x.device)])
        seen += len(x)
    return torch.cat(kept)


def _take_sizes(model: FittedDensity, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give buffers the shapes that they have in a state; torch refuses one of another dimension D."""
    for name in model.sized:
        own, found = getattr(model, name), state.get(prefix + name)
        if found is not None and found.dim() and found.shape[1:][-1:] == own.shape[1:][-1:]:
            setattr(model, name, own.new_empty(found.shape))


class FittedConfig(ModelConfig):
    """Keys of a model that is fitted at once; those of training by steps have no effect."""

    rates: ClassVar[dict[str, str]] = {}
    default_steps: ClassVar[int | None] = None
    roles: ClassVar[tuple[Role, ...]] = ("de",)

    max_epochs: PositiveInt = Field(1, description="has no effect: the model is fitted at once")
    valid_metrics: tuple[str, ...] = Field(("log_likelihood",), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field(("log_likelihood",), description=TEST_METRICS)

    @field_validator("early_stopping_metric")
    @classmethod
    def _nothing_stops_early(cls, value: str | None) -> None:
        return None

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        return {"whitening_transform": True, "dequantize": spec.is_image and spec.discrete}

    @override
    def is_flat(self) -> bool:
        return True
