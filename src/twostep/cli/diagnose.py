"""The command `diagnose`, of data or of runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from twostep.cli.options import SEEDS, Devices, Flag, Overrides, refuse
from twostep.core.files import require_free
from twostep.core.schema import UserError

if TYPE_CHECKING:
    from twostep.analysis.diagnose import Family, RunDiagnosis
    from twostep.diagnosis import Diagnosis

logger = logging.getLogger("twostep")


def diagnose(
    *runs: Path,
    dataset: str | None = None,
    dataset_kwargs: Overrides = None,
    thorough: Flag = False,
    to: Path = Path("diagnosis"),
    seed: Annotated[int, Parameter(validator=SEEDS)] = 0,
    device: Devices = None,
    data: Path | None = None,
    force: Flag = False,
) -> int:
    """Estimate the intrinsic dimension of data, detect manifold overfitting, recommend a latent_dim.

    Of a run: check whether its autoencoder is a good chart, and how its density decays off the data. Of several runs
    of one autoencoder: find the latent_dim above which more coordinates hardly help.

    Args:
        runs: Directory of a run, to diagnose its models, or of several that differ in latent_dim.
        dataset: Name of a dataset, or path of an array, a table or a folder of images.
        dataset_kwargs: key=value for the dataset; may be repeated.
        thorough: Train a small denoiser where the verdict would be undecided.
        to: Folder for diagnosis.json and diagnosis.png.
        seed: Seed of all random draws.
        device: Where to compute for a run, if not where it was trained.
        data: Where a run's data are now: their file or folder, or the folder of datasets.
        force: Replace existing files.
    """
    if runs:
        refuse("not with a run, which has its own", dataset=dataset, dataset_kwargs=dataset_kwargs)
        refuse("only with --dataset: for a run nothing is trained", thorough=thorough)
        for run in runs:
            if not run.is_dir():
                raise UserError(f"{run}: no such directory of a run; if it names data, write --dataset {run}")
    elif dataset is not None:
        refuse("only with the directory of a run", device=device, data=data)
    else:
        raise UserError("give the directory of a run, or --dataset NAME or PATH")
    files = to / "diagnosis.json", to / "diagnosis.png"
    for file in files:
        require_free(file, force)

    from twostep.core.files import write_json

    found = (
        _of_runs(runs, seed, device, data)
        if dataset is None
        else _of_data(dataset, dataset_kwargs or [], thorough, seed)
    )
    sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    sys.stdout.flush()
    write_json(files[0], found.to_dict())
    found.plot(files[1])
    logger.info("results and figure: %s", to)
    return 0


def _of_runs(runs: Sequence[Path], seed: int, device: Devices, data: Path | None) -> RunDiagnosis | Family:
    from twostep.analysis.diagnose import diagnose_family, diagnose_run

    return diagnose_family(runs, device, data) if len(runs) > 1 else diagnose_run(runs[0], seed, device, data)


def _of_data(dataset: str, keys: Sequence[str], thorough: bool, seed: int) -> Diagnosis:
    from twostep.data.load import training_rows
    from twostep.diagnosis import diagnose as diagnose_rows
    from twostep.runs.overrides import parse_overrides

    return diagnose_rows(training_rows(dataset, parse_overrides(keys)), thorough, seed)
