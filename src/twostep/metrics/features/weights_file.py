"""Weights of a network from a file of the user, without unpickling code."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from twostep.core.schema import UserError

COUNTER = "num_batches_tracked"
"""Counter of batch normalisation, missing in old files and without effect."""


def read_weights(path: Path, wanted: Mapping[str, Tensor], owner: str) -> tuple[dict[str, Tensor], str]:
    """Read weights from a .safetensors file or a state dict saved by torch.

    Args:
        path: of the file.
        wanted: tensors of the network by name, of which only the shapes matter.
        owner: name of the network, for messages.

    Returns:
        the tensors in float32, and the SHA-256 of the file.

    Raises:
        UserError: if the file can't be read, is damaged, or is of another network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{owner}: {path}: {error.strerror}") from None
    found = _parsed(path, content, owner)
    found = {name: torch.zeros(()) for name in wanted if name.endswith(COUNTER)} | found
    for name in [*wanted, *found]:
        here, there = _shape(wanted, name), _shape(found, name)
        if here != there:
            raise UserError(f"{owner}: {path} is of another network: {name} is {there}, not {here}")
    return {name: tensor.float() for name, tensor in found.items()}, hashlib.sha256(content).hexdigest()


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return f"{tuple(tensors[name].shape)}" if name in tensors else "missing"


def _parsed(path: Path, content: bytes, owner: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many types
        reason = type(error).__name__
        raise UserError(
            f"{owner}: {path} is damaged or contains no weights ({len(content):,} bytes; {reason})"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in cast(dict[str, Any], found).values()):
        raise UserError(f"{owner}: {path} contains no state dict")
    return cast(dict[str, Tensor], found)
