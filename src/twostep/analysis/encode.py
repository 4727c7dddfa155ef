"""Embeddings of new rows by the encoder of a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from twostep.analysis.score import own_rows
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
    """Write embeddings as an array (`.npy`) or as a table with columns z1, z2, ... (`.csv`, `.parquet`)."""
    table = pd.DataFrame(z.numpy(), columns=[f"z{number}" for number in range(1, z.shape[1] + 1)])
    with atomic_write(path) as beside, beside.open("wb") as file:
        if path.suffix == ".npy":
            np.save(file, z.numpy())
        elif path.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)
