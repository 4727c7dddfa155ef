"""Encoders and decoders as modules, checked: functions, transformers of scikit-learn, autoencoders of diffusers.

A transformer whose maps are affine (PCA, truncated SVD, a pipeline that scales first) becomes two linear layers, with
gradients and an exact log-volume; others keep their numpy functions, which have neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twostep.core.schema import UserError
from twostep.nn.layers import Affine, Function

Coder = nn.Module | Callable[[Tensor], Tensor]
Coders = tuple[nn.Module, nn.Module | None]
Numpy = Callable[[NDArray[Any]], NDArray[Any]]

MOST_COLUMNS = 5000  # of which the matrix of an affine map is read off


def as_module(coder: Coder) -> nn.Module:
    """Return a module, or one that calls a function."""
    if isinstance(coder, nn.Module):
        return coder
    if not callable(coder):
        raise UserError(f"encode, decode: give modules or functions of tensors, not {type(coder).__name__}")
    return Function(coder)


def checked(name: str, coder: nn.Module, x: Tensor) -> Tensor:
    """Return what a coder gives for two points, after checks of its type, shape and values."""
    try:
        found: Any = coder(x)
        again: Any = coder(x)
    except UserError:
        raise
    except Exception as error:  # of the user's code, which may raise anything
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{name}: fails for an input of shape {tuple(x.shape)} ({what})") from error
    if not isinstance(found, Tensor):
        raise UserError(f"{name}: must return a tensor, not {type(found).__name__}: take the embedding out of it")
    if found.ndim < 2 or len(found) != len(x):
        raise UserError(f"{name}: must return one row for each of {len(x)}, not the shape {tuple(found.shape)}")
    if not found.is_floating_point() or not found.isfinite().all():
        raise UserError(f"{name}: gives values that are not finite numbers for random input in [0, 1]")
    if not torch.allclose(found, again, rtol=1e-3, atol=1e-4 * float(found.abs().max())):
        raise UserError(f"{name}: gives another value at a second call: turn sampling off (the posterior's mode)")
    return found


def differentiable(decoder: nn.Module, raw: Tensor) -> bool:
    """Whether torch has gradients of a decoder at embeddings `(B, *L)`."""
    try:
        with torch.enable_grad():
            return bool(decoder(raw.detach().requires_grad_()).requires_grad)
    except RuntimeError:  # of `numpy()` of a tensor with a gradient
        return False


def of_sklearn(transformer: Any, event_shape: Sequence[int]) -> Coders:
    """Return the encoder and decoder of a fitted transformer; without `inverse_transform` there is no decoder.

    Raises:
        UserError: if it is not fitted, or was fitted to rows of another size.
    """
    columns, fitted = prod(event_shape), getattr(transformer, "n_features_in_", None)
    name = type(transformer).__name__
    if fitted is None:
        raise UserError(f"{name}: is not fitted: call its fit(X) first")
    if fitted != columns:
        raise UserError(f"{name}: was fitted to {fitted} columns, and the data have {columns}")
    encode = partial(_called, transformer.transform)
    latent = encode(np.zeros((1, columns))).shape[1]
    decode = partial(_called, transformer.inverse_transform) if hasattr(transformer, "inverse_transform") else None
    return (
        nn.Sequential(nn.Flatten(), _layer(encode, columns)),
        None if decode is None else _shaped(_layer(decode, latent), tuple(event_shape)),
    )


def of_diffusers(model: Any, low: float, high: float) -> Coders:
    """Return encoder (the mode of its posterior) and decoder of a diffusers autoencoder, for data in [low, high].

    Raises:
        UserError: if it has other parts than `AutoencoderKL` or `AutoencoderTiny`.
    """
    before = cast("nn.Module | None", getattr(model, "quant_conv", None)) or nn.Identity()
    after = cast("nn.Module | None", getattr(model, "post_quant_conv", None)) or nn.Identity()
    channels = int(model.config.latent_channels)
    half, middle = (high - low) / 2, (high + low) / 2  # it sees values in [-1, 1]
    encoder = nn.Sequential(_Rescale(1 / half, -middle / half), model.encoder, before, _First(channels))
    decoder = nn.Sequential(after, model.decoder, _Rescale(half, middle))
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, int(model.config.in_channels), 32, 32, generator=generator).to(model.device)
    with torch.no_grad():
        given = model.encode(points)
        latents = given.latents if hasattr(given, "latents") else given.latent_dist.mode()
        same = torch.allclose(encoder[1:](points), latents, atol=1e-5)
    if not same:
        raise UserError(f"{type(model).__name__}: is not known: give two functions, encode and decode")
    return encoder, decoder


def _shaped(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    return layer if len(shape) == 1 else nn.Sequential(layer, Affine(partial(torch.unflatten, dim=1, sizes=shape)))


class _Rescale(nn.Module):
    """`a x + b`."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x + self.b


class _First(nn.Module):
    """The first channels: the mean of a Gaussian, whose other channels are log-variances."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]


def _called(function: Numpy, rows: NDArray[Any]) -> NDArray[Any]:
    """Call a method of a transformer that may have been fitted to a frame."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return np.asarray(function(rows))


def _on_tensors(function: Numpy, x: Tensor) -> Tensor:
    return torch.as_tensor(function(x.detach().cpu().double().numpy())).to(x)


def _layer(function: Numpy, columns: int) -> nn.Module:
    """Return a linear layer if a function of rows `(B, columns)` is affine, else the function."""
    if columns <= MOST_COLUMNS:
        bias = function(np.zeros((1, columns)))
        weight = function(np.eye(columns)) - bias
        points = np.random.default_rng(0).normal(size=(16, columns))
        if np.allclose(function(points), points @ weight + bias, atol=1e-8 * max(1.0, float(np.abs(bias).max()))):
            layer = nn.utils.skip_init(nn.Linear, *weight.shape)
            layer.load_state_dict({"weight": torch.as_tensor(weight.T.copy()), "bias": torch.as_tensor(bias[0])})
            return layer

    return Function(partial(_on_tensors, function))
