"""Checkpoints: tensors and JSON values in one safetensors file with a checksum.

The header of the file has the values as JSON, a format version, and a SHA-256 of everything else. It is written
atomically (`twostep.core.files`).
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
from torch import Tensor, nn

from twostep.core.files import atomic_write
from twostep.core.schema import UserError, reason

FORMAT = "twostep-checkpoint-1"


class CheckpointError(UserError):
    """A missing or damaged checkpoint, or one of another format."""


@dataclass
class State:
    """Tensors and JSON values under dotted names."""

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    values: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def join(cls, states: Mapping[str, State]) -> Self:
        """Combine several states, each under its own prefix."""
        return cls(
            {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.tensors.items()},
            {f"{name}.{key}": value for name, state in states.items() for key, value in state.values.items()},
        )

    def under(self, prefix: str) -> State:
        """Return the state under a prefix, without the prefix."""
        start = f"{prefix}."
        return State(
            {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)},
            {key.removeprefix(start): value for key, value in self.values.items() if key.startswith(start)},
        )


def save(path: Path, state: State) -> None:
    """Write a state to `path`, atomically replacing an existing file.

    Raises:
        UserError: if it can't be written; the old file is then unchanged.
    """
    tensors = _apart(state.tensors)
    values = json.dumps(state.values, sort_keys=True)
    header = {"format": FORMAT, "values": values, "sha256": _digest(tensors, values)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(serialize(tensors, metadata=header))  # safetensors' own writer restricts the permissions


def load(path: Path) -> State:
    """Read a state and check its integrity.

    Raises:
        CheckpointError: if the file is missing, damaged or of another format.
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
        raise CheckpointError(f"{path}: damaged: its SHA-256 has changed")
    values: Any = json.loads(header["values"])
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged: its values are not a JSON object")
    return State(tensors, cast(dict[str, Any], values))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU without shared memory, which safetensors does not write: masks of layers share it."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        kept[name] = here.clone() if place in seen else here
        seen.add(place)
    return kept


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    digest = hashlib.sha256(f"{FORMAT}\n{values}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def load_weights(model: nn.Module, state: State, problem: str) -> None:
    """Load the best weights of a trainer's state, or its last ones; those of another model are a `problem`."""
    try:
        model.load_state_dict(state.under("best").tensors or state.under("model").tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{problem} ({reason(error)})") from None


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(_bytes(tensor))
    return digest.hexdigest()
