"""The command `compare-samples`: samples against data, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from twostep.cli import early, flags
from twostep.cli.output import show
from twostep.core.schema import UserError


def compare_samples(
    real: Path,
    samples: Path,
    *,
    held_out: Path | None = None,
    metrics: flags.Names = None,
    features: str | None = None,
    image_size: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    max_rows: flags.Count = 10_000,
    seed: flags.Seed = 0,
    table: flags.Table = flags.NO_TABLE,
) -> int:
    """Compare samples with real data: distances, precision and recall, a classifier, with 95 % intervals.

    Args:
        real: Data that the model was trained on: an array, a table or a folder of images.
        samples: Samples of the model, likewise; images get the size of the real ones.
        held_out: Data that it was not trained on: each result gets their value in the samples' place beside it.
        metrics: Metrics to compute: --metrics fd kid.
        features: Features in which rows are compared (key features of metric_kwargs).
        image_size: Height and width to which images are resized.
        max_rows: Rows of each set to compare at most.
    """
    early.check_metric_names(metrics or [])
    for path in (real, samples, *([held_out] if held_out else [])):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")

    from twostep.cli.tables import result_list
    from twostep.metrics.samples.compare import compare

    keys = {"image_size": image_size, "max_rows": max_rows or 10_000, "seed": seed, "dataset_kwargs": table.keys}
    found = compare(real, samples, metrics, held_out=held_out, features=features, **keys)  # pyright: ignore
    show(result_list(found), found)
    return 0
