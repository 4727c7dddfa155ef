"""Bidirectional generative adversarial network: a generator and an encoder, by a critic of pairs.

    one pair of data:       (y, f(y)),  y = t(x)
    one pair of the prior:  (g(z), z),  z uniform on [-1, 1]^d

    Wasserstein   min over T     of  E T(g(z), z) - E T(y, f(y)) + λ E (‖∇T‖ - 1)²
                  min over f, g  of  E T(y, f(y)) - E T(g(z), z) + w E ‖y - g(f(y))‖²
    classical     min over T     of  E softplus(-T(y, f(y))) + E softplus(T(g(z), z))
                  min over f, g  of  E softplus(T(y, f(y))) + E softplus(-T(g(z), z)) + w E ‖y - g(f(y))‖²

∇T is taken at random points between the two pairs. Without that penalty the critic's weights are clamped to ±c after
each of its steps. Where the two distributions of pairs are equal, f inverts g.

Sources: Adversarial Feature Learning (Donahue et al., 2017, arXiv 1605.09782); Wasserstein GAN (Arjovsky et al., 2017,
arXiv 1701.07875); Improved Training of Wasserstein GANs (Gulrajani et al., 2017, arXiv 1704.00028).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import Unpack, override

from twostep.core.schema import DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt
from twostep.models.base import ERROR, MODELS, DataArguments, Gather, Objective, Preset, Role
from twostep.models.parts.networks import LAMBDA, AdversarialConfig, EncoderDecoder
from twostep.nn.mlp import JoinedNet

# Small datasets are not inverted with the paper's rates of 1e-4 and weight of 1 (benchmarks/defaults.py).
RATE, MOST_WEIGHT, IMAGE_DIM = 1e-3, 10.0, 784


class BiGAN(EncoderDecoder):
    """Encoder f, decoder or generator g, see `EncoderDecoder`, and a critic of pairs.

    Args:
        discriminator: the critic T, maps a flattened point `(B, D)` and an embedding `(B, d)` to `(B, 1)`.
        penalty_weight: λ.
        clamp: c.
        recon_weight: w.
        wasserstein, gradient_penalty, num_discriminator_steps: as the keys of `BiGANConfig`.
    """

    fits_likelihood: ClassVar[bool] = False  # its critic sees what the decoder gives

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        wasserstein: bool = True,
        gradient_penalty: bool = True,
        penalty_weight: float = 10.0,
        clamp: float = 0.01,
        recon_weight: float = 1.0,
        num_discriminator_steps: int = 2,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **data)
        self.discriminator = discriminator
        self.wasserstein, self.limit = wasserstein, clamp
        self.penalty_weight = penalty_weight if gradient_penalty else None
        self.recon_weight, self.every = recon_weight, num_discriminator_steps

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Generate `n` points `(n, *S)` from draws of the prior."""
        return self.clamp(self.decode(self._prior(n, generator)))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        critic = tuple(self.discriminator.parameters())
        after = self._clamp_weights if self.wasserstein and self.penalty_weight is None else None
        unit = "of the critic" if self.wasserstein else "nats"
        return (
            Objective("discriminator", self._discriminator_loss, critic, after=after, unit=unit),
            Objective(
                "ge",
                self._loss,
                self.network_parameters(),
                every=self.every,
                unit=f"{unit}, with reconstruction errors",
            ),
        )

    def _discriminator_loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z = self._prior(len(y))
        with torch.no_grad():
            points = torch.cat([y, self.points(z)]).flatten(1)
            codes = torch.cat([self.encoder(y), z])
        data, drawn = self.discriminator(points, codes).squeeze(1).chunk(2)
        if not self.wasserstein:
            return (softplus(-data) + softplus(drawn)).mean()
        distance = (drawn - data).mean()
        if self.penalty_weight is None:
            return distance
        return distance + self.penalty_weight * self._slope_penalty(points, codes)

    def _slope_penalty(self, points: Tensor, codes: Tensor) -> Tensor:
        """Return the mean of `(‖∇T‖ - 1)²` at random points between the pairs of the two halves."""
        share = torch.rand(len(points) // 2, 1, device=points.device, dtype=points.dtype)
        between = [(a + share * (b - a)).requires_grad_() for a, b in (points.chunk(2), codes.chunk(2))]
        slopes = torch.autograd.grad(self.discriminator(*between).sum(), between, create_graph=True)
        return (torch.linalg.vector_norm(torch.cat(slopes, 1), dim=1) - 1).square().mean()

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z, code = self._prior(len(y)), self.encoder(y)
        made, again = self.points(torch.cat([z, code])).chunk(2)
        data, drawn = self.discriminator(y.flatten(1), code), self.discriminator(made.flatten(1), z)
        game = data - drawn if self.wasserstein else softplus(data) + softplus(-drawn)
        return game.mean() + self.recon_weight * (y - again).square().sum() / len(y)

    def _prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return 2 * self.draw(torch.rand, (n, self.latent_dim), generator) - 1

    def _clamp_weights(self, gather: Gather) -> None:
        with torch.no_grad():
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-self.limit, self.limit)


@MODELS.register("bigan")
class BiGANConfig(AdversarialConfig):
    """Keys of `bigan`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "bidirectional GAN: a generator and its inverse, from a critic"
    paper: ClassVar[str] = "Donahue et al., 2017, arXiv 1605.09782"
    default_steps: ClassVar[int | None] = 15_000
    rates: ClassVar[dict[str, str]] = {"discriminator": "disc_lr", "ge": "ge_lr"}

    name: Literal["bigan"] = "bigan"
    wasserstein: bool = Field(True, description="Wasserstein distance of the pairs; False: the classical logistic loss")
    gradient_penalty: bool = Field(True, description="hold the Wasserstein critic's slope near 1; False: clamp weights")
    penalty_weight: NonNegativeFloat = Field(
        10.0, validation_alias=LAMBDA, description="weight of the gradient penalty"
    )
    clamp: PositiveFloat = Field(0.01, description="limit of the Wasserstein critic's weights, without the penalty")
    recon_weight: NonNegativeFloat = Field(1.0, description="weight of the squared error of reconstructions")
    num_discriminator_steps: PositiveInt = Field(2, description="steps of the critic for each of generator and encoder")
    disc_lr: PositiveFloat = Field(1e-4, description="learning rate of the discriminator")
    ge_lr: PositiveFloat = Field(1e-4, description="learning rate of generator and encoder")
    use_ge_lr_scheduler: bool = Field(True, description="cosine decay of ge_lr to 0 over all steps")

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        values = super().defaults(spec, role, preset)
        if preset == "reference":
            values |= {"max_epochs": 200, "max_bad_valid_epochs": 50}
            return {**values, "max_grad_norm": None, "test_metrics": ("fid", ERROR)}
        weight = min(MOST_WEIGHT, max(1.0, IMAGE_DIM / spec.dim))
        return {**values, "recon_weight": weight, "disc_lr": RATE, "ge_lr": RATE}

    @override
    def build(self, spec: DataSpec) -> BiGAN:
        networks = self.build_encoder(spec, self.latent_dim), self.build_decoder(spec)
        critic = JoinedNet(self.build_discriminator(spec.dim), self.latent_dim)
        return BiGAN(*networks, critic, **self.arguments(BiGAN, spec))
