"""An estimate of dimension against the same estimate for a law that fills the space: is it low, or are points few?

Estimators at high d read too little, whatever the data are. The same number of samples of a law without a manifold,
with the data's covariance, suffers as much, so the ratio

    estimate(data) / mean of estimate(samples of the null law)

is about 1 for data without a manifold and less for others. The null law is a Gaussian, or a Gaussian mixture where that
gives held-out rows more likelihood: clusters lower an estimate too. It lives on the directions in which the data vary
at all, whose number is the *linear rank*; data on a flat subspace have ratio 1, and their rank tells it.

A ratio below 1 needs no manifold: a cube in 5 to 20 dimensions has 0.89 to 0.93, as its edges have fewer neighbours
beside them, and a sphere S^19 in R^20, which is one, has 0.98. Nor is ratio * rank a dimension: see `calibration`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, likelihood_value
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods, nearest_others
from twostep.nn.distributions import fitted_mixture, mean_and_factor

DRAWS = 5
HELD_OUT = 5  # a fifth of the rows

Estimator = Callable[[Neighbourhoods], float]


@dataclass(frozen=True)
class NullRatio:
    """An estimate beside those of samples of a law that fills the space.

    Args:
        ratio: the estimate over the mean of the samples' estimates.
        spread: standard deviation of the ratio over the samples.
        estimates: of the samples.
        rank: directions in which the data vary, the dimension of the null law.
        law: the null law, in words.
    """

    ratio: float
    spread: float
    estimates: tuple[float, ...]
    rank: int
    law: str

    @property
    def fills_space(self) -> bool:
        """Whether the estimate is no lower than the null law's, by twice the spread."""
        return self.ratio + 2 * self.spread >= 1


def against_null(
    near: Neighbourhoods, estimator: Estimator = likelihood_value, draws: int = DRAWS, seed: int = 0
) -> NullRatio:
    """Compare the estimate of the data with those of some draws, each of as many points, of a full-dimensional law."""
    value = estimator(near)
    points, scales = near.principal
    law = _mixture(points / scales, seed)
    generator = torch.Generator().manual_seed(derive(seed, "null"))
    estimates: list[float] = []
    for _ in range(draws):
        samples = _draw(law, near.n, len(scales), generator) * scales
        estimates.append(estimator(Neighbourhoods(samples, *nearest_others(samples, NEIGHBOURS))))
    ratios = value / torch.tensor(estimates, dtype=torch.double)
    name = "a Gaussian of the same covariance" if law is None else f"a mixture of {len(_weights(law))} Gaussians"
    return NullRatio(value * draws / sum(estimates), float(ratios.std()), tuple(estimates), len(scales), name)


def _mixture(z: Tensor, seed: int) -> MixtureSameFamily | None:
    """Return the mixture of standardised points `(n, rank)`; None where a Gaussian is as good on held-out rows."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(derive(seed, "held out")))
    held, kept = z[order].tensor_split([len(z) // HELD_OUT])
    mean, factor = mean_and_factor(kept)
    gaussian = MultivariateNormal(mean, scale_tril=factor)
    mixture = fitted_mixture(kept, derive(seed, "mixture"))
    if float(mixture.log_prob(held).mean()) <= float(gaussian.log_prob(held).mean()):
        return None
    law = fitted_mixture(z, derive(seed, "mixture"))
    return law if len(_weights(law)) > 1 else None


def _weights(law: MixtureSameFamily) -> Tensor:
    return law.mixture_distribution.probs


def _draw(law: MixtureSameFamily | None, n: int, rank: int, generator: Generator) -> Tensor:
    """Draw `(n, rank)`, from a standard Gaussian where there is no mixture; each point of its own component only."""
    points = torch.randn(n, rank, generator=generator, dtype=torch.double)
    if law is None:
        return points
    components = cast(MultivariateNormal, law.component_distribution)
    chosen = torch.multinomial(_weights(law), n, replacement=True, generator=generator)
    for component, (mean, factor) in enumerate(zip(components.loc, components.scale_tril, strict=True)):
        rows = chosen == component
        points[rows] = mean + points[rows] @ factor.T
    return points
