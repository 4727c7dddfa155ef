"""Latents of a Gaussian prior, and a decoder with a Gaussian about its mean: what `vae` and `avb` share.

    z ~ N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  y = t(x)

σ is one number for all coordinates, or an output of the decoder for each coordinate and each z. One number is

    parameter    σ            a free parameter
    decoder      h(z)         an output of the decoder for each z
    calibrated   s h(z)       the same, with  s² = mean of ‖y - m(z)‖² / (D h(z)²)  over the last training steps

The last is the maximum of the likelihood over s, so that σ is never many steps behind the errors, as a parameter or an
output that an optimiser moves is (benchmarks/sigma.py).

Source of the closed form: Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021, arXiv
2006.13202).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from twostep.core.schema import DataSpec, PositiveInt
from twostep.models.base import DensityEstimator, Gather, Likelihood, ModelConfig, Role
from twostep.models.parts.networks import EncoderDecoderConfig, NetworkDecoder
from twostep.nn.distributions import normal_log_prob
from twostep.nn.running import RunningMean

SHARE = 0.1  # of a step in the running mean of squared errors, which fall fast in the first ones
FLOOR = 1e-4  # under s, which would be 0 where the decoder makes no error


class GaussianDecoderConfig(EncoderDecoderConfig):
    """Keys of a model with a Gaussian about its decoder's mean."""

    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"k"}

    single_sigma: bool = Field(True, description="one std for all coordinates; False: one for each")
    sigma_from: Literal["parameter", "decoder", "calibrated"] = Field(
        "parameter",
        description="the single std: a free parameter, an output of the decoder for each latent, or that times a "
        "running mean of the error in closed form",
    )
    k: PositiveInt = Field(1, description="samples in the bound on log p; 1 is the evidence lower bound")

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Calibrate the single std."""
        return {**super().defaults(spec, role), "sigma_from": "calibrated"}

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Let the decoder give one std for each latent; take fully connected networks of 256 for a density."""
        hidden = {f"{side}_hidden_dims": (256,) for side in ("encoder", "decoder")}
        nets = dict.fromkeys(("encoder_net", "decoder_net"), "mlp") if role == "de" else {}
        return {**super().reference(spec, role), **hidden, **nets, "single_sigma": True, "sigma_from": "decoder"}


class ImportanceBound(DensityEstimator):
    """A density that is known by the importance weights of latents."""

    likelihood: ClassVar[Likelihood] = "bound"

    @abstractmethod
    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """Return log w in data space of k draws at each point of `(B, *S)`, of shape `(k, B)`, in nats."""


def bound(log_weights: Tensor) -> Tensor:
    """Return `log (1/k) Σ_i w_i` of shape `(B,)`, for the logs `(k, B)`."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


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
        calibrated = config.single_sigma and config.sigma_from == "calibrated"
        self.mean_square = RunningMean(()) if calibrated else None
        self._squares: Tensor | None = None  # of the step's rows; none where a rank has no rows in a batch

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
        squares = (y - mean).square()
        if self.training and self.mean_square is not None:
            scaled = squares.detach().flatten(1).mean(1) * (-2 * log_std.detach().flatten()).exp()
            self._squares = scaled * self._variance(self.mean_square)
        return normal_log_prob(squares, log_std)

    def calibrate(self, gather: Gather) -> None:
        """Count the errors of this step's rows of all ranks in a calibrated σ; called after the optimiser's step."""
        if self.mean_square is not None:
            none = self.mean_square.total.new_zeros(0)
            squares = gather(none if self._squares is None else self._squares)
            self.mean_square.update(squares.mean(), SHARE)
            self._squares = None

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean `(B, *S)` and log-std, which broadcasts against it, of y at latents `(B, d)`."""
        mean, rest = self._split(self.decoder(z))
        if self.log_sigma is not None:
            return mean, self.log_sigma
        if self.to_log_sigma is None:
            return mean, rest
        log_std = self.to_log_sigma(rest.flatten(1))
        if self.mean_square is not None:
            log_std = log_std + 0.5 * self._variance(self.mean_square).log()
        return mean, log_std.view(-1, *(1 for _ in mean.shape[1:]))

    def _variance(self, mean_square: RunningMean) -> Tensor:
        """Return s²."""
        return mean_square.mean(torch.ones_like(mean_square.total)) + FLOOR**2
