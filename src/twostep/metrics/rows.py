"""Mean log-densities, each with its kind and its measure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from twostep.metrics.base import METRICS, Moments, Result, RowMetric, SumOverRanks
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep


class LogLikelihood(RowMetric):
    """Mean log-density in data space, or on the learned manifold for a two-step model.

    A density trained on dequantised whole numbers is measured on dequantised whole numbers, and then has bits per
    dimension too: `-log p / (D log 2)`, an upper bound on those of the whole numbers' probability.
    """

    name = "log_likelihood"
    summary = "mean log-density, with its kind (exact, bound, estimate, unnormalised) and its measure"
    lower_is_better = False

    def refusal(self, model: nn.Module) -> str:
        """Refuse models without a density."""
        return "" if isinstance(model, DensityEstimator | TwoStep) else "it has no density"

    def __call__(self, model: nn.Module, batches: Iterable[Tensor], sum_over_ranks: SumOverRanks) -> dict[str, Result]:
        """Average the log-density; points at which a decoder has not full rank are counted and left out."""
        if isinstance(model, TwoStep):
            moments = Moments.of((model.log_prob(x) for x in batches), sum_over_ranks, leave_out=math.inf)
            left_out = f"{moments.left_out:,} points at which the decoder's Jacobian has rank below {model.de.dim}"
            note = f"{left_out} are left out" if moments.left_out else ""
            return {self.name: _result(moments, model.likelihood, "volume of the learned manifold", note)}
        model = cast(DensityEstimator, model)
        moments = Moments.of((model.log_prob(x) for x in batches), sum_over_ranks)
        results = {self.name: _result(moments, model.likelihood, f"Lebesgue on R^{model.dim}")}
        if model.noise.dequantizes and model.likelihood != "unnormalised":
            bits = model.dim * math.log(2)
            error = None if moments.standard_error is None else moments.standard_error / bits
            results["bits_per_dim"] = Result(
                -moments.mean / bits,
                "bits/dim",
                moments.n,
                error,
                kind="estimate" if model.likelihood == "estimate" else "bound",
            )
        return results


METRICS.register("log_likelihood")(LogLikelihood())


def _result(moments: Moments, kind: str, measure: str, note: str = "") -> Result:
    return Result(moments.mean, "nats", moments.n, moments.standard_error, kind, measure, note)
