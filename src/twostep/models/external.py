"""An encoder and a decoder of one's own as the first step, frozen or trained further.

    z = (e(y) - m) / s,   x = t⁻¹(g(m + s z)),   y = t(x)

The mean m of the embeddings e(y), and their one scale s, the root of their mean variance, are found from training data:
there is no magic constant. e and g are modules, functions of tensors, a fitted transformer of scikit-learn or an
autoencoder of diffusers (`parts.adapters`). Without a decoder there are a density and an intrinsic dimension of the
embeddings, and out-of-distribution detection by them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.factories import made
from twostep.core.keys import TEST_METRICS, VALID_METRICS
from twostep.core.schema import DataSpec, UserError
from twostep.models.base import (
    ERROR,
    MODELS,
    DataArguments,
    GeneralizedAutoencoder,
    ModelConfig,
    Objective,
    OneLossConfig,
    Role,
    evaluating,
)
from twostep.models.parts.adapters import Coder, as_module, checked, differentiable, of_diffusers, of_sklearn
from twostep.nn.jacobian import Map, layers_of
from twostep.nn.layers import Affine, Function
from twostep.nn.transforms import MappedBatches, TransformKeys, Whiten

ROWS = 1000  # that are encoded at once
LARGEST_JACOBIAN = 2**27  # entries of the decoder's at one point: half a gigabyte
ALONE = "it is an encoder alone, without a decoder"
NO_GRADIENT = "its decoder is not differentiable by torch, so that it has no Jacobian"

OF_OBJECT = ("trainable", *TransformKeys.model_fields)  # keys that a finished object has in itself

logger = logging.getLogger("twostep")


class ExternalAutoencoder(GeneralizedAutoencoder):
    """Any encoder, with its decoder or without one, whose embeddings are centred and scaled.

    Args:
        encode: maps what the transform gives, `(B, *T)`, to embeddings `(B, *L)`, which are flattened to `(B, d)`.
        decode: maps `(B, *L)` to `(B, *T)`; None: an encoder alone.
        event_shape: shape `*S` of a data point.
        trainable: whether both are trained, by least squares of the reconstruction; else nothing is.
        data: see `Model`.

    Modules are moved, stored and loaded with the model. Functions are called as they are: keep what they need.

    Raises:
        UserError: if their shapes do not agree, or values are not finite or differ between two calls.
    """

    shift: Tensor
    scale: Tensor
    answers: Tensor | None

    def __init__(
        self,
        encode: Coder,
        decode: Coder | None,
        event_shape: Sequence[int],
        *,
        trainable: bool = False,
        **data: Unpack[DataArguments],
    ) -> None:
        super().__init__(event_shape, **data)
        self.encoder = as_module(encode)
        self.decoder = None if decode is None else as_module(decode)
        self.trainable = trainable
        if trainable and (self.decoder is None or not any(True for _ in self.parameters())):
            raise UserError("trainable=True: least squares need a decoder and weights: leave it out")
        self.train(self.training)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("answers", None)
        with evaluating(self):
            raw = checked("encode", self.encoder, self.transform(self._points()))
            self.latent_shape = tuple(raw.shape[1:])
            self.latent_dim = prod(self.latent_shape)
            self.shift = raw.new_zeros(self.latent_dim)
            if self.decoder is None:
                self.decodes, self.no_volume = False, ALONE
            else:
                self._check_decoder(self.decoder, raw)
            if Function in map(type, self.modules()):  # what they keep is not stored: compare what they give
                self.answers = torch.zeros_like(self._answers())
                self.register_load_state_dict_post_hook(_same_answers)

    @classmethod
    def of(cls, coders: Any, x: Any, low: float = 0.0, high: float = 1.0, **keys: Any) -> ExternalAutoencoder:
        """Return the autoencoder of what one has, with the scale of its embeddings found from data.

        Args:
            coders: what `external` takes.
            x: rows of data, `(N, *S)`, a tensor or an array.
            low, high: smallest and largest possible value of images, for an autoencoder of diffusers.
            keys: see `external`.

        Raises:
            UserError: as `external` does.
        """
        rows = torch.as_tensor(x)
        rows = rows if rows.is_floating_point() else rows.float()
        spec = DataSpec(name="data", shape=tuple(rows.shape[1:]), size=len(rows), low=low, high=high)
        model = external(coders, spec, **keys)
        like = next(model.parameters(), rows)
        model.fit_transform([block.to(like) for block in rows.split(ROWS)])
        return model

    @override
    def train(self, mode: bool = True) -> ExternalAutoencoder:
        return super().train(mode and self.trainable)

    @override
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        super().fit_transform(batches)
        with self.shift.device:
            raw = Whiten((self.latent_dim,)).to(self.shift)
        with evaluating(self):
            raw.fit(MappedBatches(self._embed, batches))
            self.shift.copy_(raw.mean)
            self.scale.copy_(raw.std.square().mean().sqrt())
            if self.answers is not None:
                self.answers.copy_(self._answers())
        logger.info(
            "external: embeddings of shape %s are centred and divided by their std %.5g (multiplied by %.5g)",
            *("x".join(map(str, self.latent_shape)), float(self.scale), float(1 / self.scale)),
        )

    @override
    def encode(self, x: Tensor) -> Tensor:
        return (self._embed(x) - self.shift) / self.scale

    @override
    def decode(self, z: Tensor) -> Tensor:
        return self.transform.inverse(self._decoder(self._raw(z)))

    @override
    def decoder_parts(self) -> tuple[Map, Map]:
        if not self.transform.affine:
            return self.decode, nn.Identity()
        first: list[nn.Module] = [Affine(self._raw)]
        *layers, last = layers_of(self._decoder)
        if isinstance(last, nn.Linear):
            layers = cast("list[nn.Module]", layers)
            return nn.Sequential(*first, *layers), lambda h: self.transform.inverse(last(h))
        return nn.Sequential(*first, self._decoder), self.transform.inverse

    @override
    def objectives(self) -> tuple[Objective, ...]:
        """Return the least squares of the reconstruction if it is trained, else nothing."""
        if not self.trainable:
            return ()
        unit = "squared units of the transformed data"
        parameters = (*self.encoder.parameters(), *self._decoder.parameters())
        return (Objective("loss", self._loss, tuple(dict.fromkeys(parameters)), unit=unit),)

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_input(x)
        return (y - self._decoder(self.encoder(y))).square().sum() / len(x)

    @property
    def _decoder(self) -> nn.Module:
        if self.decoder is None:
            raise UserError(f"no samples, reconstructions or distances: {ALONE}")
        return self.decoder

    def _embed(self, x: Tensor) -> Tensor:
        return self.encoder(self.transform(x)).flatten(1).to(x)

    def _raw(self, z: Tensor) -> Tensor:
        return (self.shift + self.scale * z).unflatten(1, self.latent_shape)

    def _points(self) -> Tensor:
        """Return the two points, always the same, that the coders are checked at."""
        generator = torch.Generator().manual_seed(0)
        like = next(self.parameters(), torch.zeros(()))
        return torch.rand(2, *self.event_shape, generator=generator, device="cpu").to(like)

    def _answers(self) -> Tensor:
        z = self.encode(self._points())
        return torch.cat([z, self.decode(z).flatten(1)], 1) if self.decodes else z

    def _check_decoder(self, decoder: nn.Module, raw: Tensor) -> None:
        shape = tuple(self.transform.inverse(checked("decode", decoder, raw)).shape[1:])
        if shape != self.event_shape:
            raise UserError(f"decode: gives points of shape {shape}, but the data have {self.event_shape}")
        if self.latent_dim * self.dim > LARGEST_JACOBIAN:
            self.no_volume = f"the Jacobian of its decoder, {self.dim:,} x {self.latent_dim:,}, is too large"
        elif not differentiable(decoder, raw):
            self.no_volume = NO_GRADIENT


def _same_answers(model: ExternalAutoencoder, _: object) -> None:
    """Refuse functions that are not those of the stored model."""
    with evaluating(model):
        assert model.answers is not None
        found = model._answers()  # pyright: ignore[reportPrivateUsage]
        if not torch.allclose(found, model.answers, rtol=1e-3, atol=1e-4 * float(model.answers.abs().max())):
            raise UserError(
                "encode, decode: are not the functions that the model was trained with: their values differ"
            )


@MODELS.register("external")
class ExternalConfig(OneLossConfig):
    """Keys of `external`."""

    roles: ClassVar[tuple[Role, ...]] = ("gae",)
    summary: ClassVar[str] = "encoder and decoder of your own: modules, functions, scikit-learn, diffusers"
    paper: ClassVar[str] = "your own"
    adjustable: ClassVar[frozenset[str]] = ModelConfig.adjustable | {"module"}

    name: Literal["external"] = "external"
    module: str = Field("", description="package.module:factory, called with the facts of the data or nothing")
    trainable: bool = Field(False, description="train both, by least squares of the reconstruction; else neither")
    valid_metrics: tuple[str, ...] = Field((ERROR,), description=VALID_METRICS)
    test_metrics: tuple[str, ...] = Field((ERROR,), description=TEST_METRICS)

    @override
    def is_flat(self) -> bool:
        return False

    @override
    def build(self, spec: DataSpec) -> ExternalAutoencoder:
        coders = made(self.module, spec)
        own = [key for key in OF_OBJECT if getattr(self, key) != type(self).model_fields[key].default]
        if own and isinstance(coders, ExternalAutoencoder):
            raise UserError(f"{', '.join(own)}: the ExternalAutoencoder of {self.module} has its own: leave it out")
        return external(coders, spec, self.trainable, **self.data_arguments(spec))


def external(
    coders: Any, spec: DataSpec, trainable: bool = False, **data: Unpack[DataArguments]
) -> ExternalAutoencoder:
    """Return the autoencoder of what a user has, for data with these facts.

    Args:
        coders: an `ExternalAutoencoder`; a pair `(encode, decode)`; an encoder alone, a module or a function; a fitted
            transformer of scikit-learn; an autoencoder of diffusers.
        spec: facts of the data.
        trainable: see `ExternalAutoencoder`.
        data: see `Model`; an `ExternalAutoencoder` has its own.

    Raises:
        UserError: if they are none of these, or do not fit the data.
    """
    if isinstance(coders, ExternalAutoencoder):
        if coders.event_shape != spec.shape:
            raise UserError(f"the encoder is for points of shape {coders.event_shape}, and the data have {spec.shape}")
        return coders
    if isinstance(coders, tuple):
        if len(pair := cast("tuple[Any, ...]", coders)) != 2:
            raise UserError(f"give a pair (encode, decode), not {len(pair)} objects")
        encode, decode = pair
    elif hasattr(coders, "transform"):
        encode, decode = of_sklearn(coders, spec.shape)
    elif hasattr(coders, "encode") and hasattr(coders, "config"):
        encode, decode = of_diffusers(coders, spec.low, spec.high)
    else:
        encode, decode = coders, None
    return ExternalAutoencoder(encode, decode, spec.shape, trainable=trainable, **data)
