"""Importance-weighted bounds on log p as a function of the number of draws k: `E log (1/k) Σ_i w_i`.

The bound increases to log p with k; where it still increases, it is not tight. All k share their draws: m draws make
m / k groups.

Source: Importance Weighted Autoencoders (Burda et al., 2016, arXiv 1509.00519).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twostep.core.schema import UserError
from twostep.metrics.base import Result, RowMean
from twostep.models.base import evaluating
from twostep.models.parts.gaussian_decoder import GaussianDecoder, bound

BLOCK = 1000  # points whose weights are in memory at once


def bound_curve(model: nn.Module, x: Tensor, ks: Sequence[int], seed: int = 0) -> dict[int, Result]:
    """Return the mean bound on the log-density at each number of draws, with its standard error over the points.

    Args:
        model: a density that is known by a bound.
        x: data `(B, *S)`.
        ks: numbers of draws at each point; as many are drawn as the largest says.
        seed: of the draws.

    Raises:
        UserError: if the model has no such bound, or a number is not positive.
    """
    if not isinstance(model, GaussianDecoder):
        raise UserError("bound_curve: the model has no bound by importance weights; take vae or avb as the density")
    if not ks or min(ks) < 1:
        raise UserError(f"bound_curve: numbers of draws must be positive, not {list(ks)}")
    found: dict[int, list[Tensor]] = {k: [] for k in sorted(ks)}
    with evaluating(model), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for points in model.noise.dequantize(x.to(next(model.parameters()).dtype)).split(BLOCK):
            weights = model.log_weights(points, max(ks))
            for k, values in found.items():
                groups = weights[: len(weights) // k * k].split(k)
                values.append(torch.stack([bound(group) for group in groups]).mean(0))
    measure = f"Lebesgue on R^{model.dim}"
    curve: dict[int, Result] = {}
    for k, values in found.items():
        mean = RowMean.of(values, lambda total: total)
        note = f"{k:,} draws at each point, mean of {max(ks) // k:,} such"
        curve[k] = Result(mean.mean, "nats", mean.n, mean.standard_error, "bound", measure, note)
    return curve
