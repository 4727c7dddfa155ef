"""Wasserstein autoencoder: an adversary makes the embeddings follow a prior.

    z = f(y),  y = t(x),  p(z) = N(0, s² I)

    min over T     of  E softplus(-T(z_p)) + E softplus(T(f(y))),  at its best  T = log p(z) - log q(z)
    min over f, g  of  E ‖y - g(f(y))‖² + λ E softplus(-T(f(y)))

q is the distribution of the embeddings and z_p a draw from p. softplus(-T) is -log of the probability that the critic T
gives an embedding of being a draw from p.

Source: Wasserstein Auto-Encoders (Tolstikhin et al., 2018, arXiv 1711.01558), algorithm 1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import Unpack, override

from twostep.core.keys import Channels
from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat
from twostep.models.base import ERROR, MODELS, DataArguments, Objective, Preset, Role
from twostep.models.parts.networks import LAMBDA, AdversarialConfig, EncoderDecoder

# The paper's weight of the penalty is for errors of so many coordinates (benchmarks/defaults.py).
PAPERS_DIM = 784


class WAE(EncoderDecoder):
    """Encoder and decoder, see `EncoderDecoder`, and a discriminator of embeddings and draws from the prior.

    Args:
        discriminator: maps embeddings to T, `(B, 1)`.
        sigma: std s of the prior.
        penalty_weight: λ.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        sigma: float = 1.0,
        penalty_weight: float = 10.0,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **data)
        self.discriminator = discriminator
        self.sigma, self.penalty_weight = sigma, penalty_weight

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Decode `n` draws of the prior, to points `(n, *S)`."""
        return self.clamp(self.decode(self.sigma * self.draw(torch.randn, (n, self.latent_dim), generator)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        unit = "squared units of the transformed data, penalised"
        return (
            Objective("discriminator", self._discriminator_loss, tuple(self.discriminator.parameters()), unit="nats"),
            Objective("reconstruction", self._loss, self.network_parameters(), unit=unit),
        )

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.encoder(self.network_input(x))
        from_prior, encoded = self.discriminator(torch.cat([self.sigma * torch.randn_like(z), z])).chunk(2)
        return (softplus(-from_prior) + softplus(encoded)).mean()

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z = self.encoder(y)
        error = self.reconstruction_loss(y, self.points(z))
        return error + self.penalty_weight * softplus(-self.discriminator(z)).mean()


@MODELS.register("wae")
class WAEConfig(AdversarialConfig):
    """Keys of `wae`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "Wasserstein autoencoder: embeddings that follow a Gaussian"
    paper: ClassVar[str] = "Tolstikhin et al., 2018, arXiv 1711.01558"
    default_steps: ClassVar[int | None] = 20_000
    rates: ClassVar[dict[str, str]] = {"discriminator": "disc_lr", "reconstruction": "rec_lr"}

    name: Literal["wae"] = "wae"
    encoder_hidden_channels: Channels = Field((64, 64, 32, 32), description="channels (cnn)")
    decoder_hidden_channels: Channels = Field((32, 32, 64, 64), description="channels (cnn)")
    penalty_weight: NonNegativeFloat = Field(10.0, validation_alias=LAMBDA, description="weight of the penalty")
    sigma: PositiveFloat = Field(1.0, description="std of the latent prior")
    disc_lr: PositiveFloat = Field(2.5e-4, description="learning rate of the discriminator")
    rec_lr: PositiveFloat = Field(5e-4, description="learning rate of encoder and decoder")
    use_disc_lr_scheduler: bool = Field(False, description="cosine decay of disc_lr to 0 over all steps")
    use_rec_lr_scheduler: bool = Field(False, description="cosine decay of rec_lr to 0 over all steps")

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        net = "cnn" if spec.is_image else "mlp"
        values = {**super().defaults(spec, role, preset), "encoder_net": net, "decoder_net": net}
        if preset == "reference":
            values |= {"max_epochs": 300, "max_bad_valid_epochs": 30}
            return {**values, "max_grad_norm": None, "test_metrics": ("fid", ERROR)}
        return {**values, "penalty_weight": 10 * min(1, spec.dim / PAPERS_DIM)}

    @override
    def build(self, spec: DataSpec) -> WAE:
        networks = self.build_encoder(spec, self.latent_dim), self.build_decoder(spec)
        return WAE(*networks, self.build_discriminator(self.latent_dim), **self.arguments(WAE, spec))
