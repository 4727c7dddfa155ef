"""Weights of a run's models: put into place, and told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from twostep.core.checkpoint import CheckpointError, State
from twostep.core.schema import UserError
from twostep.models.base import Model


def put_weights(model: Model, state: State, problem: str) -> None:
    """Put the best weights that a trainer's state has into a model."""
    try:
        model.load_state_dict(state.under("best").tensors or state.under("model").tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{problem} ({short(error)})") from None


def refuse_untrained(path: Path, steps: Mapping[str, int], best_first: bool) -> None:
    """Refuse a state in which a model has not had a single step, as the density while its autoencoder is trained.

    Args:
        path: directory of the run.
        steps: that each model has had, by part.
        best_first: whether the state is that of `best_valid`, if there is one.

    Raises:
        UserError: naming the model.
    """
    untrained = [part for part, had in steps.items() if not had]
    if untrained:
        advice = "leave out --load-best-valid-first, or go on with the run" if best_first else "go on with the run"
        raise UserError(f"{path}: {', '.join(untrained)} is not trained yet in this checkpoint: {advice} by --load-dir")


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def short(error: Exception) -> str:
    """Return an error's message as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
