"""Variational autoencoder, as an autoencoder and as a density.

    z ~ N(0, I),  y | z ~ N(m(z), diag σ(z)²),  q(z | y) = N(μ(y), diag τ(y)²),  y = t(x)

    log p(x) >= E_q[log p(y | z)] - KL(q ‖ N(0, I)) + log|det t'(x)|                                    (k = 1)
    log p(x) >= E log (1/k) Σ_i p(y | z_i) p(z_i) / q(z_i | y) + log|det t'(x)|,  z_i ~ q               (k > 1)

Sources: Auto-Encoding Variational Bayes (Kingma & Welling, 2014, arXiv 1312.6114); Importance Weighted Autoencoders
(Burda et al., 2016, arXiv 1509.00519).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from twostep.core.schema import DataSpec
from twostep.models.base import ERROR, MODELS, Objective, OneLossConfig, Preset, Role
from twostep.models.parts.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig, bound
from twostep.nn.distributions import kl_to_standard_normal, normal_log_prob, standard_normal_log_prob


class VAE(GaussianDecoder):
    """Encoder and decoder fitted by the evidence lower bound; an embedding is the mean of q; see `GaussianDecoder`.

    The encoder maps what the transform gives, `(B, *T)`, to mean and log std of q, side by side, `(B, 2 d)`.
    """

    @override
    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(self.transform(x))[0]

    @override
    def log_density(self, x: Tensor) -> Tensor:
        if self.k > 1:
            return bound(self.log_weights(x, self.k))
        return self.transform.log_abs_det_jacobian(x) - self._negative_elbo(self.transform(x))

    @override
    def log_weights(self, x: Tensor, k: int) -> Tensor:
        y = self.transform(x)
        weights = [self.log_likelihood(y, z) + standard_normal_log_prob(z) - log_q for z, log_q in self.proposals(y, k)]
        return torch.stack(weights) + self.transform.log_abs_det_jacobian(x)

    @override
    def proposals(self, y: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        mean, log_std = self.posterior(y)
        for _ in range(k):
            noise = torch.randn_like(mean)
            log_q = normal_log_prob(noise.square(), log_std.new_zeros(())) - log_std.sum(1)
            yield mean + log_std.exp() * noise, log_q

    @override
    def latents(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_std = self.posterior(self.transform(x))
        if self.row_likelihood is None:
            return mean
        return mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        parameters = (*self.sigma_parameters(), *self.network_parameters())
        return (Objective("loss", self._loss, parameters, after=self.calibrate),)

    def posterior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std of q, `(B, d)` each, for transformed data."""
        mean, log_std = self.encoder(y).chunk(2, dim=1)
        return mean, log_std

    def _loss(self, x: Tensor) -> Tensor:
        return self._negative_elbo(self.network_input(x)).mean()

    def _negative_elbo(self, y: Tensor) -> Tensor:
        mean, log_std = self.posterior(y)
        z = mean + log_std.exp() * torch.randn_like(mean)
        return kl_to_standard_normal(mean, log_std) - self.log_likelihood(y, z)


@MODELS.register("vae")
class VAEConfig(GaussianDecoderConfig, OneLossConfig):
    """Keys of `vae`. As a density of vectors it is larger than the reference's (benchmarks/defaults.py)."""

    roles: ClassVar[tuple[Role, ...]] = ("gae", "de")
    summary: ClassVar[str] = "variational autoencoder, fitted by a lower bound"
    paper: ClassVar[str] = "Kingma & Welling, 2014, arXiv 1312.6114"

    name: Literal["vae"] = "vae"

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        metrics = {"gae": (ERROR, "loss"), "de": ("log_likelihood", "loss")}
        defaults = {**super().defaults(spec, role, preset), "test_metrics": metrics[role]}
        if preset == "reference":
            return defaults
        defaults |= {"early_stopping_metric": "loss", "use_lr_scheduler": True, "ema_decay": 0.999}
        if role == "gae" or spec.is_image:
            return defaults
        hidden = {f"{net}_hidden_dims": (512, 512) for net in ("encoder", "decoder")}
        return {**defaults, **hidden, "single_sigma": False}

    @override
    def build(self, spec: DataSpec) -> VAE:
        arguments = self.arguments(VAE, spec)  # whose head draws its weights before the networks do
        networks = self.build_encoder(spec, 2 * self.latent_dim), self.build_decoder(spec, self.extra(spec))
        return VAE(*networks, **arguments)
