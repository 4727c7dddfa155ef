"""Latents of a Gaussian prior, and a decoder with a Gaussian about its mean: what `vae` and `avb` share.

    z ~ N(0, s² I),  y | z ~ N(m(z), diag σ(z)²),  y = t(x)

σ is one number for all coordinates, or an output of the decoder for each coordinate and each z. One number is

    parameter    σ            a free parameter
    decoder      h(z)         an output of the decoder for each z
    calibrated   c h(z)       the same, with  c² = mean of ‖y - m(z)‖² / (D h(z)²)  over the last training steps

The last is the maximum of the likelihood over c, so that σ never lags behind the errors (benchmarks/sigma.py).
The density is a sum over latents, which importance weights bound from below, the tighter the larger k is:

    log p(x) >= E log (1/k) Σ_i w_i,   w_i = p(x, z_i) / q(z_i | x),  z_i ~ q

Sources: Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021, arXiv 2006.13202); Importance
Weighted Autoencoders (Burda et al., 2016, arXiv 1509.00519).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.schema import DataSpec, PositiveInt
from twostep.models.base import DataArguments, DensityEstimator, Gather, Likelihood, Model, ModelConfig, Preset, Role
from twostep.models.parts.networks import EncoderDecoder, EncoderDecoderConfig
from twostep.nn.distributions import normal_log_prob
from twostep.nn.layers import RunningMean

SHARE = 0.1  # of a step in the running mean of squared errors, which fall fast in the first ones
FLOOR = 1e-4  # under c, which would be 0 where the decoder makes no error

SigmaFrom = Literal["parameter", "decoder", "calibrated"]


class GaussianDecoder(EncoderDecoder, DensityEstimator):
    """An autoencoder that is a density too; a subclass has an encoder, and with it the weights of the bound.

    Args:
        decoder: maps latents `(B, d)` to the mean of y `(B, *T)` and, with `sigma_from` and `single_sigma`, to what σ
            follows from.
        single_sigma: one σ for all coordinates; False: the decoder's second half holds log σ of each.
        sigma_from: where a single σ comes from. But for `parameter`, the decoder has one more entry on its first axis.
        sigma_head: maps that entry, flattened to `(B, *)`, to log σ `(B, 1)`; None: its mean.
        k: draws of the bound on log p.
        data: see `EncoderDecoder`.
    """

    likelihood: Likelihood = "bound"
    prior_sigma: float = 1.0  # s

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        single_sigma: bool = True,
        sigma_from: SigmaFrom = "parameter",
        sigma_head: nn.Module | None = None,
        k: int = 1,
        **data: Unpack[DataArguments],
    ) -> None:
        extra = None if not single_sigma else 0 if sigma_from == "parameter" else 1
        super().__init__(encoder, decoder, latent_dim, extra, **data)
        self.k, self.prior_std = k, self.prior_sigma
        self.log_sigma = nn.Parameter(torch.zeros(())) if extra == 0 else None
        self.to_log_sigma = (sigma_head or nn.AdaptiveAvgPool1d(1)) if extra == 1 else None
        self.mean_square = RunningMean(()) if extra == 1 and sigma_from == "calibrated" else None
        self._squares: Tensor | None = None  # of the step's rows; none where a rank has no rows in a batch

    @abstractmethod
    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """Return log w in data space of k draws at each point of `(B, *S)`, of shape `(k, B)`, in nats."""

    def proposals(self, y: Tensor, k: int) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Yield k draws of the posterior of transformed data, `(B, d)`, and their log-densities; None: it has none."""
        return None

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        mean, log_std = self._likelihood(self.prior_sigma * self.draw(torch.randn, (n, self.latent_dim), generator))
        return self.clamp(self.transform.inverse(mean + log_std.exp() * self.draw(torch.randn, mean.shape, generator)))

    def sigma_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of a single σ that are not the decoder's."""
        if self.row_likelihood is not None:
            return ()
        head = () if self.to_log_sigma is None else tuple(self.to_log_sigma.parameters())
        return head if self.log_sigma is None else (self.log_sigma,)

    def log_likelihood(self, y: Tensor, z: Tensor) -> Tensor:
        """Return log p(y | z), `(B,)`, of transformed data."""
        if self.row_likelihood is not None:
            return self.row_likelihood.log_prob(y, self.decoder(z))
        mean, log_std = self._likelihood(z)
        squares = (y - mean).square()
        if self.training and self.mean_square is not None:
            scaled = squares.detach().flatten(1).mean(1) * (-2 * log_std.detach().flatten()).exp()
            self._squares = scaled * self._variance(self.mean_square)
        return normal_log_prob(squares, log_std)

    def calibrate(self, gather: Gather) -> None:
        """Count the errors of this step's rows of all ranks in a calibrated σ; called after the optimiser's step."""
        if self.mean_square is not None and self.row_likelihood is None:
            none = self.mean_square.total.new_zeros(0)
            squares = gather(none if self._squares is None else self._squares)
            self.mean_square.update(squares.mean(), SHARE)
            self._squares = None

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean `(B, *T)` and log σ, which broadcasts against it, of y at latents `(B, d)`."""
        mean, rest = self.split_output(self.decoder(z))
        if self.log_sigma is not None:
            return mean, self.log_sigma
        if self.to_log_sigma is None:
            return mean, rest
        log_std = self.to_log_sigma(rest.flatten(1))
        if self.mean_square is not None:
            log_std = log_std + 0.5 * self._variance(self.mean_square).log()
        return mean, log_std.view(-1, *(1 for _ in mean.shape[1:]))

    def _variance(self, mean_square: RunningMean) -> Tensor:
        """Return c²."""
        return mean_square.mean(torch.ones_like(mean_square.total)) + FLOOR**2


def bound(log_weights: Tensor) -> Tensor:
    """Return `log (1/k) Σ_i w_i` of shape `(B,)`, for the logs `(k, B)`."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


class GaussianDecoderConfig(EncoderDecoderConfig):
    """Keys of a model with a Gaussian about its decoder's mean."""

    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"k"}

    single_sigma: bool = Field(True, description="one std for all coordinates; False: one for each")
    sigma_from: SigmaFrom = Field(
        "parameter",
        description="the single std: a parameter, an output of the decoder, or that times a running mean of errors",
    )
    k: PositiveInt = Field(1, description="samples in the bound on log p; 1 is the evidence lower bound")

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        values = super().defaults(spec, role, preset)
        if preset != "reference":
            return {**values, "sigma_from": "calibrated", "single_sigma": spec.table is None}
        nets = {"encoder_net": "mlp", "decoder_net": "mlp"} if role == "de" else {}
        return {**values, **nets, "sigma_from": "decoder"}

    @override
    def arguments(self, model: type[Model], spec: DataSpec) -> dict[str, Any]:
        pixels = 1 if self.is_flat() else math.prod(spec.shape[1:])
        head = nn.Linear(pixels, 1) if self.extra(spec) == 1 and pixels > 1 else None
        return {**super().arguments(model, spec), "sigma_head": head}

    def extra(self, spec: DataSpec) -> int:
        """Return the number of the decoder's outputs, on the first axis, that σ follows from."""
        if not self.single_sigma:
            return spec.dim if self.is_flat() else spec.shape[0]
        return 0 if self.sigma_from == "parameter" else 1
