"""The command `encode`: embeddings of rows by a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from twostep.cli import flags
from twostep.core.files import require_free
from twostep.core.schema import UserError
from twostep.runs.summary import require_run

logger = logging.getLogger("twostep")


def encode(
    run: flags.RunPath,
    rows: Path,
    *,
    to: Path = Path("embeddings.npy"),
    load_best_valid_first: flags.BestFirst = False,
    device: flags.Device = None,
    force: flags.Force = False,
) -> int:
    """Encode the rows of a file by a run's encoder.

    Args:
        rows: A .npy, .npz, .csv or .parquet file, or a folder of images, with rows of the run's shape.
        to: A .npy file, an array of one row for each; or a .csv or .parquet file with columns z1, z2, ...
    """
    if to.suffix not in (".npy", ".csv", ".parquet"):
        raise UserError(f"{to}: write to a .npy, .csv or .parquet file")
    require_free(to, force)
    require_run(run)
    if not rows.exists():
        raise UserError(f"{rows}: no such file or folder")

    from twostep.analysis import encode as encoding

    z = encoding.encode(run, rows, load_best_valid_first, device)
    encoding.write_embeddings(z, to)
    logger.info("%d rows encoded in %d coordinates: %s", *z.shape, to)
    return 0
