"""Diagnosis of a finished run: is its autoencoder a good chart, does its density overfit a manifold?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from twostep.core.seeds import derive
from twostep.data.batches import Rows, subsample
from twostep.data.synthetic import SYNTHETIC, distribution
from twostep.diagnosis.dimension.consensus import dimension_of
from twostep.diagnosis.figures import draw_run
from twostep.diagnosis.model.chart import Chart, chart_of
from twostep.diagnosis.model.density_decay import DensityDecay, density_decay
from twostep.diagnosis.model.finding import Finding
from twostep.diagnosis.model.off_support import growth, off_support
from twostep.diagnosis.model.true_distribution import compare_with_truth
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import HERE, Place, trained
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, evaluating
from twostep.models.two_step import TwoStep

CHARTED = 1000  # training rows that derivatives and neighbours are taken at
HELD_OUT = 1000
PUSHED = 250
NEAR = 2000  # training rows that neighbours of pushed rows are sought among
DATA = 10_000  # training rows that samples are compared with
SAMPLES = 1000
BATCH = 500

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class RunDiagnosis:
    """What is said of a run.

    Args:
        path: its directory.
        density: what is said of its density.
        chart: of its autoencoder; None where it has none.
        decay: of its density, in data space or, of a two-step run, among embeddings; None where it has none.
        likelihood: mean log-likelihood of each epoch of the density, in nats.
    """

    path: Path
    density: tuple[Finding, ...]
    chart: Chart | None
    decay: DensityDecay | None
    likelihood: tuple[float, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is said."""
        return (*(() if self.chart is None else self.chart.findings), *self.density)

    def lines(self) -> list[str]:
        """Return all in words, a line for each measure."""
        return [finding.line() for finding in self.findings]

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values, for `write_json`."""
        curve = {} if self.decay is None else _curve(self.decay)
        return {
            "run": str(self.path),
            "findings": [finding.to_dict() for finding in self.findings],
            "density_decay": curve,
            "likelihood": list(self.likelihood),
        }

    def plot(self, path: Path) -> None:
        """Write the picture: spectrum of the decoder, data by embedding, decay of the density, likelihood in training.

        Raises:
            UserError: if it can't be written.
        """
        draw_run(self.chart, self.decay, self.likelihood, path)


def diagnose_run(path: Path, seed: int = 0, place: Place = HERE) -> RunDiagnosis:
    """Diagnose a run by its best weights, on its training and test rows.

    Args:
        path: its directory.
        seed: of what is drawn.
        place: where the run is opened, device and data.

    Raises:
        UserError: if the run can't be opened, or has too few rows.
    """
    experiment = trained(path, place=place)
    models = {part: model.cpu() for part, model in experiment.models.items()}
    gae = next((model for model in models.values() if isinstance(model, GeneralizedAutoencoder)), None)
    train, test = _rows(experiment.splits.train, CHARTED), _rows(experiment.splits.test, HELD_OUT)
    chart = None if gae is None else chart_of(gae, train, test, derive(seed, "chart"))
    part = "de" if "de" in models else "model"
    if experiment.settings.is_gae or not isinstance(density := models[part], DensityEstimator):
        return RunDiagnosis(path, (), chart, None, ())
    likelihood = _likelihoods(density, experiment.trainers[part].history)
    with evaluating(*models.values()), torch.random.fork_rng([]):
        torch.manual_seed(derive(seed, "density"))
        found, decay = _density(experiment, density, seed)
    grown = growth(likelihood)
    return RunDiagnosis(path, (*found, *([] if grown is None else [grown])), chart, decay, likelihood)


def _density(experiment: Experiment, density: DensityEstimator, seed: int) -> tuple[list[Finding], DensityDecay]:
    """Judge a density, alone or on embeddings, in eval mode and without gradients."""
    module, splits = cast(DensityEstimator | TwoStep, experiment.module), experiment.splits
    test = _rows(splits.test, HELD_OUT)
    findings: list[Finding] = []
    rows, near = test[:PUSHED], _rows(splits.train, NEAR)
    if isinstance(module, TwoStep):
        rows, near = module.encode(rows), torch.cat([module.encode(part) for part in near.split(BATCH)])
    else:
        findings.append(_dimension(near, seed))
        rows, near = density.noise.dequantize(rows), density.noise.dequantize(near)
    decay = density_decay(density.log_prob, rows, near, derive(seed, "falls"))
    samples = module.sample(SAMPLES, torch.Generator().manual_seed(derive(seed, "samples")))
    off, _ = off_support(_rows(splits.train, DATA), test, samples)
    findings += [decay.finding(), off, *_known(experiment, module, test)]
    return findings, decay


def _dimension(rows: Tensor, seed: int) -> Finding:
    """Judge whether a density in data space has a manifold to overfit."""
    found = dimension_of(rows, seed=derive(seed, "dimension"))
    dim = rows[0].numel()
    told = f"{found.recommended} ({found.low}-{found.high}) of {dim}"
    advice = f"a density in R^{dim} overfits a manifold: an autoencoder of latent_dim={found.high}, then a density"
    numbers = {"dimension": float(found.recommended), "low": float(found.low), "high": float(found.high)}
    return Finding("dimension of the data", told, advice if found.high < dim else "", numbers)


def _known(experiment: Experiment, module: DensityEstimator | TwoStep, test: Tensor) -> list[Finding]:
    """Judge a density by the law of its data, where that is known and the density has a scale."""
    run = experiment.settings.run
    if run.dataset not in SYNTHETIC or module.likelihood == "unnormalised":
        return []
    log_probs = torch.cat([module.log_prob(part) for part in test.split(BATCH)])
    dim = module.gae.latent_dim if isinstance(module, TwoStep) else module.spec.dim
    found = compare_with_truth(log_probs, test, distribution(run.dataset, run.dataset_kwargs), dim)
    return [] if found is None else [found]


def _likelihoods(density: Model, history: Sequence[Mapping[str, Mapping[str, float]]]) -> tuple[float, ...]:
    """Return the mean log-likelihood of each epoch: of validation rows if there are any, up to a constant."""
    if not isinstance(density, DensityEstimator) or density.likelihood not in ("exact", "bound"):
        return ()
    for kind, name, sign in (("valid", "log_likelihood", 1), ("valid", "loss", -1), ("losses", "loss", -1)):
        if history and all(name in epoch[kind] for epoch in history):
            return tuple(sign * epoch[kind][name] for epoch in history)
    return ()


def _rows(data: Rows, most: int) -> Tensor:
    return subsample(data, most).float()


def _curve(decay: DensityDecay) -> dict[str, list[float]]:
    return {"scales": decay.scales.tolist(), "off": decay.off.tolist(), "along": decay.along.tolist()}
