"""Weights of a run's models: put into place, and told apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from twostep.checkpoint import CheckpointError, State
from twostep.models.base import Model


def put_weights(model: Model, state: State, problem: str) -> None:
    """Put the best weights that a trainer's state has into a model."""
    try:
        model.load_state_dict(state.part("best").tensors or state.part("model").tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{problem} ({short(error)})") from None


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def short(error: Exception) -> str:
    """Return an error's message as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
