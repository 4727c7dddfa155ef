"""Autoencoder.

    min over f, g of  E ‖x - g(f(x))‖²

Source: Reducing the Dimensionality of Data with Neural Networks (Hinton & Salakhutdinov, 2006).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from twostep.core.keys import TEST_METRICS
from twostep.core.schema import DataSpec
from twostep.models.base import MODELS, Objective, OneLossConfig, Role
from twostep.models.parts.networks import EncoderDecoderConfig, NetworkDecoder


@MODELS.register("ae")
class AutoencoderConfig(EncoderDecoderConfig, OneLossConfig):
    """Keys of `ae`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "autoencoder, fitted by least squares"
    paper: ClassVar[str] = "Hinton & Salakhutdinov, 2006"

    name: Literal["ae"] = "ae"
    test_metrics: tuple[str, ...] = Field(("l2_reconstruction_error", "loss"), description=TEST_METRICS)

    def build(self, spec: DataSpec) -> Autoencoder:
        """Return an `Autoencoder` for data of this kind."""
        return Autoencoder(self, spec)


class Autoencoder(NetworkDecoder):
    """Encoder and decoder fitted by least squares."""

    def __init__(self, config: AutoencoderConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.latent_dim = config.latent_dim
        self.encoder = config.build_encoder(spec, config.latent_dim)
        self.decoder = config.build_decoder(spec)

    def encode(self, x: Tensor) -> Tensor:
        """Map data `(B, *S)` to embeddings `(B, d)`."""
        return self.encoder(self.transform(x))

    def objectives(self) -> tuple[Objective, ...]:
        """Return the one loss: squared error summed over coordinates, mean over the batch."""
        return (Objective("loss", self._loss, tuple(self.parameters()), unit="squared units of the transformed data"),)

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        return (y - self.decoder(self.encoder(y))).square().sum() / len(x)
