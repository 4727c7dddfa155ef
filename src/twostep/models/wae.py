"""Wasserstein autoencoder whose embeddings an adversary holds to the law of a prior.

    z = f(y),  y = t(x),  p(z) = N(0, s² I)

    min over T     of  E softplus(-T(z_p)) + E softplus(T(f(y))),  at its best  T = log p(z) - log q(z)
    min over f, g  of  E ‖y - g(f(y))‖² + λ E softplus(-T(f(y)))

q is the law of the embeddings and z_p a draw from p. softplus(-T) is -log of the chance by which the critic T takes an
embedding for a draw from p.

Source: Wasserstein Auto-Encoders (Tolstikhin et al., 2018, arXiv 1711.01558), algorithm 1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import AliasChoices, Field
from torch import Tensor
from torch.nn.functional import softplus

from twostep.core.keys import PATIENCE, STOPPING_METRIC, TEST_METRICS, VALID_METRICS
from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt
from twostep.models.base import MODELS, AdversarialConfig, Objective, OptimizerConfig, Role
from twostep.models.parts.networks import EncoderDecoderConfig, NetworkDecoder
from twostep.nn.layers import Activation
from twostep.nn.mlp import MLP

JUDGE = "l2_reconstruction_error"
# The paper's weight of the penalty is for errors of so many coordinates. With it nothing is learned of digits, which
# have 64: the error stays at all of the variance, and is 10 % with ours (benchmarks/defaults.py).
PAPERS_DIM = 784


@MODELS.register("wae")
class WAEConfig(EncoderDecoderConfig, AdversarialConfig):
    """Keys of `wae`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "Wasserstein autoencoder: embeddings held to a Gaussian law"
    paper: ClassVar[str] = "Tolstikhin et al., 2018, arXiv 1711.01558"

    name: Literal["wae"] = "wae"
    encoder_hidden_channels: tuple[PositiveInt, ...] = Field(
        (64, 64, 32, 32), min_length=1, description="channels (cnn)"
    )
    decoder_hidden_channels: tuple[PositiveInt, ...] = Field(
        (32, 32, 64, 64), min_length=1, description="channels (cnn)"
    )
    penalty_weight: NonNegativeFloat = Field(
        10.0, validation_alias=AliasChoices("_lambda", "lambda"), description="weight of the latent law's penalty"
    )
    sigma: PositiveFloat = Field(1.0, description="std of the latent prior")
    discriminator_hidden_dims: tuple[PositiveInt, ...] = Field(
        (256, 256), description="hidden layers of the discriminator"
    )
    discriminator_activation: Activation = Field("relu", description="after each hidden layer of the discriminator")
    disc_lr: PositiveFloat = Field(2.5e-4, description="learning rate of the discriminator")
    rec_lr: PositiveFloat = Field(5e-4, description="learning rate of encoder and decoder")
    use_disc_lr_scheduler: bool = Field(False, description="cosine decay of disc_lr to 0 over all steps")
    use_rec_lr_scheduler: bool = Field(False, description="cosine decay of rec_lr to 0 over all steps")
    max_epochs: PositiveInt = Field(300, description="epochs to train for")
    early_stopping_metric: str | None = Field(JUDGE, description=STOPPING_METRIC)
    max_bad_valid_epochs: PositiveInt | None = Field(30, description=PATIENCE)
    valid_metrics: tuple[str, ...] = Field((JUDGE,), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field((JUDGE,), description=TEST_METRICS)

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Convolve every picture; weigh the penalty by the number of coordinates."""
        net = "cnn" if spec.is_image else "mlp"
        return {
            **super().defaults(spec, role),
            "encoder_net": net,
            "decoder_net": net,
            "penalty_weight": 10 * min(1, spec.dim / PAPERS_DIM),
        }

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Give the penalty one weight for all data; never clip."""
        given = {"penalty_weight": 10, "max_grad_norm": None, "test_metrics": ("fid", JUDGE)}
        return {**super().reference(spec, role), **given}

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """Return the optimisers of the discriminator, and of encoder and decoder."""
        return {
            "discriminator": OptimizerConfig(self.disc_lr, self.use_disc_lr_scheduler),
            "reconstruction": OptimizerConfig(self.rec_lr, self.use_rec_lr_scheduler),
        }

    def build(self, spec: DataSpec) -> WAE:
        """Return a `WAE` for data of this kind."""
        return WAE(self, spec)


class WAE(NetworkDecoder):
    """Encoder and decoder fitted by least squares, and a discriminator that tells embeddings from the prior."""

    def __init__(self, config: WAEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.latent_dim = config.latent_dim
        self.sigma, self.penalty_weight = config.sigma, config.penalty_weight
        self.encoder = config.build_encoder(spec, config.latent_dim)
        self.decoder = config.build_decoder(spec)
        self.discriminator = MLP(
            config.latent_dim, config.discriminator_hidden_dims, 1, config.discriminator_activation
        )

    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to embeddings `(B, d)`."""
        return self.encoder(self.transform(x))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Decode `n` draws of the prior, to points `(n, *S)`."""
        like = next(self.parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, device=like.device, dtype=like.dtype)
        return self.clamp(self.decode(self.sigma * z))

    def objectives(self) -> tuple[Objective, ...]:
        """Return the discriminator's logistic loss, and the penalised squared error of encoder and decoder."""
        players = (*self.encoder.parameters(), *self.decoder.parameters())
        return (
            Objective("discriminator", self._discriminator_loss, tuple(self.discriminator.parameters()), unit="nats"),
            Objective("reconstruction", self._loss, players, unit="squared units of the transformed data, penalised"),
        )

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.encoder(self.network_input(x))
        from_prior, encoded = self.discriminator(torch.cat([self.sigma * torch.randn_like(z), z])).chunk(2)
        return (softplus(-from_prior) + softplus(encoded)).mean()

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z = self.encoder(y)
        error = (y - self.decoder(z)).square().sum() / len(y)
        return error + self.penalty_weight * softplus(-self.discriminator(z)).mean()
