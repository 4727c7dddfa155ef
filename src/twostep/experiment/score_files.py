"""Scores of rows as files of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twostep.core.files import atomic_write, write_json


def write_scores(folder: Path, scores: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> Path:
    """Write the scores of each split's rows, in their order, to `<score>_<split>.npy` in a folder; return it.

    What an earlier test left there goes. `scores.json` lists shape and SHA-256 of each file.

    Raises:
        UserError: if they can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (*folder.glob("scores.json"), *folder.glob("*.npy"), *folder.glob("*.png")):
        earlier.unlink()
    facts: dict[str, dict[str, Any]] = {}
    for score, splits in scores.items():
        for split, rows in splits.items():
            path = folder / f"{score}_{split}.npy"
            with atomic_write(path) as beside, beside.open("wb") as file:
                np.save(file, rows)
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
            facts[path.name] = {"score": score, "split": split, "shape": list(rows.shape), "sha256": checksum}
    write_json(folder / "scores.json", facts)
    return folder
