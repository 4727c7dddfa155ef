"""The encoder and decoder that all autoencoders choose by their config, and how the decoder ends in data space."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from twostep.models.base import GeneralizedAutoencoder, ModelConfig, Role
from twostep.models.jacobian import Map
from twostep.nn.activations import Activation
from twostep.nn.cnn import ConvDecoder, ConvEncoder
from twostep.nn.mlp import MLP
from twostep.schema import DataSpec, PositiveInt, UserError

Net = Literal["mlp", "cnn"]

# After two minutes of one core the error of scaled pixels is 76.8 with stride 1 and 56.8 with stride 2 (ae, 10,000
# pictures of CIFAR-10), and 34.8 and 18.3 (wae, as many of Fashion-MNIST); benchmarks/defaults.py.
SMALL_SIDE = 16  # pixels that as many halvings as there are layers leave one of, which is too few to learn from


class EncoderDecoderConfig(ModelConfig):
    """Keys of a model with an encoder and a decoder."""

    latent_dim: PositiveInt = Field(
        20, description="number of latent coordinates d; auto: the data's dimension, estimated where a run starts"
    )
    encoder_net: Net = Field("mlp", description="kind of encoder")
    encoder_hidden_dims: tuple[PositiveInt, ...] = Field((256,), description="hidden layers (mlp)")
    encoder_hidden_channels: tuple[PositiveInt, ...] = Field(
        (32, 32, 16, 16), min_length=1, description="channels (cnn)"
    )
    encoder_kernel_size: PositiveInt = Field(3, description="side of the kernel in pixels (cnn)")
    encoder_stride: PositiveInt = Field(1, description="step of the kernel in pixels (cnn)")
    encoder_activation: Activation = Field("relu", description="after each hidden layer")
    decoder_net: Net = Field("mlp", description="kind of decoder")
    decoder_hidden_dims: tuple[PositiveInt, ...] = Field((256,), description="hidden layers (mlp)")
    decoder_hidden_channels: tuple[PositiveInt, ...] = Field(
        (16, 16, 32, 32), min_length=1, description="channels (cnn)"
    )
    decoder_kernel_size: PositiveInt = Field(3, description="side of the kernel in pixels (cnn)")
    decoder_stride: PositiveInt = Field(1, description="step of the kernel in pixels (cnn)")
    decoder_activation: Activation = Field("relu", description="after each hidden layer")

    @field_validator("latent_dim", mode="before")
    @classmethod
    def _no_word(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("Input should be a valid integer, or auto where a run starts")
        return value

    def is_flat(self) -> bool:
        """Whether both networks take vectors.

        Raises:
            UserError: if one takes vectors and the other pictures.
        """
        if self.encoder_net != self.decoder_net:
            raise UserError("encoder_net and decoder_net differ: set both to mlp or both to cnn")
        return self.encoder_net == "mlp"

    @classmethod
    def defaults(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Scale pictures and whatever an autoencoder sees, whiten vectors for a density; convolve colour pictures.

        Convolutions take steps of 2 on all but small pictures.
        An autoencoder for a second step has no more latent coordinates than its data have.
        """
        net = "cnn" if spec.is_image and spec.shape[0] == 3 else "mlp"
        stride = 2 if spec.is_image and min(spec.shape[1:]) > SMALL_SIDE else 1
        whiten = role == "de" and not spec.is_image
        dims = {"latent_dim": spec.dim} if role == "gae" and spec.dim < cls.model_fields["latent_dim"].default else {}
        return {
            **dims,
            "encoder_net": net,
            "decoder_net": net,
            "encoder_stride": stride,
            "decoder_stride": stride,
            "scale_data": not whiten,
            "whitening_transform": whiten,
            "dequantize": role == "de" and spec.discrete,
        }

    @classmethod
    def reference(cls, spec: DataSpec, role: Role) -> dict[str, Any]:
        """Convolve in steps of 1; score whole numbers as they are, which has no bound."""
        return {"encoder_stride": 1, "decoder_stride": 1, "dequantize": False}

    def build_encoder(self, spec: DataSpec, out_dim: int) -> nn.Sequential:
        """Return a network from what the transform gives to `(B, out_dim)`."""
        if self.is_flat():
            return MLP(spec.dim, self.encoder_hidden_dims, out_dim, self.encoder_activation)
        return ConvEncoder(
            _image_shape(spec),
            self.encoder_hidden_channels,
            self.encoder_kernel_size,
            self.encoder_stride,
            out_dim,
            self.encoder_activation,
        )

    def build_decoder(self, spec: DataSpec, copies: int) -> nn.Module:
        """Return a network from `(B, latent_dim)` to `copies` times a point, side by side on the first axis."""
        if self.is_flat():
            return MLP(self.latent_dim, self.decoder_hidden_dims, copies * spec.dim, self.decoder_activation)
        channels, height, width = _image_shape(spec)
        return ConvDecoder(
            self.latent_dim,
            (copies * channels, height, width),
            self.decoder_hidden_channels,
            self.decoder_kernel_size,
            self.decoder_stride,
            self.decoder_activation,
        )


class NetworkDecoder(GeneralizedAutoencoder):
    """An autoencoder whose decoder is a network and the way back through the data's transform.

    The network gives `copies` points side by side on the first axis; the first is the decoder's mean.
    """

    decoder: nn.Module
    copies: int = 1

    def decode(self, z: Tensor) -> Tensor:
        """Map embeddings `(B, d)` to the decoder's mean in data space, `(B, *S)`."""
        return self._to_data(self.decoder(z))

    def decoder_parts(self) -> tuple[Map, Map]:
        """Cut `decode` into layers, and before the last one of a fully connected network, if all beyond is affine."""
        if self.transform.affine and isinstance(self.decoder, ConvDecoder):
            return self.decoder.stages(), self._to_data
        if self.transform.affine and isinstance(self.decoder, MLP):
            *layers, last = self.decoder
            return nn.Sequential(*layers), lambda h: self._to_data(last(h))
        return super().decoder_parts()

    def _to_data(self, outputs: Tensor) -> Tensor:
        return self.transform.inverse(outputs.chunk(self.copies, dim=1)[0])


def _image_shape(spec: DataSpec) -> tuple[int, int, int]:
    if not spec.is_image:
        raise UserError(f"a cnn needs pictures; {spec.name} has points of shape {spec.shape}: set the nets to mlp")
    return spec.shape[0], spec.shape[1], spec.shape[2]
