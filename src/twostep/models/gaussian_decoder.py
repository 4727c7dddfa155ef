"""Latents of a Gaussian prior, and a decoder with a Gaussian about its mean: what `vae` and `avb` share.

    z ~ N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  y = t(x)

σ is one learned number, or one for each coordinate that the decoder gives beside the mean.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from twostep.distributions import normal_log_prob
from twostep.models.base import ModelConfig
from twostep.models.importance_bound import ImportanceBound, bound
from twostep.models.networks import EncoderDecoderConfig, NetworkDecoder
from twostep.schema import DataSpec, PositiveInt


class GaussianDecoderConfig(EncoderDecoderConfig):
    """Keys of a model with a Gaussian about its decoder's mean."""

    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"k"}

    single_sigma: bool = Field(True, description="one learned std for the decoder; False: one for each coordinate")
    k: PositiveInt = Field(1, description="samples in the bound on log p; 1 is the evidence lower bound")


class GaussianDecoder(NetworkDecoder, ImportanceBound):
    """An autoencoder that is a density too; a subclass has an encoder, and with it the weights of the bound.

    Args:
        config: of the model.
        spec: of the data.
        prior_sigma: s.
        log_sigma: where log σ begins, if it is one number.
    """

    def __init__(
        self, config: GaussianDecoderConfig, spec: DataSpec, prior_sigma: float = 1.0, log_sigma: float = 0.0
    ) -> None:
        super().__init__(config, spec)
        self.latent_dim, self.k = config.latent_dim, config.k
        self.prior_sigma = self.prior_std = prior_sigma
        self.copies = 1 if config.single_sigma else 2
        self.log_sigma = nn.Parameter(torch.tensor(log_sigma)) if config.single_sigma else None

    def log_density(self, x: Tensor) -> Tensor:
        """Return a lower bound on the log-density, of shape `(B,)`, in nats, from k draws of torch's generator."""
        return bound(self.log_weights(x, self.k))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points: a latent from the prior, then a point from the decoder's Gaussian."""
        like = next(self.parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, device=like.device, dtype=like.dtype)
        mean, log_std = self._likelihood(self.prior_sigma * z)
        noise = torch.randn(mean.shape, generator=generator, device=like.device, dtype=like.dtype)
        return self.clamp(self.transform.inverse(mean + log_std.exp() * noise))

    def log_likelihood(self, y: Tensor, z: Tensor) -> Tensor:
        """Return log p(y | z), `(B,)`, of transformed data."""
        mean, log_std = self._likelihood(z)
        return normal_log_prob((y - mean).square(), log_std)

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_sigma is not None:
            return self.decoder(z), self.log_sigma
        mean, log_std = self.decoder(z).chunk(2, dim=1)
        return mean, log_std
