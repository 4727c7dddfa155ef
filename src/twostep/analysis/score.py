"""Scores of new rows by a finished run: densities, distance, a conformal p-value, a verdict.

The p-value is calibrated on the run's validation rows: an in-distribution row gets the verdict "out" with probability
`alpha`, whatever the data (see `metrics.ood.conformal`).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.files import atomic_write
from twostep.core.schema import DataSpec, UserError
from twostep.core.seeds import derive
from twostep.data.batches import subsample
from twostep.data.load import read_rows
from twostep.experiment.load import load_finished
from twostep.metrics.ood.conformal import MIN_ROWS, ConformalCalibrator
from twostep.metrics.ood.scores import DISTANCE, MAX_ROWS
from twostep.training.engine import Device

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Scored:
    """Scores of rows, in their order.

    Args:
        columns: by name, `(N,)` each: `row`; the scores that the model has (`log_prob` and `log_prob_latent` in nats,
            `distance`, the Euclidean distance to the reconstruction in units of the data); `p_value`, where the run has
            at least 4 validation rows; `verdict`, "in" or "out", where some p-value can be as small as `alpha`.
        calibrator: of the p-value, which is that of its `headline` score; None: there is none.
    """

    columns: Mapping[str, NDArray[Any]]
    calibrator: ConformalCalibrator | None = None

    @property
    def out(self) -> int | None:
        """Number of rows with the verdict "out"; None if there is no verdict."""
        return int((self.columns["verdict"] == "out").sum()) if "verdict" in self.columns else None


def score(
    run: Path,
    rows: Path,
    alpha: float = 0.05,
    best_first: bool = False,
    device: Device | None = None,
    data: Path | None = None,
) -> Scored:
    """Score the rows of a file or folder by a run's model.

    Where the validation rows are too few for p-values, or for a verdict at `alpha`, these are left out with a warning.
    The run is opened as by `load_run`.

    Args:
        run: its directory.
        rows: what `read_rows` reads; rows must have the shape of the run's. Image files of any size are resized.
        alpha: level of the verdict: the share of in-distribution rows that are called "out".

    Raises:
        UserError: for a directory that is no run, or rows that can't be read or are of another shape.
    """
    evaluator = load_finished(run, best_first, device, data).evaluator
    points = own_rows(rows, evaluator.splits.spec, evaluator.run.dataset_kwargs)
    scored = {name: found["rows"] for name, found in evaluator.score({"rows": points}).items()}
    columns: dict[str, NDArray[Any]] = {"row": np.arange(len(points))}
    columns |= {name: values for name, values in scored.items() if name != DISTANCE}
    if DISTANCE in scored:
        columns["distance"] = np.sqrt(-scored[DISTANCE])
    valid = evaluator.splits.valid
    calibration = 0 if valid is None else len(valid)
    if valid is None or calibration < MIN_ROWS:
        logger.warning(
            "%s has %d validation rows: p-values need %d or more, so there are none and no verdict; train with more "
            "rows or make_valid_loader=True",
            *(run, calibration, MIN_ROWS),
        )
        return Scored(columns)
    held_out = {name: found["valid"] for name, found in evaluator.score({"valid": subsample(valid, MAX_ROWS)}).items()}
    calibrator = ConformalCalibrator(evaluator.module, held_out, derive(evaluator.run.seed, "ood"))
    p_value = calibrator.p_values(scored)[calibrator.headline]
    columns["p_value"] = p_value
    if alpha < calibrator.smallest:
        logger.warning(
            "the run's %d validation rows give no p-value below %.3g, so no row can be out at alpha=%g and there is no "
            "verdict; take a larger alpha or train with more rows",
            *(calibration, calibrator.smallest, alpha),
        )
    else:
        columns["verdict"] = np.where(p_value <= alpha, "out", "in")
    return Scored(columns, calibrator)


def write_csv(scored: Scored, path: Path) -> None:
    """Write the columns as a table in one piece; numbers in as many digits as they have."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(scored.columns)
        table.writerows(zip(*(column.tolist() for column in scored.columns.values()), strict=True))


def own_rows(data: Path, spec: DataSpec, kwargs: Mapping[str, Any]) -> Tensor:
    """Return the rows of a file or folder, which must have the shape of a run's, with a warning if units may differ.

    A table has the columns of the run's, in any order; `kwargs` are the keys of the run's data.
    """
    rows = read_rows(data, (spec.shape[1], spec.shape[2]) if spec.is_image else None, spec.columns, kwargs)
    if tuple(rows.shape[1:]) != spec.shape:
        shapes = ["x".join(map(str, shape)) for shape in (rows.shape[1:], spec.shape)]
        raise UserError(f"{data}: its rows have the shape {shapes[0]}, those of the run {shapes[1]}: give such rows")
    low, high = float(rows.min()), float(rows.max())
    if spec.discrete and (low < spec.low or high > spec.high or high <= 1 < spec.high):
        logger.warning(
            "%s has values from %g to %g, and the run's data from %g to %g: are they in the same units?",
            *(data, low, high, spec.low, spec.high),
        )
    return rows
