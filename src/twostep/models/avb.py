"""Adversarial variational Bayes, as an autoencoder and as a density.

    z ~ p = N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  z | y ~ q: z = f(y, ε), ε ~ N(0, s_in² I),  y = t(x)

    min over T     of  E softplus(-T(y, z_q)) + E softplus(T(y, z_p)),  at its best  T = log q(z | y) - log p(z)
    min over f, m  of  E T(y, z_q) - log p(y | z_q)

With adaptive contrast T contrasts standardised draws, e = L⁻¹ (z_q - μ(y)), with N(0, I): at its best it is the
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
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import override

from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt, UserError
from twostep.models.base import MODELS, Gather, Objective, Preset, Role
from twostep.models.parts.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig, bound
from twostep.models.parts.networks import AdversarialConfig
from twostep.nn.distributions import kl_to_prior, log_det, normal_log_prob, standard_normal_log_prob
from twostep.nn.layers import RunningMean
from twostep.nn.mlp import JoinedNet

BLOCK = 16384  # rows that pass a network at once in evaluation
CACHED = 512  # draws made at once where all are kept: more do not fit a core's cache
ROWS = 25  # for each coordinate, of which the running covariance is

ROWS_TO_PASS = 200_000  # by a density, in at most 150 epochs
# Two steps of the discriminator to one of the others, which are slower and larger. The std is a parameter that starts
# small: a calibrated one starts at the data's spread, at which latents carry no information
# (tests/models/test_avb.py).
DENSITY_OF_VECTORS: dict[str, Any] = {
    "num_discriminator_steps": 2,
    "nll_lr": 5e-4,
    "encoder_hidden_dims": (512,),
    "decoder_hidden_dims": (512, 512),
    "max_bad_valid_epochs": 20,
    "sigma_from": "parameter",
}
REFERENCE_DENSITY: dict[str, Any] = {
    "noise_dim": 128,
    "max_epochs": 100,
    "early_stopping_metric": None,
    "valid_metrics": ("loss",),
    "test_metrics": ("log_likelihood", "loss"),
}


class AVB(GaussianDecoder):
    """Implicit posterior, whose mean over a fixed set of noise is the embedding, decoder, and discriminator.

    Args:
        encoder: f, maps what the transform gives, `(B, *T)`, and noise `(B, m)` to latents `(B, d)`.
        discriminator: T, maps flattened points `(B, D)` and latents `(*, B, d)` to `(*, B, 1)`.
        input_sigma: s_in.
        prior_sigma: s.
        num_discriminator_steps, adaptive_contrast: as the keys of `AVBConfig`.
        arguments: see `GaussianDecoder`.
    """

    noise_set: Tensor
    encoder: JoinedNet

    def __init__(
        self,
        encoder: JoinedNet,
        decoder: nn.Module,
        discriminator: JoinedNet,
        latent_dim: int,
        *,
        input_sigma: float = 3.0,
        prior_sigma: float = 1.0,
        num_discriminator_steps: int = 1,
        adaptive_contrast: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **arguments)
        self.prior_sigma = self.prior_std = prior_sigma
        self.input_sigma = input_sigma
        self.every, self.adaptive = num_discriminator_steps, adaptive_contrast
        self.discriminator = discriminator
        if self.adaptive and self.log_sigma is not None:
            nn.init.constant_(self.log_sigma, math.log(0.5))  # small: latents have to carry information
        self.covariance = RunningMean((latent_dim, latent_dim)) if self.adaptive else None
        self._halves: Tensor | None = None  # half differences of the step's pairs; none where a rank has no rows
        half = torch.randn(32 + 4 * latent_dim, encoder.side_dim)
        self.register_buffer("noise_set", torch.cat([half, -half]))

    @override
    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([self._draws(y).mean(1) for y in self._blocks(self.transform(x))])

    @override
    def log_density(self, x: Tensor) -> Tensor:
        return bound(self.log_weights(x, self.k))

    @override
    def log_weights(self, x: Tensor, k: int) -> Tensor:
        weights = torch.cat([self._log_weights(y, k) for y in self._blocks(self.transform(x))], dim=1)
        return weights + self.transform.log_abs_det_jacobian(x)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        discriminator = tuple(self.discriminator.parameters())
        others = (*self.network_parameters(), *self.sigma_parameters())
        return (
            Objective(
                "discriminator", self._discriminator_loss, discriminator, after=self._keep_covariance, unit="nats"
            ),
            Objective("nll", self._nll, others, every=self.every, after=self._after),
        )

    def log_ratio(self, y: Tensor, z: Tensor) -> Tensor:
        """Return T of the network's input and a draw, standardised with adaptive contrast, of shape `(B,)`."""
        return self.discriminator(y.flatten(1), z).squeeze(1)

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        with torch.no_grad():
            _, seen, _ = self._contrasted(y)
        noise = torch.randn_like(seen)
        from_prior = noise if self.adaptive else self.prior_sigma * noise
        log_ratio, of_prior = self.discriminator(y.flatten(1), torch.stack([seen, from_prior]))
        return (softplus(-log_ratio) + softplus(of_prior)).mean()

    def _nll(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z, seen, of_gaussian = self._contrasted(y)
        return (self.log_ratio(y, seen) + of_gaussian - self.log_likelihood(y, z)).mean()

    def _contrasted(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a draw for each point, what the discriminator sees of it, and `log r - log p` at it, 0 where r is p.

        Shapes: `(B, d)`, `(B, d)`, and `(B,)` or a scalar.
        """
        if self.covariance is None:
            z = self.encoder(y, self._noise(len(y), y))
            return z, z, z.new_zeros(())
        one, other = self.encoder.side(self._noise(2 * len(y), y)).chunk(2)
        draws = self.encoder.rest(self.encoder.features(y) + torch.stack([one, other, -other]))
        with torch.autocast(
            draws.device.type, enabled=False
        ):  # moments in full precision; CUDA has no cholesky in half
            z, *pair = draws.to(self.noise_set.dtype)
            mean, halves = (pair[0] + pair[1]) / 2, (pair[0] - pair[1]) / 2
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

    def _noise(self, n: int, like: Tensor) -> Tensor:
        return like.new_empty(n, self.encoder.side_dim).normal_(std=self.input_sigma)

    def _draws(self, y: Tensor) -> Tensor:
        """Return the encoder's outputs over the fixed set of noise, `(B, m, d)`."""
        entering = self.encoder.side(self.input_sigma * self.noise_set)
        blocks = self.encoder.features(y).split(max(1, CACHED // len(self.noise_set)))
        return torch.cat([self.encoder.rest(rows[:, None] + entering) for rows in blocks])

    def _blocks(self, y: Tensor) -> tuple[Tensor, ...]:
        return y.split(max(1, BLOCK // len(self.noise_set)))

    def _log_weights(self, y: Tensor, k: int) -> Tensor:
        mean, factor = moments(self._draws(y), self.prior_sigma)
        log_std = mean.new_tensor(math.log(self.prior_sigma))
        weights: list[Tensor] = []
        for _ in range(k):
            noise = torch.randn_like(mean)
            z = mean + (factor @ noise[:, :, None]).squeeze(2)
            log_joint = self.log_likelihood(y, z) + normal_log_prob(z.square(), log_std)
            weights.append(log_joint - standard_normal_log_prob(noise) + log_det(factor))
        return torch.stack(weights)


def moments(draws: Tensor, prior_std: float) -> tuple[Tensor, Tensor]:
    """Return the mean `(B, d)` of draws `(B, m, d)` and a Cholesky factor `(B, d, d)` of their covariance."""
    mean = draws.mean(1)
    centred = draws - mean[:, None]
    return mean, cholesky(centred.mT @ centred / (draws.shape[1] - 1), prior_std)


def cholesky(covariance: Tensor, prior_std: float) -> Tensor:
    """Return a Cholesky factor of covariances `(*, d, d)`, NaN for those that are not finite.

    Every variance grows by a thousandth, which keeps the correlations regular in single precision, and by a millionth
    of the prior's, which is what is left of a distribution that has collapsed to a point.
    """
    jitter = 1e-3 * covariance.diagonal(dim1=-2, dim2=-1) + 1e-6 * prior_std**2
    factor, failed = torch.linalg.cholesky_ex(covariance + torch.diag_embed(jitter))
    return factor.masked_fill(failed.bool()[..., None, None], torch.nan)


@MODELS.register("avb")
class AVBConfig(AdversarialConfig, GaussianDecoderConfig):
    """Keys of `avb`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae", "de")
    summary: ClassVar[str] = "adversarial variational Bayes: an implicit posterior"
    paper: ClassVar[str] = "Mescheder et al., 2017, arXiv 1701.04722"
    rates: ClassVar[dict[str, str]] = {"discriminator": "disc_lr", "nll": "nll_lr"}

    name: Literal["avb"] = "avb"
    noise_dim: PositiveInt = Field(256, description="coordinates of the encoder's noise")
    input_sigma: NonNegativeFloat = Field(3.0, description="std of the encoder's noise")
    prior_sigma: PositiveFloat = Field(1.0, description="std of the latent prior")
    nll_lr: PositiveFloat = Field(1e-3, description="learning rate of encoder and decoder")
    use_nll_lr_scheduler: bool = Field(True, description="cosine decay of nll_lr to 0 over all steps")
    num_discriminator_steps: PositiveInt = Field(1, description="steps of the discriminator for each of the others")
    adaptive_contrast: bool = Field(False, description="contrast standardised draws with noise, not with the prior")

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        values = super().defaults(spec, role, preset)
        epochs = 50 if values["encoder_net"] == "mlp" and (role == "gae" or spec.is_image) else 100
        if preset == "reference":
            values["max_grad_norm"] = None
        if role == "gae":
            return {**values, "max_epochs": epochs} if preset == "reference" else values
        if preset == "reference":
            return {**values, **REFERENCE_DENSITY}
        return {
            **values,
            "noise_dim": 128,
            "max_epochs": max(epochs, min(150, ROWS_TO_PASS // spec.size)),
            "adaptive_contrast": True,
            "early_stopping_metric": "log_likelihood",
            "valid_metrics": ("log_likelihood",),
            "test_metrics": ("log_likelihood",),
            **({} if spec.is_image else DENSITY_OF_VECTORS),
        }

    @override
    def build(self, spec: DataSpec) -> AVB:
        if self.latent_shape is not None or self.encoder_net == "pcamlp":
            key = "encoder_net=pcamlp" if self.latent_shape is None else "latent_shape"
            raise UserError(f"avb: {key} has no linear layer that its noise could join: set encoder_net=resmlp or cnn")
        arguments = self.arguments(AVB, spec)  # whose head draws its weights before the networks do
        return AVB(
            JoinedNet(self.build_encoder(spec, self.latent_dim), self.noise_dim),
            self.build_decoder(spec, self.extra(spec)),
            JoinedNet(self.build_discriminator(spec.dim), self.latent_dim),
            **arguments,
        )
