"""The pictures of a run: samples, reconstructions, histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from twostep.core import figures as pictures
from twostep.metrics.ood.ood import OODComparison
from twostep.metrics.ood.scores import Array
from twostep.models.base import GeneralizedAutoencoder, Model, Sampler
from twostep.models.two_step import TwoStep

AXES = {
    "log_prob": "log-density (nats)",
    "log_prob_latent": "log-density of the embedding (nats)",
    "reconstruction_error": "negative squared distance to the reconstruction",
    "two_part": "two-part score (log of the weighted geometric mean of p-values)",
}


def draw_pictures(
    module: Model | TwoStep, data: Tensor, folder: Path, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Write `samples.png` and `reconstructions.png` as far as the model and its data have them.

    Returns:
        the pictures by name, `(C, H, W)` in [0, 1]; nothing for data that are not images.
    """
    drawn: dict[str, Tensor] = {}
    spec = module.spec
    like = next(module.parameters())
    points = data.to(like.device, like.dtype)
    samples = module.sample(len(points), generator) if isinstance(module, Sampler) else None
    if not spec.is_image:
        if samples is not None and spec.dim > 1:
            pictures.scatter(points, samples, folder / "samples.png")
        return drawn
    if samples is not None:
        drawn["samples"] = pictures.grid(samples, spec)
    if isinstance(module, GeneralizedAutoencoder | TwoStep):
        shown = points[:16]
        drawn["reconstructions"] = pictures.grid(
            torch.cat([shown, module.decode(module.encode(shown))]), spec, columns=len(shown)
        )
    for name, canvas in drawn.items():
        pictures.save_png(canvas, folder / f"{name}.png", spec.shape[1])
    return drawn


def draw_scores(scores: Mapping[str, Mapping[str, Array]], against: Sequence[OODComparison], folder: Path) -> None:
    """Write one histogram for each score, `<score>.png`: the test rows of all data sets."""
    for name, rows in scores.items():
        series = {pictures.plain(Path(against[0].own).name): rows["in_test"]}
        series |= {f"{pictures.plain(Path(one.other).name)} (other)": rows[one.split("test")] for one in against}
        pictures.histogram(series, AXES[name], folder / f"{name}.png")
