"""Embeddings of new rows by the encoder of a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from twostep.analysis.score import own_rows
from twostep.core.columns import write_columns
from twostep.core.files import atomic_write
from twostep.core.schema import UserError
from twostep.data.batches import embed
from twostep.experiment.load import load_module
from twostep.models.base import GeneralizedAutoencoder, evaluating
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run
from twostep.training.engine import Device, Engine


def encode(run: Path, rows: Path, best_first: bool = False, device: Device | None = None) -> Tensor:
    """Return the embeddings `(N, d)` of the rows of a file or folder, in their order; the run's data are not needed.

    Raises:
        UserError: for a directory that is no run of an autoencoder, or rows that can't be read or are of another shape.
    """
    stored = Run.open(run)
    module = load_module(run, best_first)
    gae = module.gae if isinstance(module, TwoStep) else module
    if not isinstance(gae, GeneralizedAutoencoder):
        raise UserError(f"{run}: its {stored.settings.first.name} has no encoder: give a run that has an autoencoder")
    points = own_rows(rows, stored.spec, stored.settings.run.dataset_kwargs)
    place = Engine(device or "cpu").device
    with evaluating(gae.to(place)):
        return embed(gae.encode, points, place)


def write_embeddings(z: Tensor, path: Path) -> None:
    """Write embeddings as an array (`.npy`) or as a table with columns z1, z2, ... (`core.columns`)."""
    if path.suffix.lower() != ".npy":
        write_columns({f"z{number}": column for number, column in enumerate(z.numpy().T, 1)}, path)
        return
    with atomic_write(path) as beside, beside.open("wb") as file:
        np.save(file, z.numpy())
