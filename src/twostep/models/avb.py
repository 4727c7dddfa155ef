"""Adversarial variational Bayes, as an autoencoder and as a density.

    z ~ p = N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  z | y ~ q: z = f(y, ε), ε ~ N(0, s_in² I),  y = t(x)

    min over T     of  E softplus(-T(y, z_q)) + E softplus(T(y, z_p)),  at its best  T = log q(z | y) - log p(z)
    min over f, m  of  E T(y, z_q) - log p(y | z_q)

With adaptive contrast T tells draws that are standardised, e = L⁻¹ (z_q - μ(y)), from N(0, I): at its best it is the
log-ratio of q and the Gaussian r = N(μ(y), L Lᵀ), and the loss adds log r(z_q) - log p(z_q). That is right for any μ
and L; the nearer r is to q, the less T has to learn. μ(y) is the mean of two more draws at y, of opposite noise, and
L Lᵀ the covariance of such pairs over the last training steps: a batch may have fewer rows than z has coordinates.

The discriminator T has no part in the density: with N(z; μ, C), the Gaussian that has the moments of f's draws at y,

    log p(x) >= E log (1/k) Σ_i p(y | z_i) p(z_i) / N(z_i; μ, C) + log|det t'(x)|,  z_i ~ N(μ, C)

Source: Adversarial Variational Bayes (Mescheder et al., 2017, arXiv 1701.04722).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt
from twostep.models.base import MODELS, AdversarialConfig, Gather, Objective, OptimizerConfig, Role
from twostep.models.parts.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig
from twostep.models.parts.noisy_encoder import NoisyEncoder, cholesky, kl_to_prior, log_weights, moments
from twostep.models.presets import AVB_REFERENCE_DENSITY, avb_defaults, avb_reference
from twostep.nn.distributions import normal_log_prob
from twostep.nn.layers import Activation
from twostep.nn.mlp import MLP, JoinedNet
from twostep.nn.running import RunningMean

BLOCK = 16384  # rows that pass a network at once in evaluation
ROWS = 25  # for each coordinate, of which the running covariance is


@MODELS.register("avb")
class AVBConfig(GaussianDecoderConfig, AdversarialConfig):
    """Keys of `avb`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae", "de")
    summary: ClassVar[str] = "adversarial variational Bayes: an encoder of any law"
    paper: ClassVar[str] = "Mescheder et al., 2017, arXiv 1701.04722"

    name: Literal["avb"] = "avb"
    noise_dim: PositiveInt = Field(256, description="coordinates of the encoder's noise")
    input_sigma: NonNegativeFloat = Field(3.0, description="std of the encoder's noise")
    prior_sigma: PositiveFloat = Field(1.0, description="std of the latent prior")
    discriminator_hidden_dims: tuple[PositiveInt, ...] = Field((256, 256), description="its hidden layers")
    discriminator_activation: Activation = Field("relu", description="after each hidden layer of the discriminator")
    disc_lr: PositiveFloat = Field(1e-3, description="learning rate of the discriminator")
    nll_lr: PositiveFloat = Field(1e-3, description="learning rate of encoder and decoder")
    use_disc_lr_scheduler: bool = Field(True, description="cosine decay of disc_lr to 0 over all steps")
    use_nll_lr_scheduler: bool = Field(True, description="cosine decay of nll_lr to 0 over all steps")
    num_discriminator_steps: PositiveInt = Field(1, description="steps of the discriminator for each of the others")
    adaptive_contrast: bool = Field(False, description="tell standardised draws from noise, not draws from the prior")

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Judge an autoencoder by its reconstructions, a density by its likelihood, and stop by it."""
        networks = super().defaults(spec, role)
        net = networks["encoder_net"]
        return {**networks, **avb_reference(role, net), **avb_defaults(spec, role, net)}

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Contrast with the prior; train a density for as long on few rows as on many; never clip."""
        net = super().defaults(spec, role)["encoder_net"]
        keys = {**super().reference(spec, role), **avb_reference(role, net), "max_grad_norm": None}
        return keys if role == "gae" else {**keys, **AVB_REFERENCE_DENSITY}

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """Return the optimisers of the discriminator, and of encoder and decoder."""
        return {
            "discriminator": OptimizerConfig(self.disc_lr, self.use_disc_lr_scheduler),
            "nll": OptimizerConfig(self.nll_lr, self.use_nll_lr_scheduler),
        }

    def build(self, spec: DataSpec) -> AVB:
        """Return an `AVB` for data of this kind."""
        return AVB(self, spec)


