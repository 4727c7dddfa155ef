"""The log-likelihood of an energy: its normaliser is estimated from below and from above."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from twostep.core.seeds import derive
from twostep.metrics import Result, evaluate
from twostep.metrics.base import SumOverRanks
from twostep.models.ebm import EBM
from twostep.models.normalized_ebm import NormalizedEBM
from twostep.models.two_step import TwoStep

MOST_DIM = 64  # coordinates of vectors, up to which a test estimates it unasked
QUICK = {"chains": 500, "temperatures": 50}  # then: a second or two


def energy_of(model: nn.Module) -> EBM | None:
    """Return the energy that is a model, or its second step; None: there is none."""
    density = model.de if isinstance(model, TwoStep) else model
    return density if isinstance(density, EBM) else None


def is_cheap(energy: EBM) -> bool:
    """Return whether the normaliser of an energy takes seconds, so that every test estimates it."""
    return len(energy.event_shape) == 1 and energy.dim <= MOST_DIM


def normalised_likelihood(
    model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks, seed: int, **keys: int
) -> dict[str, Result]:
    """Return the log-normaliser of an energy, and the log-likelihood of batches with it, by a model or in two steps.

    `keys` are those of `EBM.log_normalizer`.
    """
    energy = energy_of(model)
    assert energy is not None
    density = NormalizedEBM(energy, energy.log_normalizer(seed=derive(seed, "normaliser"), **keys))
    log_z = density.log_z
    whole = TwoStep(model.gae, density) if isinstance(model, TwoStep) else density
    likelihood = evaluate(["log_likelihood"], whole, batches, sum_over_ranks, seed)["log_likelihood"]
    error = math.hypot(likelihood.standard_error or 0.0, log_z.standard_error)
    return {
        "log_normalizer": Result(
            log_z.value, "nats", log_z.chains, log_z.standard_error, "estimate", likelihood.measure, log_z.line()
        ),
        "log_likelihood": replace(likelihood, standard_error=error),
    }
