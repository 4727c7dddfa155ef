"""The commands that show and make things: `sample`, `score`, `report`, `compare`, `models`, `datasets`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.cli.flags import SEEDS, Flag, require_new
from twostep.schema import UserError

BLOCK = 1000  # samples that are drawn at once, which bounds the memory that networks take

logger = logging.getLogger("twostep")


def sample(
    run: Path,
    *,
    number: Annotated[int, Parameter(name=["-n", "--number"], validator=Number(gte=1))] = 64,
    to: Path = Path("samples.png"),
    force: Flag = False,
    seed: Annotated[int, Parameter(validator=SEEDS)] = 0,
    load_best_valid_first: Flag = False,
) -> int:
    """Draw samples from a run's model.

    Args:
        run: Its directory.
        number: How many.
        to: A .png (a grid, for images), or a .npz (key `samples`) or .npy with arrays in units of the data.
        force: Replace the file if it is there.
        seed: The same seed gives the same samples.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
    """
    import torch

    from twostep.loading import load_module
    from twostep.models.base import DensityEstimator, evaluating
    from twostep.models.two_step import TwoStep
    from twostep.pictures import check_writable, write_samples

    module = load_module(run, load_best_valid_first)
    if not isinstance(module, DensityEstimator | TwoStep):
        raise UserError(f"{run}: {module.config.name} has no density to sample from: train a second step on it")
    check_writable(to, module.spec)
    require_new(force, to)
    generator = torch.Generator().manual_seed(seed)
    sizes = [min(BLOCK, number - first) for first in range(0, number, BLOCK)]
    with evaluating(module):
        samples = torch.cat([module.sample(size, generator) for size in sizes])
    write_samples(samples, module.spec, to)
    logger.info("%d samples: %s", number, to)
    return 0


def score(
    run: Path,
    data: Path,
    *,
    to: Path = Path("scores.csv"),
    force: Flag = False,
    alpha: Annotated[float, Parameter(validator=Number(gt=0, lt=1))] = 0.05,
    load_best_valid_first: Flag = False,
) -> int:
    """Say of each row of a file whether a run's model knows such data: densities, distance, p-value, verdict.

    Args:
        run: Its directory.
        data: A .npy, .npz, .csv or .parquet file, or a folder of pictures, with rows of the run's shape.
        to: A .csv file: row, log_prob, log_prob_latent, distance, p_value, verdict, as far as the model has them.
        force: Replace the file if it is there.
        alpha: Rows with p_value <= alpha are "out": this share of in-distribution rows is, by the validation rows.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
    """
    from twostep.scoring import score as score_rows
    from twostep.scoring import write_csv

    if to.suffix.lower() != ".csv" or to.is_dir():
        raise UserError(f"{to}: write to a .csv file")
    require_new(force, to)
    scored = score_rows(run, data, alpha, load_best_valid_first)
    write_csv(scored, to)
    logger.info(
        "%d of %d rows are out at %g (%s, calibrated on %d validation rows): %s",
        *(scored.out, len(scored.columns["row"]), alpha, scored.by, scored.calibrated_on, to),
    )
    return 0


def report(run: Path) -> int:
    """Write the page report.html of a run anew.

    Args:
        run: Its directory.
    """
    from twostep.report import write_report
    from twostep.runs import Run

    logger.info("report: %s", write_report(Run.open(run)))
    return 0


def compare(*runs: Path) -> int:
    """Compare what the tests of runs found: a row for each model, a column for each metric of one kind and measure.

    Args:
        runs: Their directories.
    """
    from twostep.listing import comparison

    sys.stdout.write(f"{comparison(runs)}\n")
    return 0


def models(name: str | None = None, *, dataset: str = "fashion-mnist", role: str | None = None) -> int:
    """List the models, or the keys of one with default, type and meaning.

    Args:
        name: A model.
        dataset: Whose defaults to show: a data set's name or path, or `embeddings`.
        role: `gae` or `de`; the model's first one if it is left out.
    """
    from twostep.listing import model_keys, model_list

    table = model_list() if name is None else model_keys(name, dataset, role)
    sys.stdout.write(f"{table}\n")
    return 0


def datasets(name: str | None = None, *, clear_cache: Flag = False) -> int:
    """List the data sets and where their files are looked for, or the keys of one with default, type and meaning.

    Args:
        name: A data set's name.
        clear_cache: Remove the decoded arrays that are kept between runs instead.
    """
    from twostep.listing import dataset_keys, dataset_list

    if clear_cache:
        from twostep.data import cache

        files, size = cache.clear()
        logger.info("removed %d files, %.0f MB", files, size / 1e6)
    else:
        sys.stdout.write(f"{dataset_list() if name is None else dataset_keys(name)}\n")
    return 0
