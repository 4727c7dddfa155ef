"""The command that diagnoses: `diagnose`, data or a run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from twostep.cli.flags import Flag, Overrides, refuse
from twostep.schema import UserError

logger = logging.getLogger("twostep")


def diagnose(
    run: Path | None = None,
    *,
    dataset: str | None = None,
    dataset_kwargs: Overrides = None,
    quick: Flag = False,
    thorough: Flag = False,
    to: Path = Path("diagnosis"),
    seed: int = 0,
) -> int:
    """Tell of which dimension data are, whether a density overfits their manifold, and which latent_dim to take.

    Args:
        run: Directory of a run, to diagnose its models.
        dataset: Name of a data set, or path of an array, a table (.csv, .parquet) or a folder of pictures.
        dataset_kwargs: key=value for the data set; may be repeated.
        quick: Train nothing (the default).
        thorough: Where that leaves the verdict undecided, train a small denoiser, in a minute or less.
        to: Folder for diagnosis.json and diagnosis.png.
        seed: The same seed gives the same figures.
    """
    if run is not None:
        refuse("not beside a run, which has its own", dataset=dataset, dataset_kwargs=dataset_kwargs)
        raise UserError(f"{run}: runs can't be diagnosed yet: give --dataset NAME or PATH")
    if dataset is None:
        raise UserError("give --dataset NAME or PATH")
    if quick:
        refuse("not beside --quick", thorough=thorough)
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: is no folder: give another one by --to")

    from twostep.config import parse_overrides
    from twostep.data.training_rows import training_rows
    from twostep.diagnosis import diagnose as diagnose_rows
    from twostep.jsonfile import write_json

    found = diagnose_rows(training_rows(dataset, parse_overrides(dataset_kwargs or [])), thorough, seed)
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{to}: can't be made ({error.strerror or error})") from None
    found.plot(to / "diagnosis.png")
    write_json(to / "diagnosis.json", found.to_dict())
    sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    logger.info("figures and picture: %s", to)
    return 0
