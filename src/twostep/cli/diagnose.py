"""The command `diagnose`, of data or of runs."""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict
from pathlib import Path

from twostep.cli import early, flags
from twostep.cli.output import show
from twostep.core.columns import require_ending, write_columns
from twostep.core.files import require_free
from twostep.core.schema import UserError

logger = logging.getLogger("twostep")


def diagnose(
    *runs: Path,
    dataset: flags.Dataset = None,
    thorough: flags.Flag = False,
    standardize: bool | None = None,
    per_point: Path | None = None,
    to: Path | None = None,
    seed: flags.Seed = 0,
    device: flags.Device = None,
    data: flags.DataPath = None,
    force: flags.Force = False,
    table: flags.Table = flags.NO_TABLE,
) -> int:
    """Estimate the intrinsic dimension of data, detect manifold overfitting, recommend a latent_dim.

    Of a run: check whether its autoencoder is a good chart, and how its density decays off the data. Of several runs
    of one autoencoder: find the latent_dim above which more coordinates hardly help.

    Args:
        runs: Directory of a run, to diagnose its models, or of several that differ in latent_dim; or data.
        thorough: Train a small denoiser where the verdict would be undecided.
        standardize: Divide columns of a table by their standard deviations; by default where their units differ.
        per_point: A .csv, .parquet or .json file for the local dimension of each row with its standard error.
        to: Folder for diagnosis.json and diagnosis.png; without it, diagnosis, or diagnosis-2, ... if that has one; of
            a run, in its directory, where its page finds them.
    """
    if len(runs) == 1 and dataset is None and not runs[0].is_dir():
        runs, dataset = (), str(runs[0])
    if runs:
        flags.refuse("not with a run, which has its own", dataset=dataset, **asdict(table))
        flags.refuse("only with --dataset: for a run nothing is trained", thorough=thorough)
        flags.refuse("only with --dataset", standardize=standardize, per_point=per_point)
        for run in runs:
            if not run.is_dir():
                raise UserError(f"{run}: no such directory of a run; if it names data, write --dataset {run}")
    elif dataset is not None:
        early.check_dataset(dataset)
        flags.refuse("only with the directory of a run", device=device, data=data)
    else:
        raise UserError("give the directory of a run, or --dataset NAME or PATH")
    folder = to or _free_folder(runs[0] if len(runs) == 1 else Path())
    files = folder / "diagnosis.json", folder / "diagnosis.png"
    if per_point is not None:
        require_ending(per_point)
        require_free(per_point, force, "--per-point")
    for file in files:
        require_free(file, force)

    from twostep.analysis.diagnose import diagnose_family, diagnose_run
    from twostep.core.files import write_json
    from twostep.data.load import training_features
    from twostep.diagnosis import LocalDimension, local_dimension
    from twostep.diagnosis import diagnose as diagnose_rows
    from twostep.diagnosis.units import standardized

    local: LocalDimension | None = None
    if dataset is not None:
        rows, mixed = training_features(dataset, table.keys, *([] if per_point is None else [None]))
        found = diagnose_rows(rows, thorough, seed, standardize=standardize, name=dataset, mixed=mixed)
        if per_point is not None:
            local = local_dimension(standardized(rows) if found.standardized else rows, seed)
        following = found.next_command(dataset, *table.typed())
    elif len(runs) > 1:
        found = diagnose_family(runs, device, data)
        following = found.next_command()
    else:
        found = diagnose_run(*runs, seed=seed, device=device, data=data)
        following = found.next_command()
    show("\n".join([*found.lines(), f"next: {following}"]), {**found.to_dict(), "next": following})
    write_json(files[0], found.to_dict())
    found.plot(files[1])
    logger.info("results and figure: %s", folder)
    if per_point is not None and local is not None:
        write_columns(local.columns(), per_point)
        logger.info("local dimension of %s rows: %s", f"{len(local.values):,}", per_point)
    return 0


def _free_folder(parent: Path) -> Path:
    """Return the first of diagnosis, diagnosis-2, ... in a folder that holds no answer."""
    names = (f"diagnosis-{number}" if number > 1 else "diagnosis" for number in itertools.count(1))
    return next(folder for folder in map(parent.joinpath, names) if not (folder / "diagnosis.json").exists())
