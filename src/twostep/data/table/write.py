"""Rows to a `.csv` or `.parquet` file, with the columns of the data."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from twostep.core.columns import write_frame
from twostep.core.schema import DataSpec, UserError
from twostep.data.table.codes import to_frame
from twostep.data.table.read import plain_schema

ENDINGS = frozenset({".csv", ".parquet"})


def is_table_path(path: Path) -> bool:
    """Return whether `write_table` writes such a file."""
    return path.suffix.lower() in ENDINGS


def check_table(path: Path, spec: DataSpec) -> None:
    """Refuse points that are no rows of a table."""
    if spec.columns is None and len(spec.shape) != 1:
        raise UserError(
            f"{path}: points of shape {spec.shape} are no rows of a table: write to a .png, .npz or .npy file"
        )


def write_table(rows: Tensor, spec: DataSpec, path: Path) -> None:
    """Write rows `(n, C)` with names, types and order of the columns of the data; without names they are 0, 1, ..."""
    check_table(path, spec)
    names = [str(place) for place in range(spec.dim)]
    frame = to_frame(spec.columns or plain_schema(names, ["float32"] * spec.dim), rows)
    write_frame(frame, path, numbers="%.9g")  # the digits of single precision
