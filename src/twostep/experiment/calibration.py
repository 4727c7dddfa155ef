"""Scores of a run's validation rows, kept in the run: p-values of new rows need neither its data nor its time.

`calibration.safetensors` holds each score, `(n,)`, and the fingerprint of the weights that gave it. The rows themselves
are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twostep.core import checkpoint
from twostep.core.checkpoint import State
from twostep.experiment.evaluator import Evaluator
from twostep.metrics.ood.conformal import MIN_ROWS
from twostep.metrics.ood.ood import rows_to_score
from twostep.metrics.ood.scores import Array
from twostep.runs.directory import Run

NAME = "calibration.safetensors"


def held_out_scores(evaluator: Evaluator) -> dict[str, Array]:
    """Return the scores of the validation rows, by name; none where there are fewer than p-values need."""
    valid = evaluator.splits.valid
    if valid is None or len(valid) < MIN_ROWS:
        return {}
    rows = rows_to_score(evaluator.splits, {})["in_valid"]
    return {name: found["in_valid"] for name, found in evaluator.score({"in_valid": rows}).items()}


def write_calibration(run: Run, scores: Mapping[str, Array], weights: str) -> None:
    """Keep scores of validation rows by weights with this fingerprint; without any, remove those of an earlier test."""
    path = run.path / NAME
    if scores:
        checkpoint.save(path, State({name: torch.as_tensor(one) for name, one in scores.items()}, {"weights": weights}))
    else:
        path.unlink(missing_ok=True)


def read_calibration(run: Run, weights: str) -> dict[str, Array]:
    """Return the scores that a test has kept; none where there are none, or they are of other weights.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = run.path / NAME
    if not path.is_file():
        return {}
    state = checkpoint.load(path)
    if state.values.get("weights") != weights:
        return {}
    return {name: tensor.double().numpy() for name, tensor in state.tensors.items()}
