"""What autoencoders of two networks share: the way back to data, and the keys of the networks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import AliasChoices, Field, field_validator, model_validator
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.keys import (
    STOPPING_METRIC,
    TEST_METRICS,
    VALID_METRICS,
    Channels,
    LatentDim,
    LatentShape,
    PerLayer,
    Sizes,
)
from twostep.core.schema import DataSpec, PositiveFloat, UserError
from twostep.models.base import ERROR, DataArguments, GeneralizedAutoencoder, ModelConfig, Preset, Role, evaluating
from twostep.models.parts.levels import with_levels
from twostep.models.parts.row_likelihood import RowLikelihood
from twostep.nn.cnn import ConvDecoder, ConvEncoder, Convolutions
from twostep.nn.jacobian import Map, layers_of
from twostep.nn.layers import Activation, Affine
from twostep.nn.mlp import MLP, NormedMLP
from twostep.nn.pca_net import PrincipalDecoder, PrincipalEncoder, fit_axes
from twostep.nn.resnet import Levels, ResidualDecoder, ResidualEncoder
from twostep.nn.transforms import MappedBatches

Net = Literal["mlp", "resmlp", "pcamlp", "cnn", "rescnn"]
Output = Literal["linear", "sigmoid", "tanh"]
FLAT: dict[Net, type[MLP] | type[NormedMLP]] = {"mlp": MLP, "resmlp": NormedMLP}
CONVOLUTIONAL: tuple[Net, ...] = ("cnn", "rescnn")
OUTPUTS: dict[Output, type[nn.Module]] = {"linear": nn.Identity, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
LAMBDA = AliasChoices("lambda", "_lambda")
KERNEL = "side of the kernels in pixels, one number or one for each layer (cnn)"
KINDS = "; res: residual blocks; pca: these beside principal components"
STRIDE = "of the convolutions in pixels, one number or one for each layer (cnn)"
LARGE = 512  # coordinates of an image, from which on networks are wider
STEPS = 4000  # of training
LARGEST = 32  # coordinates, up to which residual convolutions have a log-volume: a pass through them for each
LAYERS = 4  # of the reference's convolutional networks

# Stride 2 learns more in the same time on larger images (benchmarks/defaults.py).
SMALL_SIDE = 16  # pixels that as many halvings as there are layers leave one of, which is too few to learn from


class NetworkConfig(ModelConfig):
    """Keys of a model with networks; those of each begin with its name, such as `encoder_hidden_dims`."""

    padding: bool = Field(True, description="pad convolutions by half their kernel; False: not at all (cnn)")

    @model_validator(mode="after")
    def _one_entry_a_layer(self) -> Self:
        for name in [key.removesuffix("_kernel_size") for key in type(self).model_fields if "_kernel_size" in key]:
            channels = f"{name}_hidden_channels"
            layers = len(getattr(self, channels))
            for key in (f"{name}_kernel_size", f"{name}_stride"):
                value = getattr(self, key)
                if isinstance(value, tuple) and len(value) != layers:
                    raise ValueError(
                        f"{key} = {list(value)} has {len(value)} entries and {channels} {layers}: write one number, "
                        f"or one for each layer"
                    )
        return self

    def convolutions(self, name: str) -> Convolutions:
        """Return the convolutions of a network."""
        keys = {key: getattr(self, f"{name}_{key}") for key in ("kernel_size", "stride", "activation")}
        return Convolutions(getattr(self, f"{name}_hidden_channels"), padding=self.padding, **keys)

    def levels(self, name: str, finest_first: bool = True) -> Levels:
        """Return the levels of a residual network of convolutions, whose channels may be given from the coarsest on."""
        channels = getattr(self, f"{name}_hidden_channels")[:: 1 if finest_first else -1]
        grid = getattr(self, "latent_shape", None)
        return Levels(channels, activation=getattr(self, f"{name}_activation"), grid=grid)

    def build_network(self, name: str, net: Net, spec: DataSpec, out_dim: int) -> nn.Sequential:
        """Return a network from points, which an mlp takes as vectors, to `(B, out_dim)`."""
        if net == "cnn":
            return ConvEncoder(image_shape(spec), self.convolutions(name), out_dim)
        if net == "rescnn":
            return ResidualEncoder(image_shape(spec), self.levels(name), out_dim)
        if net == "pcamlp":
            hidden, activation = (getattr(self, f"{name}_{key}") for key in ("hidden_dims", "activation"))
            return PrincipalEncoder(spec.dim, cast(Any, self).latent_dim, out_dim, hidden, activation)
        return FLAT[net](spec.dim, getattr(self, f"{name}_hidden_dims"), out_dim, getattr(self, f"{name}_activation"))


class EncoderDecoderConfig(NetworkConfig):
    """Keys of a model with an encoder and a decoder."""

    latent_dim: LatentDim = Field(20, description="latent coordinates d; auto: the estimated intrinsic dimension")
    latent_shape: LatentShape | None = Field(
        None,
        description="channels, height and width, like 4x7x7, of latent coordinates on a grid (rescnn); None: no grid",
    )
    encoder_net: Net = Field("mlp", description=f"kind of encoder{KINDS}")
    encoder_hidden_dims: Sizes = Field((256,), description="hidden layers (mlp)")
    encoder_hidden_channels: Channels = Field((32, 32, 16, 16), description="channels (cnn)")
    encoder_kernel_size: PerLayer = Field(3, description=KERNEL)
    encoder_stride: PerLayer = Field(1, description=STRIDE)
    encoder_activation: Activation = Field("relu", description="after each hidden layer")
    decoder_net: Net = Field("mlp", description=f"kind of decoder{KINDS}")
    decoder_hidden_dims: Sizes = Field((256,), description="hidden layers (mlp)")
    decoder_hidden_channels: Channels = Field((16, 16, 32, 32), description="channels (cnn)")
    decoder_kernel_size: PerLayer = Field(3, description=KERNEL)
    decoder_stride: PerLayer = Field(1, description=STRIDE)
    decoder_activation: Activation = Field("relu", description="after each hidden layer")
    output: Output = Field(
        "linear",
        description="of the decoder; sigmoid: between 0 and 1, tanh: between -1 and 1, for data scaled to that",
    )

    @override
    @classmethod
    def for_data(cls, spec: DataSpec, role: Role, **overrides: Any) -> Self:
        config = super().for_data(spec, role, **with_levels(overrides, spec))
        scaled = config.scale_data and not config.whitening_transform and not config.logit_transform
        return config if scaled or "output" in overrides else config.model_copy(update={"output": "linear"})

    @override
    def is_flat(self) -> bool:
        if self.encoder_net != self.decoder_net:
            raise UserError("encoder_net and decoder_net differ: set both to mlp, resmlp, pcamlp, cnn or rescnn")
        if self.latent_shape is not None:
            name, entries = "x".join(map(str, self.latent_shape)), math.prod(self.latent_shape)
            if self.latent_dim != entries:
                raise UserError(
                    f"latent_dim={self.latent_dim}, but latent_shape={name} has {entries} coordinates: set one of them"
                )
            if self.encoder_net != "rescnn":
                raise UserError(f"latent_shape={name} needs encoder_net=rescnn and decoder_net=rescnn")
        return self.encoder_net not in CONVOLUTIONAL

    @override
    @classmethod
    def defaults(cls, spec: DataSpec, role: Role, preset: Preset) -> dict[str, Any]:
        net = "cnn" if spec.is_image and spec.shape[0] == 3 else "mlp"
        table = spec.columns is not None and preset != "reference"  # whose columns have units of their own
        whiten = not spec.is_image and (role == "de" or table)
        few = role == "gae" and spec.dim < cls.model_fields["latent_dim"].default * (1 if preset == "reference" else 2)
        dims = {"latent_dim": spec.dim if preset == "reference" else (spec.dim + 1) // 2} if few else {}
        values = {
            **dims,
            "encoder_net": net,
            "decoder_net": net,
            "scale_data": not whiten,
            "whitening_transform": whiten,
        }
        if preset == "reference":
            return {**values, "padding": not unpadded(spec)}
        stride = 2 if spec.is_image and min(spec.shape[1:]) > SMALL_SIDE else 1
        dequantize = role == "de" and spec.discrete
        return {**values, "encoder_stride": stride, "decoder_stride": stride, "dequantize": dequantize}

    def build_encoder(self, spec: DataSpec, out_dim: int) -> nn.Sequential:
        """Return a network from what the transform gives to `(B, out_dim)`."""
        self.is_flat()  # which checks that both networks are of one kind
        return self.build_network("encoder", self.encoder_net, spec, out_dim)

    def build_decoder(self, spec: DataSpec, extra: int = 0) -> nn.Module:
        """Return a network from `(B, latent_dim)` to a point with `extra` more numbers or, of an image, channels."""
        if self.decoder_net == "pcamlp":
            hidden = self.decoder_hidden_dims
            return PrincipalDecoder(spec.dim, self.latent_dim, extra, hidden, self.decoder_activation)
        if self.is_flat():
            kind = FLAT[self.decoder_net]
            return kind(self.latent_dim, self.decoder_hidden_dims, spec.dim + extra, self.decoder_activation)
        channels, *sides = image_shape(spec)
        if self.decoder_net == "rescnn":
            levels = self.levels("decoder", finest_first=False)
            return ResidualDecoder(self.latent_dim, (channels + extra, *sides), levels)
        return ConvDecoder(self.latent_dim, (channels + extra, *sides), self.convolutions("decoder"))


class AdversarialConfig(EncoderDecoderConfig):
    """Keys of a model with a discriminator, whose losses have a learning rate each: `disc_lr` and another."""

    lr: None = Field(None, description="not used: the losses have a learning rate each")
    disc_lr: PositiveFloat = Field(1e-3, description="learning rate of the discriminator")
    use_disc_lr_scheduler: bool = Field(True, description="cosine decay of disc_lr to 0 over all steps")
    discriminator_hidden_dims: Sizes = Field((256, 256), description="hidden layers of the discriminator")
    discriminator_activation: Activation = Field("relu", description="after each hidden layer of the discriminator")
    early_stopping_metric: str | None = Field(ERROR, description=STOPPING_METRIC)
    valid_metrics: tuple[str, ...] = Field((ERROR,), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field((ERROR,), description=TEST_METRICS)

    @field_validator("lr", mode="before")
    @classmethod
    def _not_one_rate(cls, value: Any) -> Any:
        if value is not None:
            rates = " and ".join(cls.rates.values())
            raise ValueError(f"there is no one learning rate: set {rates}")
        return value

    def build_discriminator(self, in_dim: int) -> MLP:
        """Return a network `(B, in_dim) -> (B, 1)`."""
        return MLP(in_dim, self.discriminator_hidden_dims, 1, self.discriminator_activation)


class EncoderDecoder(GeneralizedAutoencoder):
    """An autoencoder of two networks.

    Args:
        encoder: maps what the transform gives, `(B, *T)`, to embeddings `(B, d)` or their distribution.
        decoder: maps embeddings to points `(B, *T)`, with `extra` more entries on the first axis after `B`; None: twice
            the entries.
        output: what bounds points, if not "linear"; extra entries are not changed.
        data: see `Model`.
    """

    fits_likelihood: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        extra: int | None = 0,
        output: Output = "linear",
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__((), **data)
        self.latent_dim, self.extra = latent_dim, extra
        self.output = OUTPUTS[output]()
        self.row_likelihood: RowLikelihood | None = None
        self.encoder, self.decoder = encoder, decoder
        like = next(decoder.parameters(), torch.zeros(()))
        if isinstance(decoder, ResidualDecoder) and latent_dim > LARGEST:
            self.no_volume = f"latent_dim={latent_dim} is above {LARGEST}, the most for residual convolutions"
        with evaluating(self):
            self.event_shape = tuple(self.decode(like.new_zeros(1, latent_dim)).shape[1:])

    @override
    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(self.transform(x))

    @override
    def decode(self, z: Tensor) -> Tensor:
        return self.transform.inverse(self.points(z))

    @override
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        super().fit_transform(batches)
        fit_axes((self.encoder, self.decoder), lambda: MappedBatches(self.network_input, batches))

    def points(self, z: Tensor) -> Tensor:
        """Map embeddings `(B, d)` to points `(B, *T)` in the coordinates of the transform."""
        return self.split_output(self.decoder(z))[0]

    @override
    def decoder_parts(self) -> tuple[Map, Map]:
        if not self.transform.affine:
            return self.decode, nn.Identity()
        if not isinstance(self.output, nn.Identity):
            mean = Affine(lambda h: self._entries(h)[0])
            return nn.Sequential(self.decoder, mean, self.output), self.transform.inverse
        *layers, last = layers_of(self.decoder)
        if isinstance(last, nn.Linear | Affine):
            inner = nn.Sequential(*cast("list[nn.Module]", layers))
            return inner, lambda h: self.transform.inverse(self.split_output(last(h))[0])
        return self.decoder, lambda h: self.transform.inverse(self.split_output(h)[0])

    def use_likelihood(self, likelihood: RowLikelihood) -> bool:
        """Fit the decoder by a likelihood of the features of rows, if the model can; return whether it does."""
        if self.fits_likelihood:
            self.row_likelihood = likelihood
        return self.fits_likelihood

    def reconstruction_loss(self, y: Tensor, output: Tensor) -> Tensor:
        """Return the mean over points of the squared error or, of rows with a likelihood, of its negative log."""
        if self.row_likelihood is None:
            return (y - output).square().sum() / len(y)
        return -self.row_likelihood.log_prob(y, output).mean()

    def network_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of encoder and decoder, and of a likelihood of rows."""
        likelihood = () if self.row_likelihood is None else self.row_likelihood.parameters()
        return (*self.encoder.parameters(), *self.decoder.parameters(), *likelihood)

    def split_output(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the point `(B, *T)` in the decoder's output, and the other entries."""
        mean, rest = self._entries(output)
        return self.output(mean), rest

    def _entries(self, output: Tensor) -> tuple[Tensor, Tensor]:
        extra = output.shape[1] // 2 if self.extra is None else self.extra
        mean, rest = output.split([output.shape[1] - extra, extra], dim=1)
        return mean, rest


def of_images(spec: DataSpec, net: Net) -> dict[str, Any]:
    """Return defaults that keep more of an image in the same time than the paper's (benchmarks/minutes.py)."""
    values: dict[str, Any] = {"ema_decay": 0.999, "use_lr_scheduler": True, "max_steps": STEPS}
    values |= {"early_stopping_metric": "loss", "output": "sigmoid" if spec.low >= 0 else "tanh"}
    if net == "mlp":
        width = 320 if spec.dim >= LARGE else 256
        for side in ("encoder", "decoder"):
            values |= {f"{side}_net": "resmlp", f"{side}_hidden_dims": (width, width), f"{side}_activation": "swish"}
    elif spec.shape[0] == 3:
        values |= {"output": "linear", "lr": 5e-4, "latent_noise": 0.05}
        for side in ("encoder", "decoder"):
            values |= {f"{side}_net": "pcamlp", f"{side}_hidden_dims": (512, 512), f"{side}_activation": "swish"}
    return values | ({"latent_dim": 32 if net == "mlp" else 96} if spec.dim >= LARGE else {})


def unpadded(spec: DataSpec) -> bool:
    """Whether images are large enough for the reference's convolutions, which have no padding."""
    return spec.is_image and min(spec.shape[1:]) > 2 * LAYERS


def image_shape(spec: DataSpec) -> tuple[int, int, int]:
    """Return the shape `(C, H, W)` of images, or raise `UserError`."""
    if not spec.is_image:
        raise UserError(f"a cnn needs images; {spec.name} has points of shape {spec.shape}: use mlp")
    return spec.shape[0], spec.shape[1], spec.shape[2]
