"""The density of an energy whose normaliser is estimated."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from twostep.models.base import DensityEstimator, Likelihood, Objective
from twostep.models.ebm import EBM
from twostep.models.parts.annealing import LogNormalizer


class NormalizedEBM(DensityEstimator):
    """The density of an energy, `-E(y) - log Z` in the box of the chains, with an estimate of log Z.

    It shares the energy's weights, and is no longer right once they change. The standard error of log Z is one of every
    log-density, the same for all points.
    """

    likelihood: Likelihood = "estimate"

    def __init__(self, model: EBM, log_z: LogNormalizer) -> None:
        super().__init__(
            model.event_shape, transform=model.transform, noise=model.noise, sample_range=model.sample_range
        )
        self.model, self.log_z = model, log_z

    @override
    def log_density(self, x: Tensor) -> Tensor:
        energy = self.model.boxed_energy(self.transform(x))
        return self.transform.log_abs_det_jacobian(x) - energy - self.log_z.value

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.model.sample(n, generator)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return self.model.objectives()
