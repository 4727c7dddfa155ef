"""Diagnosis of finished runs: is the autoencoder a good chart, does the density overfit a manifold, is there a knee?"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twostep.core.figures import plain
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import Rows, subsample
from twostep.data.synthetic import SYNTHETIC, distribution
from twostep.diagnosis.dimension.consensus import dimension_of
from twostep.diagnosis.dimension.knee import knee_of
from twostep.diagnosis.figures import draw_knee, draw_run
from twostep.diagnosis.model.chart import Chart, chart_of
from twostep.diagnosis.model.density import compare_with_truth, growth, off_support
from twostep.diagnosis.model.density_decay import DensityDecay, density_decay
from twostep.diagnosis.model.finding import Finding
from twostep.experiment.load import load_finished
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, evaluating
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run
from twostep.training.engine import Device
from twostep.training.progress import Progress

CHARTED = 1000  # training rows that derivatives and neighbours are taken at
HELD_OUT = 1000
PUSHED = 250
NEAR = 2000  # training rows that neighbours of pushed rows are sought among
DATA = 10_000  # training rows that samples are compared with
SAMPLES = 1000
BATCH = 500
FAMILY_ROWS = 2000  # training and validation rows that reconstruction errors are measured on
FEWEST_SIZES = 3  # that can show a knee

logger = logging.getLogger("twostep")


@dataclass(frozen=True)
class RunDiagnosis:
    """The findings about a run: about its density, and about its autoencoder, if it has them.

    `decay` is that of its density, in data space or, of a two-step run, among embeddings; `likelihood` the mean
    log-likelihood of each epoch of the density, in nats; `dataset` names the data of the run.
    """

    path: Path
    density: tuple[Finding, ...]
    chart: Chart | None
    decay: DensityDecay | None = None
    likelihood: tuple[float, ...] = ()
    dataset: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings."""
        return (*(() if self.chart is None else self.chart.findings), *self.density)

    def lines(self) -> list[str]:
        """Return all findings in words, a line for each measure."""
        return [finding.line() for finding in self.findings]

    def next_command(self) -> str:
        """Return the command that the findings recommend, as typed."""
        run = shlex.quote(str(self.path))
        if any("latent_dim" in finding.advice for finding in self.findings):
            return f"twostep diagnose --dataset {shlex.quote(self.dataset)}"
        return f"twostep report {run}"

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values, for `write_json`."""
        decay, curves = self.decay, ("scales", "off", "along")
        return {
            "run": str(self.path),
            "data": self.dataset,
            "findings": [finding.to_dict() for finding in self.findings],
            "density_decay": {} if decay is None else {name: getattr(decay, name).tolist() for name in curves},
            "likelihood": list(self.likelihood),
        }

    def plot(self, path: Path) -> None:
        """Write the figure: decoder spectrum, data by embedding, decay of the density, likelihood during training."""
        draw_run(self.chart, self.decay, self.likelihood, path, f"{plain(self.path.name)}: {plain(self.dataset)}")


def diagnose_run(path: Path, seed: int = 0, device: Device | None = None, data: Path | None = None) -> RunDiagnosis:
    """Diagnose a run by its best weights, on its training and test rows; it is opened as by `load_run`.

    Where the data are not there, its density is diagnosed at samples of its own, and its autoencoder is not.

    Raises:
        UserError: if the run can't be opened, or has too few rows.
    """
    run, evaluator, progress = load_finished(path, device=device, data=data, may_lack_data=True)
    module, splits = evaluator.module.cpu(), evaluator.splits
    if splits.spec.table is not None:
        raise UserError(
            f"{path}: a run of a table with words, dates or gaps is not diagnosed, as its rows are no vectors: "
            "diagnose its data by --dataset, and compare samples by `twostep evaluate RUN --metrics column_errors`"
        )
    gae = _autoencoder(module)
    if not len(splits.test):
        return _without_data(run, module, progress, seed)
    test = _rows(splits.test, HELD_OUT)
    decodes = gae is None or gae.decodes
    chart = (
        None
        if gae is None or gae.no_volume
        else chart_of(gae, _rows(splits.train, CHARTED), test, derive(seed, "chart"))
    )
    if run.settings.is_gae or not isinstance(module, DensityEstimator | TwoStep):
        return RunDiagnosis(path, (), chart, dataset=evaluator.run.dataset)
    density = module.de if isinstance(module, TwoStep) else module
    *_, of_density = progress.values()
    likelihood = _likelihoods(density, of_density.history)
    findings: list[Finding] = []
    with evaluating(module), torch.random.fork_rng([]):
        torch.manual_seed(derive(seed, "density"))
        rows, near = test[:PUSHED], _rows(splits.train, NEAR)
        if isinstance(module, TwoStep):
            rows, near = module.encode(rows), torch.cat([module.encode(part) for part in near.split(BATCH)])
        else:
            findings.append(_dimension(near, seed))
            rows, near = density.noise.dequantize(rows), density.noise.dequantize(near)
        decay = density_decay(density.log_prob, rows, near, derive(seed, "falls"))
        findings.append(decay.finding())
        if decodes:
            samples = module.sample(SAMPLES, torch.Generator().manual_seed(derive(seed, "samples")))
            findings.append(off_support(_rows(splits.train, DATA), test, samples))
        dataset = evaluator.run.dataset
        if dataset in SYNTHETIC and module.likelihood != "unnormalised" and not (gae and gae.no_volume):
            log_probs = torch.cat([module.log_prob(part) for part in test.split(BATCH)])
            truth = distribution(dataset, evaluator.run.dataset_kwargs)
            dim = module.gae.latent_dim if isinstance(module, TwoStep) else splits.spec.dim
            found = compare_with_truth(log_probs, test, truth, dim)
            findings += [] if found is None else [found]
    if (grown := growth(likelihood)) is not None:
        findings.append(grown)
    return RunDiagnosis(path, tuple(findings), chart, decay, likelihood, evaluator.run.dataset)


def _without_data(run: Run, module: Model | TwoStep, progress: Mapping[str, Progress], seed: int) -> RunDiagnosis:
    density = module.de if isinstance(module, TwoStep) else module
    if not isinstance(density, DensityEstimator):
        raise UserError(f"{run.path}: without its data nothing of an autoencoder can be diagnosed: give them by --data")
    *_, of_density = progress.values()
    likelihood = _likelihoods(density, of_density.history)
    with evaluating(module), torch.random.fork_rng([]):
        torch.manual_seed(derive(seed, "density"))
        generator = torch.Generator().manual_seed(derive(seed, "samples"))
        rows, near = density.sample(PUSHED, generator), density.sample(NEAR, generator)
        decay = density_decay(density.log_prob, rows, near, derive(seed, "falls"))
    grown = growth(likelihood)
    return RunDiagnosis(run.path, (decay.finding(), *([] if grown is None else [grown])), None, decay, likelihood)


def _dimension(rows: Tensor, seed: int) -> Finding:
    """Report whether a density in data space has a manifold to overfit."""
    found = dimension_of(rows, seed=derive(seed, "dimension"))
    dim = rows[0].numel()
    text = f"{found.recommended} ({found.low}-{found.high}) of {dim}"
    advice = f"a density in R^{dim} overfits a manifold: an autoencoder of latent_dim={found.high}, then a density"
    numbers = {"dimension": float(found.recommended), "low": float(found.low), "high": float(found.high)}
    return Finding("dimension of the data", text, advice if found.high < dim else "", numbers)


def _likelihoods(density: DensityEstimator, history: Sequence[Mapping[str, Mapping[str, float]]]) -> tuple[float, ...]:
    """Return the mean log-likelihood of each epoch: of validation rows if there are any, up to a constant."""
    if density.likelihood not in ("exact", "bound"):
        return ()
    for kind, name, sign in (("valid", "log_likelihood", 1), ("valid", "loss", -1), ("losses", "loss", -1)):
        if history and all(name in epoch[kind] for epoch in history):
            return tuple(sign * epoch[kind][name] for epoch in history)
    return ()


def _rows(data: Rows, most: int) -> Tensor:
    return subsample(data, most).float()


@dataclass(frozen=True)
class Family:
    """The reconstruction errors of an autoencoder in runs that differ in `latent_dim`, in ascending order.

    An error is the unexplained share of the variance of validation rows. After the `knee`, if there is one, more
    coordinates hardly help.
    """

    model: str
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    knee: int | None
    dataset: str = ""

    def lines(self) -> list[str]:
        """Return the curve in words, a line for each size."""
        curve = [
            f"{self.model} with latent_dim={size}: {error:.3%} of the variance of validation rows is unexplained"
            for size, error in zip(self.sizes, self.errors, strict=True)
        ]
        if self.knee is not None:
            return [*curve, f"knee of the reconstruction error: {self.knee}; more coordinates hardly help"]
        if len(self.sizes) < FEWEST_SIZES:
            return [*curve, f"no knee: {len(self.sizes)} sizes show none; give {FEWEST_SIZES} or more"]
        return [*curve, "no knee: the reconstruction error falls steadily, or the last size is where it ends"]

    def next_command(self) -> str:
        """Return the command that the curve recommends, as typed: the size at the knee, or one more to find it."""
        data = shlex.quote(self.dataset)
        size = 2 * self.sizes[-1] if self.knee is None else self.knee
        return f"twostep train --dataset {data} --gae-model {self.model} --de-model flow --gae-config latent_dim={size}"

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values, for `write_json`."""
        return asdict(self)

    def plot(self, path: Path) -> None:
        """Draw the reconstruction error over the size."""
        draw_knee(f"{self.model}, {self.dataset}", self.sizes, self.errors, self.knee, path)


