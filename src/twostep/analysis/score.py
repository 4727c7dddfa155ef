"""Scores of new rows by a finished run: densities, distances, conformal p- and q-values, a verdict.

The p-value is calibrated on the run's validation rows: an in-distribution row gets the verdict "out" with probability
`alpha`, whatever the data (see `metrics.ood.conformal`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.checkpoint import fingerprint
from twostep.core.neighbours import k_nearest
from twostep.core.schema import DataSpec, UserError
from twostep.core.seeds import derive
from twostep.data.batches import subsample
from twostep.data.load import images_at, read_rows, row_names
from twostep.data.table.read import is_table
from twostep.diagnosis import local_dimension
from twostep.experiment.calibration import held_out_scores, read_calibration
from twostep.experiment.evaluator import Evaluator
from twostep.experiment.load import load_finished
from twostep.metrics.ood.conformal import MIN_ROWS, ConformalCalibrator
from twostep.metrics.ood.many import Shift, q_values
from twostep.metrics.ood.scores import DISTANCE, LATENT, MAX_ROWS, RELATIVE, TWO_PART, in_units
from twostep.models.base import evaluating
from twostep.models.two_step import TwoStep
from twostep.training.engine import Device

BLOCK = 1000  # rows that are mapped at once
NEAR = "nearest_training_distance"
SEEN = 0.2  # share of the rows that are training rows, from which on it is said

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class Scored:
    """Scores of rows, in their order.

    Args:
        columns: by name, `(N,)` each: `row`; the scores that the model has (`log_prob` and `log_prob_latent` in nats;
            `distance`, the Euclidean distance to the reconstruction, in units of the data, or of vectors that the model
            standardises in standard deviations; `relative_distance`, of images, see `metrics.ood.scores`; `two_part`,
            of which lower is more unusual); `nearest_training_distance`, in the units of `distance`;
            `local_dimension`, if it was asked for; `p_value` and `q_value` (Benjamini-Hochberg), where the run has at
            least 4 validation rows; `verdict`, "in" or "out", where some p-value can be as small as `alpha`.
        calibrator: of the p-value, which is that of its `headline` score; None: there is none.
        shift: how the rows as a whole compare with the validation rows.
    """

    columns: Mapping[str, NDArray[Any]]
    calibrator: ConformalCalibrator | None = None
    shift: Shift | None = None

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
    local: bool = False,
) -> Scored:
    """Score the rows of a file or folder by a run's model.

    Where the validation rows are too few for p-values, or for a verdict at `alpha`, these are left out with a warning.
    A line says so if the rows as a whole differ from the validation rows. The run is opened as by `load_run`; where its
    data are not there, p-values are those by its calibration scores, and what needs training rows is left out.

    Args:
        run: its directory.
        rows: what `read_rows` reads; rows must have the shape of the run's. Image files of any size are resized.
        alpha: level of the verdict: the share of in-distribution rows that are called "out".
        local: add the local dimension of the nearest training row.

    Raises:
        UserError: for a directory that is no run, or rows that can't be read or are of another shape.
    """
    opened = load_finished(run, best_first, device, data, may_lack_data=True)
    evaluator = opened.evaluator
    points = own_rows(rows, evaluator.splits.spec, evaluator.run.dataset_kwargs)
    scored = {name: found["rows"] for name, found in evaluator.score({"rows": points}).items()}
    columns: dict[str, NDArray[Any]] = {"row": np.arange(len(points))}
    if (names := row_names(rows, evaluator.run.dataset_kwargs)) is not None:
        columns["name"] = np.array(names)
    columns |= {name: scored[name] for name in ("log_prob", LATENT) if name in scored}
    if DISTANCE in scored:
        columns["distance"] = np.sqrt(-scored[DISTANCE])
    if RELATIVE in scored:
        columns[RELATIVE] = -scored[RELATIVE]
    held_out = read_calibration(opened.run, fingerprint(evaluator.module)) or held_out_scores(evaluator)
    held_out = {name: values for name, values in held_out.items() if name in scored}
    calibration = len(next(iter(held_out.values()), ()))
    if not held_out:
        valid = evaluator.splits.valid
        calibration = 0 if valid is None else len(valid)
        logger.warning(
            "%s has %d validation rows: p-values need %d or more, so there are none and no verdict; train with more "
            "rows or make_valid_loader=True",
            *(run, calibration, MIN_ROWS),
        )
        return Scored(columns | _near(evaluator, points, local))
    calibrator = ConformalCalibrator(evaluator.module, held_out, derive(evaluator.run.seed, "ood"))
    if calibrator.two_part is not None:
        columns[TWO_PART.name] = calibrator.two_part.score(scored)
    columns |= _near(evaluator, points, local)
    p_value = calibrator.p_values(scored)[calibrator.headline]
    columns |= {"p_value": p_value, "q_value": q_values(p_value)}
    if alpha < calibrator.smallest:
        logger.warning(
            "the run's %d validation rows give no p-value below %.3g, so no row can be out at alpha=%g and there is no "
            "verdict; take a larger alpha or train with more rows",
            *(calibration, calibrator.smallest, alpha),
        )
    else:
        columns["verdict"] = np.where(p_value <= alpha, "out", "in")
    shift = calibrator.shift(scored)
    known = float((columns.get(NEAR, np.ones(1)) == 0).mean())
    if known > SEEN:
        logger.warning("%.0f %% of the rows are training rows, to which p-values do not apply", 100 * known)
    if shift.differs:
        logger.warning(
            "the rows as a whole differ from the run's validation rows (Kolmogorov-Smirnov D=%.2f, p=%.2g): "
            "%.1f %% have p_value <= %g, where %.1f %% are expected",
            *(shift.statistic, shift.p_value, 100 * float((p_value <= alpha).mean()), alpha, 100 * alpha),
        )
    return Scored(columns, calibrator, shift)


def _near(evaluator: Evaluator, points: Tensor, local: bool) -> dict[str, NDArray[Any]]:
    """Return the distance of rows to the nearest training row, and the local dimension there if it is asked for.

    Without the run's data there is neither.
    """
    if not len(evaluator.splits.train):
        return {}
    module, place = evaluator.module, evaluator.engine.device
    model = module.gae if isinstance(module, TwoStep) else module

    def units(rows: Tensor) -> Tensor:
        return torch.cat([in_units(model, x.float().to(place)).cpu().flatten(1) for x in rows.split(BLOCK)])

    with evaluating(module):
        known, new = units(subsample(evaluator.splits.train, MAX_ROWS)), units(points)
    squares, nearest = k_nearest(new, 1, known)
    columns: dict[str, NDArray[Any]] = {NEAR: squares[:, 0].sqrt().numpy()}
    if local:
        columns["local_dimension"] = local_dimension(known, derive(evaluator.run.seed, "local")).values[nearest[:, 0]]
    return columns


def own_rows(data: Path, spec: DataSpec, kwargs: Mapping[str, Any]) -> Tensor:
    """Return the rows of a file or folder, which must have the shape of a run's, with a warning if units may differ.

    A table has the columns of the run's, in any order; `kwargs` are the keys of the run's data.
    """
    if spec.is_image and data.is_file() and is_table(data) and images_at(data) is None:
        raise UserError(f"{data}: a table, and the run's data are images: give a folder of images, or an array")
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
