"""Weights of a network from a file of the user's, without unpickling code."""

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
"""How many batches a batch norm was trained on: old files don't have it, and nothing follows from it."""


def read_weights(path: Path, wanted: Mapping[str, Tensor], owner: str) -> tuple[dict[str, Tensor], str]:
    """Read weights from a .safetensors file, or from one that torch wrote.

    Args:
        path: of the file.
        wanted: the network's tensors by name, of which only shapes count.
        owner: of the weights, for messages.

    Returns:
        the tensors in float32, and the SHA-256 of the file.

    Raises:
        UserError: if the file can't be read, is damaged, or holds another network.
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
            raise UserError(f"{owner}: {path} holds another network: {name} is {there} there, not {here}")
    return {name: tensor.float() for name, tensor in found.items()}, hashlib.sha256(content).hexdigest()


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return f"{tuple(tensors[name].shape)}" if name in tensors else "missing"


def _parsed(path: Path, content: bytes, owner: str) -> dict[str, Tensor]:
    """Return tensors by name from the content of a file."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of no common type
        reason = type(error).__name__
        raise UserError(f"{owner}: {path} is damaged or holds no weights ({len(content):,} bytes; {reason})") from None
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in cast(dict[str, Any], found).values()):
        raise UserError(f"{owner}: {path} holds no weights by name (a state dict)")
    return cast(dict[str, Tensor], found)