def diagnose_family(paths: Sequence[Path], device: Device | None = None, data: Path | None = None) -> Family:
    """Find the knee of the reconstruction error of two runs or more, each with its best weights.

    It is measured on validation rows, as a share of their variance: test rows choose no size.

    Raises:
        UserError: if one can't be opened, has no autoencoder, no validation rows, another model than the first or
            other data, or if two have one size.
    """
    model, digest, dataset = "", "", ""
    found: dict[int, float] = {}
    for path in paths:
        run, evaluator, _ = load_finished(path, device=device, data=data)
        gae, splits = _autoencoder(evaluator.module.cpu()), evaluator.splits
        if gae is None:
            raise UserError(f"{path}: has no autoencoder; give runs that have one, of several sizes")
        name = run.settings.first.name
        model, digest, dataset = model or name, digest or run.digest, run.settings.run.dataset
        if name != model:
            raise UserError(f"{path}: is of {name}, not of {model} as {paths[0]}: compare runs of one model")
        if run.digest != digest:
            raise UserError(f"{path}: has other data than {paths[0]}: compare runs on the same data")
        if gae.latent_dim in found:
            raise UserError(f"{path}: has latent_dim={gae.latent_dim} as another of the runs: give one of each size")
        if splits.valid is None:
            raise UserError(
                f"{path}: has no validation rows to measure on (make_valid_loader=False); train it with them"
            )
        valid, train = (_rows(rows, FAMILY_ROWS) for rows in (splits.valid, splits.train))
        with evaluating(gae):
            error = torch.cat([gae.reconstruction_error(part) for part in valid.split(BATCH)]).double()
        variance = (valid - train.mean(0)).double().flatten(1).square().sum(1)
        found[gae.latent_dim] = float(error.sum() / variance.sum())
    sizes = sorted(found)
    errors = [found[size] for size in sizes]
    return Family(model, tuple(sizes), tuple(errors), knee_of(sizes, errors), dataset)


def _autoencoder(module: nn.Module) -> GeneralizedAutoencoder | None:
    model = module.gae if isinstance(module, TwoStep) else module
    return model if isinstance(model, GeneralizedAutoencoder) else None
