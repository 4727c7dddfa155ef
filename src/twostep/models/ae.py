"""Autoencoder.

    min over f, g of  E ‖y - g(f(y))‖²,  y = t(x)

Source: Reducing the Dimensionality of Data with Neural Networks (Hinton & Salakhutdinov, 2006).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from twostep.core.keys import TEST_METRICS
from twostep.core.schema import DataSpec
from twostep.models.base import MODELS, Objective, OneLossConfig, Role
from twostep.models.parts.networks import EncoderDecoder, EncoderDecoderConfig


class Autoencoder(EncoderDecoder):
    """Encoder and decoder, see `EncoderDecoder`, fitted by least squares."""

    @override
    def objectives(self) -> tuple[Objective, ...]:
        unit = "squared units of the transformed data"
        return (Objective("loss", self._loss, self.network_parameters(), unit=unit),)

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        return self.reconstruction_loss(y, self.decoder(self.encoder(y)))


@MODELS.register("ae")
class AutoencoderConfig(EncoderDecoderConfig, OneLossConfig):
    """Keys of `ae`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "autoencoder, fitted by least squares"
    paper: ClassVar[str] = "Hinton & Salakhutdinov, 2006"

    name: Literal["ae"] = "ae"
    test_metrics: tuple[str, ...] = Field(("l2_reconstruction_error", "loss"), description=TEST_METRICS)

    @override
    def build(self, spec: DataSpec) -> Autoencoder:
        networks = self.build_encoder(spec, self.latent_dim), self.build_decoder(spec)
        return Autoencoder(*networks, **self.arguments(Autoencoder, spec))
