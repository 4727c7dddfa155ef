"""Files that a test leaves in a run's directory: samples, reconstructions, scores and their histograms."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostep.core import figures
from twostep.core.figures import histogram
from twostep.core.files import atomic_write, write_json
from twostep.data.base import Splits
from twostep.experiment.evaluator import Detection
from twostep.metrics.ood.scores import Array
from twostep.models.base import GeneralizedAutoencoder, Model, Sampler, tensor_of
from twostep.models.two_step import TwoStep

IMAGES = 64
AXES = {
    "log_prob": "log-density (nats)",
    "log_prob_latent": "log-density of the embedding (nats)",
    "reconstruction_error": "negative squared distance to the reconstruction",
    "relative_distance": "negative squared distance to the reconstruction over the variance of the image",
    "nearest_distance": "negative distance to the nearest training row",
    "knn": "negative distance to the fifth nearest training row",
    "knn_latent": "negative distance of the embedding to the fifth nearest of the training rows",
    "two_part": "two-part score (log of the weighted geometric mean of p-values)",
}


def draw_images(
    module: Model | TwoStep, splits: Splits, folder: Path, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Write `samples.png` and `reconstructions.png`, as far as the model has them; return images by name."""
    drawn: dict[str, Tensor] = {}
    spec, data = splits.spec, splits.test[:IMAGES]
    like = tensor_of(module)
    points = data.to(like.device, like.dtype)
    gae = module.gae if isinstance(module, TwoStep) else module
    decodes = not isinstance(gae, GeneralizedAutoencoder) or gae.decodes
    samples = module.sample(len(points), generator) if decodes and isinstance(module, Sampler) else None
    if not spec.is_image:
        if samples is not None and spec.dim > 1:
            figures.scatter(points, samples, folder / "samples.png")
        return drawn
    if samples is not None:
        drawn["samples"] = figures.grid(samples, spec)
    if decodes and isinstance(gae, GeneralizedAutoencoder):
        shown = points[:16]
        both = torch.cat([shown, gae.decode(gae.encode(shown))])
        drawn["reconstructions"] = figures.grid(both, spec, columns=len(shown))
    for name, canvas in drawn.items():
        figures.save_png(canvas, folder / f"{name}.png", spec.shape[1])
    return drawn


def write_detection(found: Detection, folder: Path) -> None:
    """Write scores and p-values of all rows into a folder, and a histogram of each score: the test rows of all data."""
    write_scores(folder, {**found.scores, **{f"p_value_{name}": rows for name, rows in found.p_values.items()}})
    for name, rows in found.scores.items():
        series = {figures.plain(Path(found.against[0].own).name): rows["in_test"]}
        for one in found.against:
            series[f"{figures.plain(Path(one.other).name)} (other)"] = rows[f"ood_test{one.label}"]
        histogram(series, AXES[name], folder / f"{name}.png")


def write_scores(folder: Path, scores: Mapping[str, Mapping[str, Array]]) -> None:
    """Write the scores of each split's rows, in their order, to `<score>_<split>.npy` in a folder.

    Files of an earlier test are removed. `scores.json` lists shape and SHA-256 of each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (*folder.glob("scores.json"), *folder.glob("*.npy"), *folder.glob("*.png")):
        earlier.unlink()
    facts: dict[str, dict[str, Any]] = {}
    for score, splits in scores.items():
        for split, rows in splits.items():
            path = folder / f"{score}_{split}.npy"
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows)
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
            facts[path.name] = {"score": score, "split": split, "shape": list(rows.shape), "sha256": checksum}
    write_json(folder / "scores.json", facts)
