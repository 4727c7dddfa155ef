"""The command that diagnoses: `diagnose`, data or a run."""

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
    from twostep.analysis.diagnose import RunDiagnosis
    from twostep.analysis.family import Family
    from twostep.diagnosis import Diagnosis

logger = logging.getLogger("twostep")


def diagnose(
    *runs: Path,
    dataset: str | None = None,
    dataset_kwargs: Overrides = None,
    quick: Flag = False,
    thorough: Flag = False,
    to: Path = Path("diagnosis"),
    seed: Annotated[int, Parameter(validator=SEEDS)] = 0,
    device: Devices = None,
    data: Path | None = None,
    force: Flag = False,
) -> int:
    """Tell of which dimension data are, whether a density overfits their manifold, and which latent_dim to take.

    Of a run: whether its autoencoder is a good chart, and how its density falls off the data. Of several runs of one
    autoencoder: from which latent_dim on more coordinates hardly help.

    Args:
        runs: Directory of a run, to diagnose its models, or of several that differ in latent_dim.
        dataset: Name of a data set, or path of an array, a table or a folder of pictures.
        dataset_kwargs: key=value for the data set; may be repeated.
        quick: Train nothing (the default).
        thorough: Train a small denoiser, in seconds, where the verdict is undecided otherwise.
        to: Folder for diagnosis.json and diagnosis.png.
        seed: The same seed gives the same figures.
        device: Where to compute of a run, if not where it was trained.
        data: Where a run's data are now: their file or folder, or the folder of data sets.
        force: Replace files that are there.
    """
    if runs:
        refuse("not beside a run, which has its own", dataset=dataset, dataset_kwargs=dataset_kwargs)
        refuse("goes with --dataset: a run's models are looked at as they are", quick=quick, thorough=thorough)
        for run in runs:
            if not run.is_dir():
                raise UserError(f"{run}: no such directory of a run; if it names data, write --dataset {run}")
    elif dataset is not None:
        refuse("goes with the directory of a run", device=device, data=data)
    else:
        raise UserError("give the directory of a run, or --dataset NAME or PATH")
    if quick:
        refuse("not beside --quick", thorough=thorough)
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
    logger.info("figures and picture: %s", to)
    return 0


def _of_runs(runs: Sequence[Path], seed: int, device: Devices, data: Path | None) -> RunDiagnosis | Family:
    from twostep.experiment.prepare import Place

    if len(runs) > 1:
        from twostep.analysis.family import diagnose_family

        return diagnose_family(runs, Place(device, data))
    from twostep.analysis.diagnose import diagnose_run

    return diagnose_run(runs[0], seed, Place(device, data))


def _of_data(dataset: str, keys: Sequence[str], thorough: bool, seed: int) -> Diagnosis:
    from twostep.data.load import training_rows
    from twostep.diagnosis import diagnose as diagnose_rows
    from twostep.runs.config import parse_overrides

    return diagnose_rows(training_rows(dataset, parse_overrides(keys)), thorough, seed)
