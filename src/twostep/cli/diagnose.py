"""The command `diagnose`, of data or of runs."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twostep.cli import flags
from twostep.core.files import require_free
from twostep.core.schema import UserError

logger = logging.getLogger("twostep")


def diagnose(
    *runs: Path,
    dataset: flags.Dataset = None,
    dataset_kwargs: flags.Overrides = None,
    thorough: flags.Flag = False,
    to: Path = Path("diagnosis"),
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
        runs: Directory of a run, to diagnose its models, or of several that differ in latent_dim.
        dataset_kwargs: key=value for the dataset; may be repeated.
        thorough: Train a small denoiser where the verdict would be undecided.
        to: Folder for diagnosis.json and diagnosis.png.
    """
    if runs:
        flags.refuse(
            "not with a run, which has its own", dataset=dataset, dataset_kwargs=dataset_kwargs, **asdict(table)
        )
        flags.refuse("only with --dataset: for a run nothing is trained", thorough=thorough)
        for run in runs:
            if not run.is_dir():
                raise UserError(f"{run}: no such directory of a run; if it names data, write --dataset {run}")
    elif dataset is not None:
        flags.refuse("only with the directory of a run", device=device, data=data)
    else:
        raise UserError("give the directory of a run, or --dataset NAME or PATH")
    files = to / "diagnosis.json", to / "diagnosis.png"
    for file in files:
        require_free(file, force)

    from twostep.analysis.diagnose import diagnose_family, diagnose_run
    from twostep.core.files import write_json
    from twostep.data.load import training_rows
    from twostep.diagnosis import diagnose as diagnose_rows
    from twostep.runs.overrides import parse_overrides

    if dataset is not None:
        keys: dict[str, Any] = {"dataset_kwargs": parse_overrides(dataset_kwargs or [])}
        table.add_to(keys)
        found = diagnose_rows(training_rows(dataset, keys["dataset_kwargs"]), thorough, seed)
    elif len(runs) > 1:
        found = diagnose_family(runs, device, data)
    else:
        found = diagnose_run(*runs, seed=seed, device=device, data=data)
    sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    sys.stdout.flush()
    write_json(files[0], found.to_dict())
    found.plot(files[1])
    logger.info("results and figure: %s", to)
    return 0
