"""Adversarial variational Bayes, as an autoencoder and as a density.

    z ~ p = N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  z | y ~ q: z = f(y, ε), ε ~ N(0, s_in² I),  y = t(x)

    min over T     of  E softplus(-T(y, z_q)) + E softplus(T(y, z_p)),  at its best  T = log q(z | y) - log p(z)
    min over f, m  of  E T(y, z_q) - log p(y | z_q)

The discriminator T has no part in the density: with N(z; μ, C), the Gaussian that has the moments of f's draws at y,

    log p(x) >= E log (1/k) Σ_i p(y | z_i) p(z_i) / N(z_i; μ, C) + log|det t'(x)|,  z_i ~ N(μ, C)

Source: Adversarial Variational Bayes (Mescheder et al., 2017, arXiv 1701.04722).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from twostep.distributions import normal_log_prob, standard_normal_log_prob
from twostep.models.base import (
    MODELS,
    DensityEstimator,
    GeneralizedAutoencoder,
    Likelihood,
    ModelConfig,
    Objective,
    OptimizerConfig,
    Role,
)
from twostep.models.networks import EncoderDecoderConfig
from twostep.nn.activations import Activation
from twostep.nn.joined import JoinedNet
from twostep.nn.mlp import MLP
from twostep.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt

BLOCK = 16384  # rows that pass a network at once in evaluation


@MODELS.register("avb")
class AVBConfig(EncoderDecoderConfig):
    """Keys of `avb`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae", "de")
    summary: ClassVar[str] = "adversarial variational Bayes: an encoder of any law"
    paper: ClassVar[str] = "Mescheder et al., 2017, arXiv 1701.04722"
    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"k"}

    name: Literal["avb"] = "avb"
    noise_dim: PositiveInt = Field(256, description="coordinates of the encoder's noise")
    input_sigma: NonNegativeFloat = Field(3.0, description="std of the encoder's noise")
    prior_sigma: PositiveFloat = Field(1.0, description="std of the latent prior")
    single_sigma: bool = Field(True, description="one learned std for the decoder; False: one for each coordinate")
    discriminator_hidden_dims: tuple[PositiveInt, ...] = Field(
        (256, 256), description="hidden layers of the discriminator"
    )
    discriminator_activation: Activation = Field("relu", description="after each hidden layer of the discriminator")
    disc_lr: PositiveFloat = Field(1e-3, description="learning rate of the discriminator")
    nll_lr: PositiveFloat = Field(1e-3, description="learning rate of encoder and decoder")
    use_disc_lr_scheduler: bool = Field(True, description="cosine decay of disc_lr to 0 over all steps")
    use_nll_lr_scheduler: bool = Field(True, description="cosine decay of nll_lr to 0 over all steps")
    k: PositiveInt = Field(1, description="samples in the bound on log p")

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Judge an autoencoder by its reconstructions, a density by its likelihood, and stop by it."""
        networks = super().defaults(spec, role)
        return {
            **networks,
            **_judged_by("l2_reconstruction_error" if role == "gae" else "log_likelihood"),
            "noise_dim": 256 if role == "gae" else 128,
            "max_epochs": 50 if networks["encoder_net"] == "mlp" else 100,
        }

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Judge a density by its reconstructions too."""
        return {**super().reference(spec, role), **_judged_by("l2_reconstruction_error")}

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """Return the optimisers of the discriminator, and of encoder and decoder."""
        return {
            "discriminator": OptimizerConfig(self.disc_lr, self.use_disc_lr_scheduler),
            "nll": OptimizerConfig(self.nll_lr, self.use_nll_lr_scheduler),
        }

    def build(self, spec: DataSpec) -> AVB:
        """Return an `AVB` for data of this kind."""
        return AVB(self, spec)


