"""The ratio of an estimate of dimension to the same estimate for a full-dimensional reference distribution.

    estimate(data) / mean of estimate(samples of the reference distribution)

Estimators are too low in many dimensions; as many samples of a full-dimensional distribution with the data's covariance
are affected as much, so the ratio is about 1 for full-dimensional data and less for others. The reference is a
Gaussian, or a Gaussian mixture where that gives held-out rows a higher likelihood: clusters lower an estimate too. It
lives on the directions in which the data vary at all, whose number is the *linear rank*.

A ratio below 1 does not imply a manifold: a cube in 5 to 20 dimensions has 0.89 to 0.93, because points at its edges
have fewer neighbours. Nor is ratio * rank a dimension, as the bias is no constant share (a network's manifold of 5
dimensions in R^20: 11.8); see `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from twostep.core.seeds import derive
from twostep.diagnosis.dimension.estimators import NEIGHBOURS, likelihood_value
from twostep.diagnosis.dimension.neighbourhoods import Neighbourhoods
from twostep.diagnosis.dimension.reference_distributions import Mixture
from twostep.nn.distributions import fitted_mixture, mean_and_factor

DRAWS = 5
HELD_OUT = 5  # one in so many rows


@dataclass(frozen=True)
class ReferenceRatio:
    """An estimate compared with those of samples of a full-dimensional distribution.

    Args:
        ratio: the estimate over the mean of the samples' estimates.
        std: of the ratio over the samples.
        estimates: of the samples.
        rank: number of directions in which the data vary, the dimension of the reference distribution.
        distribution: the reference distribution, in words.
    """

    ratio: float
    std: float
    estimates: tuple[float, ...]
    rank: int
    distribution: str

    @property
    def fills_space(self) -> bool:
        """Whether the estimate is no lower than the reference's, within two stds."""
        return self.ratio + 2 * self.std >= 1


def reference_ratio(near: Neighbourhoods, seed: int = 0) -> ReferenceRatio:
    """Compare the estimate of the data with those of samples, each of as many points, of a reference distribution."""
    value = likelihood_value(near)
    points, stds = near.principal
    mixture = _mixture(points / stds, seed)
    generator = torch.Generator().manual_seed(derive(seed, "null"))
    estimates: list[float] = []
    for _ in range(DRAWS):
        samples = torch.randn(near.n, len(stds), generator=generator, dtype=torch.double)
        if mixture is not None:
            samples = mixture.transform(samples, mixture.draw_components(near.n, generator))
        estimates.append(likelihood_value(Neighbourhoods.of(samples * stds, NEIGHBOURS)))
    ratios = value / torch.tensor(estimates, dtype=torch.double)
    name = "a Gaussian of the same covariance" if mixture is None else f"a mixture of {len(mixture.weights)} Gaussians"
    return ReferenceRatio(value * DRAWS / sum(estimates), float(ratios.std()), tuple(estimates), len(stds), name)


def _mixture(z: Tensor, seed: int) -> Mixture | None:
    """Fit a mixture to standardised points `(n, rank)`; None where a Gaussian is as good on held-out rows."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(derive(seed, "held out")))
    held, kept = z[order].tensor_split([len(z) // HELD_OUT])
    mean, factor = mean_and_factor(kept)
    gaussian = MultivariateNormal(mean, scale_tril=factor)
    mixture = fitted_mixture(kept, derive(seed, "mixture"))
    if float(mixture.log_prob(held).mean()) <= float(gaussian.log_prob(held).mean()):
        return None
    found = Mixture.of(fitted_mixture(z, derive(seed, "mixture")))
    return found if len(found.weights) > 1 else None
