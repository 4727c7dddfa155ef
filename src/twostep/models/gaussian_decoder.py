"""Latents of a Gaussian prior, and a decoder with a Gaussian about its mean: what `vae` and `avb` share.

    z ~ N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  y = t(x)

σ is one number for all coordinates, a free parameter or an output of the decoder for each z, or an output for each z
and each coordinate.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from twostep.distributions import normal_log_prob
from twostep.models.base import ModelConfig, Role
from twostep.models.importance_bound import ImportanceBound, bound
from twostep.models.networks import EncoderDecoderConfig, NetworkDecoder
from twostep.schema import DataSpec, PositiveInt


class GaussianDecoderConfig(EncoderDecoderConfig):
    """Keys of a model with a Gaussian about its decoder's mean."""

    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"k"}

    single_sigma: bool = Field(True, description="one std for all coordinates; False: one for each")
    sigma_from: Literal["parameter", "decoder"] = Field(
        "parameter", description="where the single std comes from: a free parameter, or an output of the decoder"
    )
    k: PositiveInt = Field(1, description="samples in the bound on log p; 1 is the evidence lower bound")

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Let the decoder give one std for each latent; take fully connected networks of 256 for a density."""
        hidden = {f"{side}_hidden_dims": (256,) for side in ("encoder", "decoder")}
        nets = dict.fromkeys(("encoder_net", "decoder_net"), "mlp") if role == "de" else {}
        return {**super().reference(spec, role), **hidden, **nets, "single_sigma": True, "sigma_from": "decoder"}


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
        self.log_sigma: nn.Parameter | None = None
        self.to_log_sigma: nn.Module | None = None
        shape = (spec.dim,) if config.is_flat() else spec.shape
        if not config.single_sigma:
            self.extra = shape[0]
        elif config.sigma_from == "parameter":
            self.log_sigma = nn.Parameter(torch.tensor(log_sigma))
        else:
            self.extra = 1
            places = math.prod(shape[1:])  # of the decoder's extra channel
            self.to_log_sigma = nn.Linear(places, 1) if places > 1 else nn.Identity()

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

    def sigma_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of a single std that are not the decoder's."""
        head = () if self.to_log_sigma is None else tuple(self.to_log_sigma.parameters())
        return head if self.log_sigma is None else (self.log_sigma,)

    def log_likelihood(self, y: Tensor, z: Tensor) -> Tensor:
        """Return log p(y | z), `(B,)`, of transformed data."""
        mean, log_std = self._likelihood(z)
        return normal_log_prob((y - mean).square(), log_std)

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean `(B, *S)` and log-std, which broadcasts against it, of y at latents `(B, d)`."""
        mean, rest = self._split(self.decoder(z))
        if self.log_sigma is not None:
            return mean, self.log_sigma
        if self.to_log_sigma is None:
            return mean, rest
        return mean, self.to_log_sigma(rest.flatten(1)).view(-1, *(1 for _ in mean.shape[1:]))
