"""Errors of columns and of pairs of columns in samples of mixed tables: models, a Gaussian copula, independent columns.

The tables are scikit-learn's, with their classes as words, and `customers`. All methods are fitted to the training rows
and compared with the test rows; the training rows themselves are the reference. `customers` also has the mean gap of
the bound on a row's log-probability to the truth, in nats.

    python benchmarks/mixed_tables.py [TABLE ...] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import datasets
from torch import Tensor

from twostep.core.table import TableSchema
from twostep.data import Splits, load_data, split_frame
from twostep.data.synthetic.mixed import Customers
from twostep.metrics.samples.columns import column_errors
from twostep.models import MODELS, TwoStep
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, evaluating
from twostep.models.table import build_model
from twostep.models.two_step import latent_spec
from twostep.training.fit import fit

FILE = Path(__file__).parents[1] / "docs" / "results" / "mixed_tables.json"
SAMPLES = 2000
LOADERS: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast-cancer": datasets.load_breast_cancer,
}
Array = NDArray[np.float64]


def table(name: str, seed: int) -> Splits:
    """Return a table, split by the seed."""
    if name == "customers":
        return load_data("customers", seed=seed, kwargs={"n": 5000})
    if name == "diabetes":
        return split_frame(
            datasets.load_diabetes(as_frame=True, scaled=False).frame, seed=seed, kwargs={"kinds": "auto"}
        )
    bunch = LOADERS[name](as_frame=True)
    frame = bunch.data.assign(kind=pandas.Series(bunch.target_names)[bunch.target].to_numpy())
    return split_frame(frame, seed=seed)


def independent(rows: Array, columns: TableSchema, random: np.random.Generator) -> Array:
    """Draw each column from the training rows, on its own."""
    return np.stack([random.choice(column, SAMPLES) for column in rows.T], 1)


def copula(rows: Array, columns: TableSchema, random: np.random.Generator) -> Array:
    """Draw from a Gaussian copula with the columns' empirical distributions; ties, of levels too, at random ranks."""
    n = len(rows)
    ranks = [stats.rankdata(column + 1e-9 * random.random(n)) for column in np.nan_to_num(rows, nan=-1e9).T]
    scores = stats.norm.ppf((np.stack(ranks, 1) - 0.5) / n)
    drawn = random.multivariate_normal(np.zeros(rows.shape[1]), np.corrcoef(scores.T), SAMPLES, method="eigh")
    u = stats.norm.cdf(drawn)
    ordered = np.sort(np.nan_to_num(rows, nan=-1e9), 0)
    values = np.stack(
        [ordered[(u[:, place] * n).astype(int).clip(max=n - 1), place] for place in range(rows.shape[1])], 1
    )
    numbers = [not (one.nominal or one.integral) for one in columns.modelled]
    for place in np.flatnonzero(numbers):  # between values
        values[:, place] = np.quantile(ordered[:, place], u[:, place])
    return np.where(values < -1e8, np.nan, values)


def density(splits: Splits) -> DensityEstimator:
    """Return a flow of the rows."""
    model: Any = build_model(MODELS["flow"].for_data(splits.spec, "de"), splits.spec)
    return fit(
        model, splits.train, valid=splits.valid, max_epochs=30, use_lr_scheduler=True, batch_size=128, device="cpu"
    )


def two_step(splits: Splits) -> TwoStep:
    """Return a variational autoencoder with a flow on draws of its posterior."""
    model: Any = build_model(MODELS["vae"].for_data(splits.spec, "gae"), splits.spec)
    gae: GeneralizedAutoencoder = fit(
        model, splits.train, valid=splits.valid, max_epochs=100, batch_size=128, max_bad_valid_epochs=20, device="cpu"
    )
    assert splits.valid is not None
    with evaluating(gae):
        train, valid = (gae.latents(rows[:], torch.Generator().manual_seed(0)) for rows in (splits.train, splits.valid))
    spec = latent_spec(splits.spec, gae.latent_dim)
    de: Any = MODELS["flow"].for_data(spec, "de").build(spec)
    return TwoStep(gae, fit(de, train, valid=valid, max_epochs=30, batch_size=128, use_lr_scheduler=True, device="cpu"))


def errors_of(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the figures of every method on a table."""
    splits = table(name, seed)
    columns, train, test = splits.spec.columns, splits.train[:], splits.test[:]
    assert columns is not None
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    models = {"flow": density(splits), "vae + flow": two_step(splits)}
    drawn: dict[str, Tensor] = {"training rows": train}
    for method in (independent, copula):
        drawn[method.__name__] = torch.as_tensor(method(train.double().numpy(), columns, random))
    found: dict[str, dict[str, float]] = {}
    with evaluating(*models.values()):
        drawn |= {one: model.sample(SAMPLES, torch.Generator().manual_seed(seed)) for one, model in models.items()}
        for method, rows in drawn.items():
            shape, trend = column_errors(columns, test, rows)
            found[method] = {"column_shape_error": shape.value, "pair_trend_error": trend.value}
        if name == "customers":
            truth = Customers.model_validate({}).log_prob(test).mean()
            for method, model in models.items():
                bound = torch.cat([model.log_prob(block) for block in test.split(500)]).mean()
                found[method]["nats below the truth"] = float(truth - bound)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=["customers", "diabetes", *LOADERS])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    facts: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in given.tables:
        runs = [errors_of(name, seed) for seed in range(given.seeds)]
        facts[name] = {
            method: {figure: float(np.mean([run[method][figure] for run in runs])) for figure in runs[0][method]}
            for method in runs[0]
        }
        for method, figures in facts[name].items():
            print(name, method, {figure: round(value, 4) for figure, value in figures.items()}, flush=True)
        FILE.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