class AVB(GeneralizedAutoencoder, DensityEstimator):
    """Encoder of any law, decoder, and a discriminator that tells the law from the prior.

    An embedding is the mean of the encoder's draws over a fixed set of noise.
    """

    likelihood: ClassVar[Likelihood] = "bound"

    noise_set: Tensor

    def __init__(self, config: AVBConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.latent_dim = config.latent_dim
        self.k = config.k
        self.noise_dim, self.input_sigma, self.prior_sigma = config.noise_dim, config.input_sigma, config.prior_sigma
        self.encoder = JoinedNet(config.build_encoder(spec, config.latent_dim), config.noise_dim)
        self.decoder = config.build_decoder(spec, copies=1 if config.single_sigma else 2)
        self.log_sigma = nn.Parameter(torch.zeros(())) if config.single_sigma else None
        self.discriminator = JoinedNet(
            MLP(spec.dim, config.discriminator_hidden_dims, 1, config.discriminator_activation), config.latent_dim
        )
        half = torch.randn(32 + 4 * config.latent_dim, config.noise_dim)
        self.register_buffer("noise_set", torch.cat([half, -half]))

    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to the means of the encoder's draws over the fixed set of noise, `(B, d)`."""
        return torch.cat([self._draws(y).mean(1) for y in self._blocks(self.transform(x))])

    def decode(self, z: Tensor) -> Tensor:
        """Map embeddings `(B, d)` to the decoder's mean in data space, `(B, *S)`."""
        return self.transform.inverse(self._likelihood(z)[0])

    def log_prob(self, x: Tensor) -> Tensor:
        """Return a lower bound on the log-density, of shape `(B,)`, in nats, from k draws of torch's generator."""
        bound = torch.cat([self._bound(y) for y in self._blocks(self.transform(x))])
        return bound + self.transform.log_abs_det_jacobian(x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `(n, *S)` points: a latent from the prior, then a point from the decoder's Gaussian."""
        like = next(self.parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, device=like.device, dtype=like.dtype)
        mean, log_std = self._likelihood(self.prior_sigma * z)
        noise = torch.randn(mean.shape, generator=generator, device=like.device, dtype=like.dtype)
        return self.clamp(self.transform.inverse(mean + log_std.exp() * noise))

    def objectives(self) -> tuple[Objective, ...]:
        """Return the discriminator's logistic loss, and the negative evidence bound of encoder and decoder."""
        judge = tuple(self.discriminator.parameters())
        players = (*self.encoder.parameters(), *self.decoder.parameters())
        return (
            Objective("discriminator", self._discriminator_loss, judge, unit="nats"),
            Objective("nll", self._nll, players if self.log_sigma is None else (*players, self.log_sigma)),
        )

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        with torch.no_grad():
            z = self._encode_noisily(y)
        features = self.discriminator.features(y.flatten(1))
        from_prior = self.discriminator.join(features, self.prior_sigma * torch.randn_like(z))
        return (softplus(-self.discriminator.join(features, z)) + softplus(from_prior)).mean()

    def _nll(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z = self._encode_noisily(y)
        return (self.log_ratio(y, z) - self._log_likelihood(y, z)).mean()

    def log_ratio(self, y: Tensor, z: Tensor) -> Tensor:
        """Return the discriminator's guess of `log q(z | y) - log p(z)`, of shape `(B,)`, for the network's input."""
        return self.discriminator(y.flatten(1), z).squeeze(1)

    def _encode_noisily(self, y: Tensor) -> Tensor:
        noise = torch.randn(len(y), self.noise_dim, device=y.device, dtype=y.dtype)
        return self.encoder(y, self.input_sigma * noise)

    def _draws(self, y: Tensor) -> Tensor:
        """Return the encoder's outputs over the fixed set of noise, `(B, m, d)`."""
        return self.encoder.join(self.encoder.features(y)[:, None], self.input_sigma * self.noise_set)

    def _blocks(self, y: Tensor) -> tuple[Tensor, ...]:
        return y.split(max(1, BLOCK // len(self.noise_set)))

    def _bound(self, y: Tensor) -> Tensor:
        mean, factor = self._proposal(y)
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        prior_log_std = mean.new_tensor(math.log(self.prior_sigma))
        weights: list[Tensor] = []
        for _ in range(self.k):
            noise = torch.randn_like(mean)
            z = mean + (factor @ noise[:, :, None]).squeeze(2)
            log_q = standard_normal_log_prob(noise) - log_det
            weights.append(self._log_likelihood(y, z) + normal_log_prob(z.square(), prior_log_std) - log_q)
        return torch.stack(weights).logsumexp(0) - math.log(self.k)

    def _proposal(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean `(B, d)` of the encoder's draws and a Cholesky factor `(B, d, d)` of their covariance.

        Every variance grows by a thousandth, which keeps the correlations regular in single precision, and by a
        millionth of the prior's, which is what is left of a law that has collapsed to a point.
        """
        z = self._draws(y)
        mean = z.mean(1)
        centred = z - mean[:, None]
        covariance = centred.mT @ centred / (z.shape[1] - 1)
        jitter = 1e-3 * covariance.diagonal(dim1=1, dim2=2) + 1e-6 * self.prior_sigma**2
        return mean, torch.linalg.cholesky(covariance + torch.diag_embed(jitter))

    def _log_likelihood(self, y: Tensor, z: Tensor) -> Tensor:
        mean, log_std = self._likelihood(z)
        return normal_log_prob((y - mean).square(), log_std)

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_sigma is not None:
            return self.decoder(z), self.log_sigma
        mean, log_std = self.decoder(z).chunk(2, dim=1)
        return mean, log_std


def _judged_by(metric: str) -> dict[str, Any]:
    return {"early_stopping_metric": metric, "valid_metrics": (metric,), "test_metrics": (metric,)}
