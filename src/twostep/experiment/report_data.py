"""What the page of a run shows of its data and models, kept in the run as `report.npz`: the page needs neither again.

samples, nearest (n, *S)      samples and the training row nearest to each, with `sample_distances` (n,)
real (n, *S)                  held-out rows, with `real_distances` (n,) to their nearest training rows
rows, reconstructions (m, *S) held-out rows from best to worst, with `unexplained` (m,): error / mean variance
shares (N,)                   that share of every held-out row that was measured
latent (N, 2), latent_samples, labels (N,)     embeddings and samples on the two principal axes of embeddings
density_train, density_test (N,)              log-densities, in nats
table_real, table_samples (N, C), columns (C,)    values of the columns whose distributions differ most
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.files import atomic_write
from twostep.core.moments import Moments, principal_axes
from twostep.core.schema import UserError, reason
from twostep.data.base import Splits
from twostep.data.batches import subsample
from twostep.metrics.samples.columns import kolmogorov_smirnov
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, Sampler, tensor_of
from twostep.models.two_step import TwoStep

NAME = "report.npz"
SHOWN, RECONSTRUCTED = 32, 12
MEASURED = 1000  # held-out rows
SCORED = 500  # rows of each split whose densities are computed
DRAWN = 1000  # samples of vectors
SEARCHED = 20_000  # training rows among which the nearest is sought
COLUMNS = 24
BATCH = 250

Arrays = dict[str, NDArray[Any]]


def collect(module: Model | TwoStep, splits: Splits, generator: torch.Generator) -> Arrays:
    """Return the arrays of the page, as far as the model and the data have them; the model is in eval mode."""
    device = tensor_of(module).device
    tests = subsample(splits.test, MEASURED)
    test = tests.to(device, torch.get_default_dtype())
    gae = module.gae if isinstance(module, TwoStep) else module
    gae = gae if isinstance(gae, GeneralizedAutoencoder) else None
    decodes = gae is None or gae.decodes
    found: dict[str, Tensor] = {}
    if gae is not None and decodes:
        found |= _reconstructions(gae, test)
    samples = None
    if decodes and isinstance(module, Sampler):
        samples = module.sample(SHOWN if splits.spec.is_image else DRAWN, generator)
        found |= _beside_nearest(samples, test, splits)
    if gae is not None and gae.latent_dim > 1:
        found |= _latent(gae, test, samples if isinstance(module, TwoStep) else None)
        labels = splits.test_labels
        if labels is not None:
            found["labels"] = subsample(labels, MEASURED)
    if isinstance(module, DensityEstimator | TwoStep):
        log_prob = module.log_prob
        if isinstance(module, TwoStep) and module.no_volume:
            log_prob = module.log_prob_latent
        few = {"train": subsample(splits.train, SCORED).to(test), "test": test[:: -(-len(test) // SCORED)]}
        with torch.random.fork_rng([]):
            torch.manual_seed(generator.initial_seed())  # of dequantisation, and of bounds
            for name, rows in few.items():
                found[f"density_{name}"] = torch.cat([log_prob(part) for part in rows.split(BATCH)])
    arrays = {name: values.detach().cpu().numpy() for name, values in found.items()}
    if samples is not None and not splits.spec.is_image:
        arrays |= _columns(tests.flatten(1).numpy(), samples.detach().cpu().flatten(1).numpy())
    return arrays


def write(path: Path, arrays: Arrays) -> None:
    """Write the arrays into a run's directory."""
    with atomic_write(path / NAME) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: _small(values) for name, values in arrays.items()})  # type: ignore[arg-type]


def read(path: Path) -> Arrays:
    """Read what `write` wrote; nothing if it has not.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        with np.load(path / NAME, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{path / NAME}: damaged ({reason(error)})") from None


def _reconstructions(gae: GeneralizedAutoencoder, test: Tensor) -> dict[str, Tensor]:
    """Return rows from best to worst, evenly spaced among all, and the share of the variance left in every row."""
    decoded = torch.cat([gae.decode(gae.encode(part)) for part in test.split(BATCH)])
    errors = torch.cat([gae.reconstruction_error(part) for part in test.split(BATCH)])
    space = test if gae.columns is None else gae.transform(test)  # in which the error is measured
    variance = (space - space.mean(0)).square().flatten(1).sum(1).mean().clamp_min(1e-30)
    shares = errors / variance
    order = shares.argsort()
    shown = order[torch.linspace(0, len(order) - 1, min(RECONSTRUCTED, len(order))).round().long().to(order.device)]
    return {"rows": test[shown], "reconstructions": decoded[shown], "unexplained": shares[shown], "shares": shares}


def _beside_nearest(samples: Tensor, test: Tensor, splits: Splits) -> dict[str, Tensor]:
    """Return samples and the training row nearest to each, and held-out rows; vectors are standardised before."""
    shown, real = samples[:SHOWN].cpu(), subsample(test, SHOWN).cpu()
    train = subsample(splits.train, SEARCHED).to(real.dtype)
    if splits.spec.is_image:
        centre, scale = torch.zeros(()), torch.ones(())
    else:
        centre = train.nanmean(0)
        scale = (train - centre).square().nanmean(0).sqrt().clamp_min(1e-12)
    points = ((train - centre) / scale).nan_to_num().flatten(1)
    found = {"samples": shown, "real": real}
    for name, rows in (("sample", shown), ("real", real)):
        scaled = ((rows - centre) / scale).nan_to_num().flatten(1)
        distances, nearest = torch.cdist(scaled, points).min(1)
        found[f"{name}_distances"] = distances
        if name == "sample":
            found["nearest"] = train[nearest]
    return found


def _latent(gae: GeneralizedAutoencoder, test: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
    """Return embeddings, and those of samples, on the two principal axes of the embeddings."""
    z = torch.cat([gae.encode(part) for part in test.split(BATCH)]).double().cpu()
    moments = Moments.of(z)
    variances, axes = principal_axes(moments.covariance)
    found = {"latent": (z - moments.mean) @ axes[:, :2], "latent_variance": variances[:2] / variances.sum()}
    if samples is not None:
        drawn = torch.cat([gae.encode(part) for part in samples.split(BATCH)]).double().cpu()
        found["latent_samples"] = (drawn - moments.mean) @ axes[:, :2]
    return found


def _columns(real: NDArray[Any], samples: NDArray[Any]) -> Arrays:
    """Return the columns whose distributions differ most, by the distance of their distribution functions."""
    distances = np.array([kolmogorov_smirnov(one, other) for one, other in zip(real.T, samples.T, strict=True)])
    shown = np.sort(np.argsort(-distances, kind="stable")[:COLUMNS])
    return {
        "columns": shown,
        "column_distances": distances[shown],
        "table_real": real[:, shown],
        "table_samples": samples[:, shown],
    }


def _small(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32) if values.dtype.kind == "f" else values
