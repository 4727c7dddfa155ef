"""Runs of one autoencoder on the same data that differ in `latent_dim`: from which size on does more hardly help?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from twostep.core.schema import UserError
from twostep.data.batches import subsample
from twostep.diagnosis.dimension.knee import knee_of
from twostep.diagnosis.figures import draw_knee
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import HERE, Place, trained
from twostep.models.base import GeneralizedAutoencoder, evaluating

HELD_OUT = 2000
BATCH = 500
LEAST = 3  # sizes that can show a knee


@dataclass(frozen=True)
class Family:
    """What is said of the runs.

    Args:
        model: name of the autoencoder.
        sizes: latent dimensions, ascending.
        errors: share of the variance of validation rows that each leaves.
        knee: the smallest size after which more coordinates hardly help; None if there is none.
    """

    model: str
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    knee: int | None

    def lines(self) -> list[str]:
        """Return the curve in words, a line for each size."""
        curve = [
            f"{self.model} of latent_dim {size} leaves {error:.3%} of the variance of validation rows"
            for size, error in zip(self.sizes, self.errors, strict=True)
        ]
        if self.knee is not None:
            return [*curve, f"knee of the reconstruction error: {self.knee}; more coordinates hardly help"]
        if len(self.sizes) < LEAST:
            return [*curve, f"no knee can be seen by {len(self.sizes)} sizes: give {LEAST} or more"]
        return [*curve, "no knee: the reconstruction error falls steadily, or the last size is where it ends"]

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values, for `write_json`."""
        return asdict(self)

    def plot(self, path: Path) -> None:
        """Draw the reconstruction error over the size.

        Raises:
            UserError: if it can't be written.
        """
        draw_knee(self.model, self.sizes, self.errors, self.knee, path)


def diagnose_family(paths: Sequence[Path], place: Place = HERE) -> Family:
    """Tell the knee of the reconstruction error by two runs or more, each with its best weights.

    Args:
        paths: their directories.
        place: where the runs are opened, device and data.

    Raises:
        UserError: if one can't be opened, has no autoencoder, no validation rows, another model than the first or
            other data, or if two have one size.
    """
    model, digest = "", ""
    found: dict[int, float] = {}
    for path in paths:
        experiment = trained(path, place=place)
        gae = _autoencoder(experiment, path)
        model, digest = model or gae.config.name, digest or experiment.run.digest
        if gae.config.name != model:
            raise UserError(f"{path}: is of {gae.config.name}, not of {model} as {paths[0]}: compare runs of one model")
        if experiment.run.digest != digest:
            raise UserError(f"{path}: has other data than {paths[0]}: compare runs on the same data")
        if gae.latent_dim in found:
            raise UserError(f"{path}: has latent_dim={gae.latent_dim} as another of the runs: give one of each size")
        found[gae.latent_dim] = _left(gae, experiment)
    sizes = sorted(found)
    errors = [found[size] for size in sizes]
    return Family(model, tuple(sizes), tuple(errors), knee_of(sizes, errors))


def _autoencoder(experiment: Experiment, path: Path) -> GeneralizedAutoencoder:
    for model in experiment.models.values():
        if isinstance(model, GeneralizedAutoencoder):
            return model.cpu()
    raise UserError(f"{path}: has no autoencoder; give runs that have one, of several sizes")


@torch.no_grad()
def _left(gae: GeneralizedAutoencoder, experiment: Experiment) -> float:
    """Return the share of the variance of validation rows that the autoencoder leaves; test rows choose no size."""
    if experiment.splits.valid is None:
        raise UserError(
            f"{experiment.run.path}: has no validation rows to measure on (make_valid_loader=False); train it with them"
        )
    valid, train = (subsample(rows, HELD_OUT).float() for rows in (experiment.splits.valid, experiment.splits.train))
    with evaluating(gae):
        left = torch.cat([gae.reconstruction_error(part) for part in valid.split(BATCH)]).double()
    variance = (valid - train.mean(0)).double().flatten(1).square().sum(1)
    return float(left.sum() / variance.sum())
