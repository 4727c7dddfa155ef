"""The command that diagnoses: `diagnose`, data or a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from twostep.cli.flags import SEEDS, Flag, Overrides, refuse, require_new
from twostep.schema import UserError

if TYPE_CHECKING:
    from twostep.diagnosing import RunDiagnosis
    from twostep.diagnosis import Diagnosis
    from twostep.family import Family

logger = logging.getLogger("twostep")


def diagnose(
    *runs: Path,
    dataset: str | None = None,
    dataset_kwargs: Overrides = None,
    quick: Flag = False,
    thorough: Flag = False,
    to: Path = Path("diagnosis"),
    force: Flag = False,
    seed: Annotated[int, Parameter(validator=SEEDS)] = 0,
) -> int:
    """Tell of which dimension data are, whether a density overfits their manifold, and which latent_dim to take.

    Of a run: whether its autoencoder is a good chart, and how its density falls off the data. Of several runs of one
    autoencoder: from which latent_dim on more coordinates hardly help.

    Args:
        runs: Directory of a run, to diagnose its models, or of several that differ in latent_dim.
        dataset: Name of a data set, or path of an array, a table or a folder of pictures.
        dataset_kwargs: key=value for the data set; may be repeated.
        quick: Train nothing (the default).
        thorough: Train small models too, in minutes: autoencoders of several latent sizes, a flow that knows the
            noise, and a denoiser where the verdict is undecided.
        to: Folder for diagnosis.json and diagnosis.png.
        force: Replace these files if they are there.
        seed: The same seed gives the same figures.
    """
    if runs:
        refuse("not beside a run, which has its own", dataset=dataset, dataset_kwargs=dataset_kwargs)
        refuse("goes with --dataset: a run's models are looked at as they are", quick=quick, thorough=thorough)
        for run in runs:
            if not run.is_dir():
                raise UserError(f"{run}: no such directory of a run; if it names data, write --dataset {run}")
    elif dataset is None:
        raise UserError("give the directory of a run, or --dataset NAME or PATH")
    if quick:
        refuse("not beside --quick", thorough=thorough)
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: is no folder: give another one by --to")
    values, figure = to / "diagnosis.json", to / "diagnosis.png"
    require_new(force, values, figure)

    from twostep.jsonfile import write_json

    found = _of_runs(runs, seed) if dataset is None else _of_data(dataset, dataset_kwargs or [], thorough, seed)
    sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    write_json(values, found.to_dict())
    found.plot(figure)
    logger.info("figures and picture: %s", to)
    return 0


def _of_runs(runs: Sequence[Path], seed: int) -> RunDiagnosis | Family:
    if len(runs) > 1:
        from twostep.family import diagnose_family

        return diagnose_family(runs)
    from twostep.diagnosing import diagnose_run

    return diagnose_run(runs[0], seed)


def _of_data(dataset: str, keys: Sequence[str], thorough: bool, seed: int) -> Diagnosis:
    from twostep.config import parse_overrides
    from twostep.data.training_rows import training_rows
    from twostep.diagnosis import diagnose as diagnose_rows

    return diagnose_rows(training_rows(dataset, parse_overrides(keys)), thorough, seed)
