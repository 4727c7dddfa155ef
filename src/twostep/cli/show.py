"""The commands that use finished runs and list what there is: `sample`, `score`, `report`, `compare`, `runs`, ..."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.cli import early, flags
from twostep.cli.names import known
from twostep.cli.output import Format, plain_values, show, table
from twostep.core.columns import require_ending, write_columns
from twostep.core.files import require_free, to_json
from twostep.core.schema import DataSpec, UserError, nearest
from twostep.runs.summary import RunSummary, require_run, runs_below

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDINGS, SHARED, ALL = "embeddings", "shared", "all"
AT_ONCE = 1000  # samples, to bound the memory that a network needs

logger = logging.getLogger("twostep")


def sample(
    run: flags.RunPath,
    *,
    number: Annotated[int, Parameter(name=["-n", "--number"], validator=Number(gte=1))] = 64,
    to: Path = Path("samples.png"),
    label: flags.Names = None,
    guidance: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    seed: flags.Seed = 0,
    load_best_valid_first: flags.BestFirst = False,
    device: Annotated[flags.Device, Parameter(help="Where to compute; default: the CPU.")] = None,
    force: flags.Force = False,
) -> int:
    """Draw samples from a run's model.

    Args:
        number: Number of samples.
        label: Labels that samples have, an equal share of each in this order, or `all`; of a model with
            condition=label. Default: labels as frequent as in training.
        guidance: Guidance of samples given labels, instead of the model's key (fm).
        to: A .png (a grid of images), a .csv or .parquet (a table), or a .npz (key `samples`) or .npy with arrays in
            units of the data.
    """
    require_run(run)
    require_free(to, force)

    import torch

    from twostep.core.figures import check_writable, write_samples
    from twostep.data.table.write import check_table, is_table_path, write_table
    from twostep.experiment.load import load_module
    from twostep.models.base import Sampler, evaluating
    from twostep.runs.directory import Run
    from twostep.training.engine import Engine

    module = load_module(run, load_best_valid_first)
    if not isinstance(module, Sampler):
        raise UserError(f"{run}: its model does not sample: train a density on its embeddings")
    spec = Run.open(run).spec
    y = _labels(module, label, spec, number)
    if guidance is not None:
        _guide(module, guidance)
    as_table = is_table_path(to)
    (check_table if as_table else check_writable)(to, spec)
    place = Engine(device or "cpu").device
    module.to(place)
    with evaluating(module):
        generator = torch.Generator(place).manual_seed(seed)
        sizes = [min(AT_ONCE, number - begin) for begin in range(0, number, AT_ONCE)]
        given = [()] * len(sizes) if y is None else [(part,) for part in y.split(AT_ONCE)]
        drawn = [module.sample(size, generator, *one).cpu() for size, one in zip(sizes, given, strict=True)]
        samples = torch.cat(drawn)
    (write_table if as_table else write_samples)(samples, spec, to)
    logger.info("%d samples: %s", number, to)
    show(None, {"samples": number, "file": to})
    return 0


def _labels(module: Any, names: Sequence[str] | None, spec: DataSpec, number: int) -> Tensor | None:
    """Return the number of the label of each sample, `(number,)`; None: none are asked for."""
    import torch

    if not names:
        return None
    if not getattr(getattr(module, "de", module), "labels", 0):
        raise UserError(f"--label {names[0]}: the run's density is not conditioned: train one with condition=label")
    wanted = spec.labels if tuple(names) == (ALL,) and ALL not in spec.labels else names
    for name in wanted:
        if name not in spec.labels:
            few = ", ".join(spec.labels[:20]) + ", ..." * (len(spec.labels) > 20)
            raise UserError(f"--label {name}: no such label of {spec.name}{nearest(name, spec.labels)}; it has {few}")
    numbers = torch.tensor([spec.labels.index(name) for name in wanted])
    return numbers[torch.arange(number) * len(numbers) // number]


def _guide(module: Any, guidance: float) -> None:
    density = getattr(module, "de", module)
    if not getattr(density, "labels", 0) or not hasattr(density, "guidance"):
        raise UserError("--guidance: only of fm with condition=label")
    density.guidance = guidance


def score(
    run: flags.RunPath,
    rows: Path,
    *,
    to: Path = Path("scores.csv"),
    alpha: Annotated[float, Parameter(validator=Number(gt=0, lt=1))] = 0.05,
    load_best_valid_first: flags.BestFirst = False,
    device: flags.Device = None,
    data: flags.DataPath = None,
    local_dimension: flags.Flag = False,
    force: flags.Force = False,
) -> int:
    """Score the rows of a file by a run's model: densities, distances, p-value, in- or out-of-distribution.

    Args:
        rows: A .npy, .npz, .csv or .parquet file, or a folder of images, with rows of the run's shape.
        to: A .csv, .parquet or .json file: row, name (of an image's file, or in the index column), log_prob,
            log_prob_latent, distance, relative_distance, two_part, nearest_training_distance, p_value, q_value,
            verdict, as far as the model has them and the run's validation rows suffice.
        alpha: Rows with p_value <= alpha are "out": so is this share of in-distribution rows.
        local_dimension: Add the intrinsic dimension of the training data around the nearest training row.
    """
    require_ending(to)
    _check_paths(run, rows, to, force)

    from twostep.analysis import score as scoring

    scored = scoring.score(run, rows, alpha, load_best_valid_first, device, data, local_dimension)
    number, by = len(scored.columns["row"]), scored.calibrator
    if scored.out is None or by is None:
        logger.info("%d rows scored: %s", number, to)
    else:
        logger.info(
            "%d of %d rows are out at %g (%s, calibrated on %d validation rows, smallest p-value %.3g): %s",
            *(scored.out, number, alpha, by.headline, by.calibrated_on, by.smallest, to),
        )
    write_columns(scored.columns, to)
    show(None, {"rows": number, "out": scored.out, "file": to})
    return 0


def encode(
    run: flags.RunPath,
    rows: Path,
    *,
    to: Path = Path("embeddings.npy"),
    load_best_valid_first: flags.BestFirst = False,
    device: flags.Device = None,
    force: flags.Force = False,
) -> int:
    """Encode the rows of a file by a run's encoder.

    Args:
        rows: A .npy, .npz, .csv or .parquet file, or a folder of images, with rows of the run's shape.
        to: A .npy file, an array of one row for each; or a .csv, .parquet or .json file with columns z1, z2, ...
    """
    if to.suffix.lower() != ".npy":
        require_ending(to, "a .npy, ")
    _check_paths(run, rows, to, force)

    from twostep.analysis import encode as encoding

    z = encoding.encode(run, rows, load_best_valid_first, device)
    encoding.write_embeddings(z, to)
    logger.info("%d rows encoded in %d coordinates: %s", *z.shape, to)
    show(None, {"rows": len(z), "latent_dim": z.shape[1], "file": to})
    return 0


def _check_paths(run: Path, rows: Path, to: Path, force: bool) -> None:
    """Refuse a path that can't be written, a directory that is no run, and rows that are not there."""
    require_free(to, force)
    require_run(run)
    if not rows.exists():
        raise UserError(f"{rows}: no such file or folder")


def report(
    *runs: Path,
    to: Path | None = None,
    device: flags.Device = None,
    data: flags.DataPath = None,
    force: flags.Force = False,
) -> int:
    """Write the page report.html of a run again, or a page that compares several runs.

    Args:
        runs: Directory of a run, or of several.
        to: Page of a comparison; default: comparison.html.
    """
    if not runs:
        raise UserError("give the directory of a run, or of several: twostep report RUN; `twostep runs` lists them")
    for run in runs:
        require_run(run)
    page = to or Path("comparison.html")
    if len(runs) == 1:
        flags.refuse("for a comparison of runs: the page of one lies in its directory", to=to)
    else:
        require_free(page, force)

    from twostep.analysis.report import keep_rows, write_comparison, write_report
    from twostep.runs.directory import Run

    for run in runs:
        keep_rows(run, device, data)
    opened = [Run.open(run) for run in runs]
    path = write_report(*opened) if len(opened) == 1 else write_comparison(opened, page)
    logger.info("report: %s", path)
    show(None, {"report": path})
    return 0


def compare(*runs: Path, format: Format = "text") -> int:
    """Compare runs: their data, models, keys that differ, and the figures of tests and evaluations; a column for each.

    Args:
        runs: Directories of the runs.
        format: Form of the table.
    """
    from twostep.cli.comparison import compared

    if not runs:
        raise UserError("give the directories of runs: twostep compare RUN RUN; `twostep runs` lists them")
    found = [RunSummary.read(path) for path in runs]
    if format == "json":
        sys.stdout.write(to_json(plain_values([run.to_dict() for run in found])))
    else:
        show(compared(found, format), [run.to_dict() for run in found])
    return 0


def runs(folder: Path = Path("runs")) -> int:
    """List the runs in a folder, latest first: data, models, state, minutes of training, headline figures.

    Args:
        folder: Folder of runs (key logdir_root).
    """
    from twostep.cli.comparison import run_rows

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of your runs: twostep runs FOLDER")
    found = runs_below(folder)
    show(table(*run_rows(found)) if found else f"{folder}: no runs", [run.to_dict() for run in found])
    return 0


def models(name: str | None = None, *, dataset: str = "fashion-mnist", role: Literal["gae", "de"] | None = None) -> int:
    """List the models, or the keys of one, or of a run (`shared`), with default, type and meaning.

    Args:
        name: Name of a model, or `shared` for the keys of --shared-config.
        dataset: Name or path of a dataset, or `embeddings`, whose defaults to show.
        role: Role whose defaults to show; default: the model's first.
    """
    if name not in (None, SHARED):
        early.check_model(name)
    early.check_dataset(None if dataset == EMBEDDINGS else dataset)

    from twostep.cli.tables import model_keys, model_list, shared_keys

    listing = model_list() if name is None else shared_keys() if name == SHARED else model_keys(name, dataset, role)
    listing.show()
    return 0


def datasets(name: str | None = None, *, clear_cache: flags.Flag = False, table: flags.Table = flags.NO_TABLE) -> int:
    """List the datasets and the folder of their files, the keys of one, or what a file or folder of yours holds.

    Args:
        name: Name of a dataset, or path of an array, a table or images.
        clear_cache: Remove the decoded arrays that are kept between runs instead.
    """
    early.check_dataset(name)
    is_own = name is not None and name not in known()["datasets"] and Path(name).exists()
    if not is_own:
        flags.refuse("only with the path of your own data", **asdict(table))

    from twostep.cli.tables import dataset_keys, dataset_list, own_data

    if clear_cache:
        from twostep.data.files import cache

        files, size = cache.clear()
        logger.info("removed %d files, %.0f MB", files, size / 1e6)
    else:
        (dataset_list() if name is None else own_data(name, table.keys) if is_own else dataset_keys(name)).show()
    return 0