class AVB(GaussianDecoder):
    """Encoder of any law, whose mean over a fixed set of noise is the embedding, decoder, and discriminator."""

    noise_set: Tensor

    def __init__(self, config: AVBConfig, spec: DataSpec) -> None:
        log_sigma = math.log(0.5) if config.adaptive_contrast else 0.0  # small: latents have to tell
        super().__init__(config, spec, config.prior_sigma, log_sigma)
        self.every, self.adaptive = config.num_discriminator_steps, config.adaptive_contrast
        self.encoder = NoisyEncoder(config.build_encoder(spec, config.latent_dim), config.noise_dim, config.input_sigma)
        self.decoder = config.build_decoder(spec, self.extra)
        self.discriminator = JoinedNet(
            MLP(spec.dim, config.discriminator_hidden_dims, 1, config.discriminator_activation), config.latent_dim
        )
        self.covariance = RunningMean((config.latent_dim, config.latent_dim)) if self.adaptive else None
        self._halves: Tensor | None = None  # half differences of the step's pairs; none where a rank has no rows
        half = torch.randn(32 + 4 * config.latent_dim, config.noise_dim)
        self.register_buffer("noise_set", torch.cat([half, -half]))

    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to the means of the encoder's draws over the fixed set of noise, `(B, d)`."""
        return torch.cat([self._draws(y).mean(1) for y in self._blocks(self.transform(x))])

    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """Return log-weights of k draws at each point, `(k, B)`, in nats."""
        weights = torch.cat([self._log_weights(y, k) for y in self._blocks(self.transform(x))], dim=1)
        return weights + self.transform.log_abs_det_jacobian(x)

    def objectives(self) -> tuple[Objective, ...]:
        """Return the discriminator's logistic loss, and the negative evidence bound of encoder and decoder."""
        judge = tuple(self.discriminator.parameters())
        players = (*self.encoder.parameters(), *self.decoder.parameters())
        players = (*players, *self.sigma_parameters())
        return (
            Objective("discriminator", self._discriminator_loss, judge, after=self._keep_covariance, unit="nats"),
            Objective("nll", self._nll, players, every=self.every, after=self._after),
        )

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        with torch.no_grad():
            _, seen, _ = self._contrasted(self.encoder.features(y))
        noise = torch.randn_like(seen)
        from_prior = noise if self.adaptive else self.prior_sigma * noise
        features = self.discriminator.features(y.flatten(1))
        log_ratio, of_prior = self.discriminator.join(features, torch.stack([seen, from_prior]))
        return (softplus(-log_ratio) + softplus(of_prior)).mean()

    def _nll(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z, seen, of_gaussian = self._contrasted(self.encoder.features(y))
        return (self.log_ratio(y, seen) + of_gaussian - self.log_likelihood(y, z)).mean()

    def log_ratio(self, y: Tensor, z: Tensor) -> Tensor:
        """Return the discriminator's guess for the network's input, and a draw as it sees it, of shape `(B,)`."""
        return self.discriminator(y.flatten(1), z).squeeze(1)

    def _contrasted(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a draw for each point, what the discriminator sees of it, and `log r - log p` at it, 0 where r is p.

        Shapes: features `(B, hidden)`; results `(B, d)`, `(B, d)`, and `(B,)` or a scalar.
        """
        if self.covariance is None:
            z = self.encoder.draw(features)
            return z, z, z.new_zeros(())
        z, pair = self.encoder.draw_and_pair(features)
        with torch.autocast(z.device.type, enabled=False):  # moments and factor in full precision
            z, pair = z.to(self.noise_set.dtype), pair.to(self.noise_set.dtype)
            mean, halves = pair.mean(1), (pair[:, 0] - pair[:, 1]) / 2
            now = halves.T @ halves / len(halves)
            if self.training:
                self._halves = halves.detach()
            known = self.covariance.with_next(now.detach(), self._share(len(z)))
            factor = cholesky(known + now - now.detach(), self.prior_sigma)  # has the derivative of this step's rows
            seen = torch.linalg.solve_triangular(factor.T, z - mean, upper=True, left=False)
            return z, seen, kl_to_prior(mean, factor[None], self.prior_sigma)

    def _keep_covariance(self, gather: Gather) -> None:
        """Count the pairs of this step's rows of all ranks in the covariance."""
        if self.covariance is not None:
            none = self.covariance.total[:0]
            rows = gather(none if self._halves is None else self._halves)
            self.covariance.update(rows.T @ rows / len(rows), self._share(len(rows)))
            self._halves = None

    def _share(self, rows: int) -> float:
        return min(1.0, rows / (ROWS * self.latent_dim))

    def _after(self, gather: Gather) -> None:
        self._keep_covariance(gather)
        self.calibrate(gather)

    def _draws(self, y: Tensor) -> Tensor:
        """Return the encoder's outputs over the fixed set of noise, `(B, m, d)`."""
        return self.encoder.all_draws(self.encoder.features(y), self.noise_set)

    def _blocks(self, y: Tensor) -> tuple[Tensor, ...]:
        return y.split(max(1, BLOCK // len(self.noise_set)))

    def _log_weights(self, y: Tensor, k: int) -> Tensor:
        return log_weights(lambda z: self._log_joint(y, z), moments(self._draws(y), self.prior_sigma), k)

    def _log_joint(self, y: Tensor, z: Tensor) -> Tensor:
        return self.log_likelihood(y, z) + self._log_prior(z)

    def _log_prior(self, z: Tensor) -> Tensor:
        return normal_log_prob(z.square(), z.new_tensor(math.log(self.prior_sigma)))
