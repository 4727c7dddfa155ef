"""The two-step model: a density on the embeddings of an autoencoder.

    z ~ p_Z,  x = g(z)

    log p_X(x) = log p_Z(f(x)) - ½ log det JᵀJ,   J = dg/dz at f(x)

with respect to volume on the learned manifold `{g(z)}`. A point off the manifold gets the density of its projection
`g(f(x))`, so an outlier score also needs its distance, `reconstruction_error`.

Source: Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al., 2022, arXiv
2204.07172).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from twostep.core.schema import DataSpec, UserError
from twostep.models.base import UNCONDITIONAL, DensityEstimator, GeneralizedAutoencoder, Likelihood, Model
from twostep.models.parts.conditional import ConditionalDensity, OfBestLabel, given


@final
class TwoStep(nn.Module):
    """A generalized autoencoder, encoder f and decoder g, and an estimator of the density p_Z of its embeddings."""

    def __init__(self, gae: GeneralizedAutoencoder, de: DensityEstimator) -> None:
        super().__init__()
        self.gae = gae
        self.de = de
        self.event_shape = gae.event_shape
        self.dim = gae.dim
        on_rows = gae.columns is not None and de.likelihood == "exact"
        self.likelihood: Likelihood = "bound" if on_rows else de.likelihood
        self.columns = gae.columns
        self.decodes, self.no_volume = gae.decodes, gae.no_volume

    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to embeddings `(B, d)`."""
        return self.gae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Map embeddings `(B, d)` to data space `(B, *S)`."""
        return self.gae.decode(z)

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """Return `‖x - g(f(x))‖²` of shape `(B,)`, in squared units of the data."""
        return self.gae.reconstruction_error(x)

    def sample(self, n: int, generator: torch.Generator | None = None, y: Tensor | int | None = None) -> Tensor:
        """Draw `(n, *S)` points of the learned manifold, of a conditional density given labels, see its `sample`."""
        if y is None:
            z = self.de.sample(n, generator)
        elif isinstance(self.de, ConditionalDensity):
            z = self.de.sample(n, generator, y)
        else:
            raise UserError(UNCONDITIONAL)
        return self.gae.clamp(self.gae.generate(z, generator))

    def log_prob_latent(self, x: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Return `log p_Z(f(x))` of shape `(B,)`, in nats, with respect to volume in R^d, given labels if any."""
        return self.de.log_prob(self.encode(x), y)

    def log_prob(self, x: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Return `log p_X` of shape `(B,)`, in nats, on the manifold; `+inf` where the decoder is singular.

        With numbers of labels y, `(B,)` or one for all, it is `log p(x | y)` of a conditional density.
        """
        return self.gae.density_with(self.de if y is None else given(self.de, y), x)


def latent_spec(data: DataSpec, latent_dim: int, grid: tuple[int, int, int] | None = None) -> DataSpec:
    """Return the facts of a data set's embeddings, flattened grids or not; no range before an encoder is trained."""
    return DataSpec(
        name=f"embeddings of {data.name}",
        shape=(latent_dim,),
        size=data.size,
        low=-torch.inf,
        high=torch.inf,
        labels=data.labels,
        grid=grid,
    )


def of_best_label(model: nn.Module) -> nn.Module:
    """Return a model whose density of a point is the highest of all labels, if it is conditioned on such."""
    density = model.de if isinstance(model, TwoStep) else model
    if not isinstance(density, ConditionalDensity) or not density.labels:
        return model
    best = OfBestLabel(density)
    return TwoStep(model.gae, best) if isinstance(model, TwoStep) else best


def spec_seen(model: Model | TwoStep, data: DataSpec) -> DataSpec:
    """Return the facts of what a model is fitted to: of a data set, or of its embeddings."""
    of_data = model.event_shape == data.shape and (data.table is None or model.columns is not None)
    return data if of_data else latent_spec(data, model.event_shape[0])
