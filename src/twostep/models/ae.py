"""Autoencoder.

    min over f, g of  E ‖y - g(f(y) + s ε)‖²,  y = t(x),  ε ~ N(0, I)

With noise, s > 0, f gives embeddings of mean 0 and variance 1, so that it can't outgrow the noise.

Source: Reducing the Dimensionality of Data with Neural Networks (Hinton & Salakhutdinov, 2006).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.keys import TEST_METRICS
from twostep.core.schema import DataSpec, NonNegativeFloat
from twostep.models.base import MODELS, DataArguments, Gather, Objective, OneLossConfig, Preset, Role
from twostep.models.parts.networks import EncoderDecoder, EncoderDecoderConfig, Output, of_images
from twostep.nn.layers import Standardize


class Autoencoder(EncoderDecoder):
    """Encoder and decoder, see `EncoderDecoder`, fitted by least squares.

    Args:
        latent_noise: s, the std of noise that is added to standardised embeddings in training; 0: neither.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        latent_noise: float = 0.0,
        output: Output = "linear",
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, output=output, **data)
        self.latent_noise = latent_noise
        self.standardize = Standardize(latent_dim) if latent_noise else None

    @override
    def encode(self, x: Tensor) -> Tensor:
        z = super().encode(x)
        return z if self.standardize is None else self.standardize(z)

    @override
    def objectives(self) -> tuple[Objective, ...]:
        unit = "squared units of the transformed data"
        return (Objective("loss", self._loss, self.network_parameters(), after=self._count, unit=unit),)

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        z = self.encoder(y)
        if self.standardize is not None:
            z = self.standardize.of_batch(z) if self.training else self.standardize(z)
            z = z + self.latent_noise * torch.randn_like(z)
        return self.reconstruction_loss(y, self.points(z))

    def _count(self, gather: Gather) -> None:
        if self.standardize is not None:
            self.standardize.count(gather)


@MODELS.register("ae")
class AutoencoderConfig(EncoderDecoderConfig, OneLossConfig):
    """Keys of `ae`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "autoencoder, fitted by least squares"
    paper: ClassVar[str] = "Hinton & Salakhutdinov, 2006"

    name: Literal["ae"] = "ae"
    latent_noise: NonNegativeFloat = Field(
        0.0, description="std of noise on embeddings in training, which are standardised then; 0: neither"
    )
    test_metrics: tuple[str, ...] = Field(("l2_reconstruction_error", "loss"), description=TEST_METRICS)

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        values = super().defaults(spec, role, preset)
        if preset == "reference" or not spec.is_image:
            return values
        return {**values, "latent_noise": 0.1, **of_images(spec, values["encoder_net"])}

    @override
    def build(self, spec: DataSpec) -> Autoencoder:
        encoder, decoder = self.build_encoder(spec, self.latent_dim), self.build_decoder(spec)
        return Autoencoder(encoder, decoder, **self.arguments(Autoencoder, spec))
