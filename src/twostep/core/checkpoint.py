"""One self-checking file for the state of anything: tensors and plain values in, the same out.

The file is a safetensors file. Its header holds the plain values as JSON, a format version, and a SHA-256 of all else,
so that a flipped bit can't pass. It is written in one piece (`twostep.core.files`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from twostep.core.files import atomic_write
from twostep.core.schema import UserError

FORMAT = "twostep-checkpoint-1"


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another format."""


@dataclass
class State:
    """Tensors and JSON values under dotted names."""

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    values: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def join(cls, parts: Mapping[str, State]) -> Self:
        """Put several states into one, each under its own prefix."""
        return cls(
            {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.tensors.items()},
            {f"{name}.{key}": value for name, part in parts.items() for key, value in part.values.items()},
        )

    def under(self, prefix: str) -> State:
        """Return what lies under a prefix, without it."""
        start = f"{prefix}."
        return State(
            {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)},
            {key.removeprefix(start): value for key, value in self.values.items() if key.startswith(start)},
        )


def save(path: Path, state: State) -> None:
    """Write a state to `path`, replacing what is there in one atomic step.

    Raises:
        UserError: if the disk is full or can't be written; the old file is then untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    values = json.dumps(state.values, sort_keys=True)
    header = {"format": FORMAT, "values": values, "sha256": _digest(tensors, values)}
    with atomic_write(path) as beside:
        beside.write_bytes(serialize(tensors, metadata=header))  # safetensors' own writer makes them the owner's alone


def load(path: Path) -> State:
    """Read a state, and check that it is what was written.

    Raises:
        CheckpointError: if the file is missing, truncated, altered, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({error})") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({FORMAT})")
    if header.get("sha256") != _digest(tensors, header.get("values", "")):
        raise CheckpointError(f"{path}: damaged: its SHA-256 differs from the one it was written with")
    values: Any = json.loads(header["values"])
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged: its values are no JSON object")
    return State(tensors, cast(dict[str, Any], values))


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    digest = hashlib.sha256(f"{FORMAT}\n{values}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
